"""Judges windows: their features, the noisy-or, and the learned head.

Only code of the daemon is here; no file needs torch. `shipped/` is the head that comes with
Fusewatch.
May import: `models/hearing`, the files of `models/`, and `pipeline/`.
"""
