"""Connects workers to the brokers: Faust as a reader, capture's spool, dead letters, topics.

May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
