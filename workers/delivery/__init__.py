"""Delivers alerts to subscribers: webhooks, files and snapshots.

`delivery` sends each alert at least once; `webhook`, `jsonl` and `snapshots` are its sinks.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
