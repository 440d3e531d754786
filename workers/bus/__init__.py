"""Connects workers to the brokers: Faust as a reader, capture's spool, dead letters, topics.

May import: `workers/capture`, `workers/stages`, `workers/delivery`, and below.
"""
