"""The message buses: each one stores topics of records and implements `Bus`.

`memory` serves replay and tests, `log` is the daemon's local log (SQLite), `kafka/` connects to
Kafka brokers. All three pass one contract test.
May import: `pipeline/config` and the files of `pipeline/`.
"""
