"""The recorder: follows a local log or Kafka, and writes recordings.

`recorder` copies entries from tails into files. `record_command` records for a while,
`continuous` for as long as a daemon or a worker runs; `kept_files` deletes what is not to be kept.
May import: `workers/recordings/`, `workers/replay/` and everything below them.
"""
