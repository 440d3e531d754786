"""How heads are made: examples, networks, the training loop, figures and reports.

It needs the extra `train` (torch, scikit-learn). The daemon imports nothing of it.
May import: `models/fusion`, `models/hearing`, the files of `models/`, and `pipeline/`.
"""
