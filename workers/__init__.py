"""All code with side effects: devices, threads, files, sockets, brokers and the command line.

The commands of a user are here: `cli`, `daemon`, `worker`. `graph` maps stages to topics.
Packages, from the lowest layer up: `config` and `media`; `runtime`; `capture`, `stages` and
`delivery`; `bus`; `recordings`; then `graph`; `stored` and `replay`; then `explain`, `training`,
`tuning`, `recorder`, `setup` and `demo`; at last `commands`, which `cli` puts together.
May import: `models/` and `pipeline/`.
"""
