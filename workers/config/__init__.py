"""The config file: reads and checks it, and resolves its secrets and addresses.

`loader` reads YAML into types and reports file, line and path of every problem. `ssrf_guard`
decides which addresses a webhook may reach, `adapters` which models a config may name.
May import: `models/` and `pipeline/`.
"""
