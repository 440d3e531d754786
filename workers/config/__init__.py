"""The config file: read, checked, and its secrets and addresses resolved.

`loader` reads YAML into types and names file, line and path of every problem. `ssrf_guard` says
which addresses a webhook may reach, `adapters` which models a config may name.
May import: `models/` and `pipeline/`.
"""
