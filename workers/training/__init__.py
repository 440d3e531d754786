"""Teaching: scenes are composed, windows extracted and reviewed, heads trained and evaluated.

May import: `workers/replay`, `workers/graph.py` and everything below it.
"""
