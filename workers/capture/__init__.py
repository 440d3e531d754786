"""Captures cameras, microphones and reports of people as records.

`factory` builds a source from an address, `capture` reads it and reconnects after a loss, `live`
builds the threads of all sources, `report_server` accepts reports over HTTP.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
