"""Encoders and heads: a batch goes in, one result for each item comes out.

A model knows no time, no site, no bus and no config file. `registry`, `download` and `weights` find
the model files. Rooms: `vision`, `hearing`, `language`, `fusion`, and `training` (torch).
May import: `pipeline/`.
"""
