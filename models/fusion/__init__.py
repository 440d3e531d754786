"""What judges a window: its features, the noisy-or, and the learned head.

Only what runs in the daemon is here; no file needs torch. `shipped/` is the head that comes with
Fusewatch.
May import: `models/hearing`, the files of `models/`, and `pipeline/`.
"""
