"""What every process needs: threads and signals, status, lag, the watchdog, the state folder.

May import: `workers/config` and `workers/media`, and below.
"""
