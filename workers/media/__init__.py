"""Pixels and samples: JPEG, PCM, recorded films and sounds, levels and picture quality.

May import: `models/` and `pipeline/`.
"""
