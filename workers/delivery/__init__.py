"""Delivers alerts to subscribers: webhooks, files and snapshots.

`delivery` sends each alert at least once; `webhook`, `jsonl` and `snapshots` are its sinks.
`inline_picture` puts a picture into the body of a webhook.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
