"""The pure core: records, their codec, the ports, and how one stage runs over one partition.

Nothing here opens a device or a model. Outside `bus`, nothing opens a file or a socket, reads a
clock or starts a thread.
Rooms: `config` (the settings as types), `judge` (windows, tracks, rules, incidents), `behaviour`
(falls, fights and others), `bus` (logs).
May import: the standard library and msgspec; numpy where arrays are computed.
"""
