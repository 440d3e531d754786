"""Recordings: scene files through the graph, and stored observations judged again.

`scene_replay` plays a scene in one thread, `scene_player` plays one into a live bus.
May import: `workers/graph.py` and everything below it.
"""
