"""Everything with hands: devices, threads, files, sockets, brokers and the command line.

What a user starts is here: `cli`, `daemon`, `worker`, `demo`, `doctor`. `graph` says which stage
reads which topic. Rooms, from the lowest floor up: `config` and `media`; `runtime`; `capture`,
`stages`, `delivery` and `bus`; then `graph`; then `replay` and `training`.
May import: `models/` and `pipeline/`.
"""
