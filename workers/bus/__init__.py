"""Glue to the brokers: Faust as a reader, the spool of capture, dead letters, topics.

May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
