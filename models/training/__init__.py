"""Trains fusion heads: examples, networks, the training loop, figures and reports.

It needs the extra `train` (torch, scikit-learn). The daemon imports nothing from here.
May import: `models/fusion`, `models/hearing`, the files of `models/`, and `pipeline/`.
"""
