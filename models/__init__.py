"""Encoders and fusion heads: each maps a batch to one result per item.

A model has no access to time, sites, the bus or the config file. `registry`, `download` and
`weights` find the model files. Rooms: `vision`, `hearing`, `language`, `fusion`, and `training`
(torch).
May import: `pipeline/`.
"""
