"""Cameras, microphones and people's reports become records.

`factory` makes a source of an address, `capture` connects it again and again, `live` has the
threads of all sources, `report_server` takes reports over HTTP.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
