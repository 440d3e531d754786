"""Replay: runs scene files through the graph, and judges stored observations again.

`scene_replay` plays a scene on a bus in memory, `scene_player` plays one into a live bus.
May import: `workers/graph.py` and everything below it.
"""
