"""The logs that carry records from stage to stage; each is a `Bus`.

`memory` is for replay and tests, `log` is the local log of the daemon (SQLite), `kafka/` speaks to
brokers. All three pass one contract test. Here, unlike in the rest of `pipeline/`, are files,
sockets, clocks and threads.
May import: `pipeline/config` and the files of `pipeline/`.
"""
