"""Training: composes scenes, extracts and reviews windows, trains and evaluates heads.

May import: `workers/replay`, `workers/graph.py` and everything below it.
"""
