"""The services of every process: threads, signals, status, lag, watchdog and state folder.

May import: `workers/config` and `workers/media`, and below.
"""
