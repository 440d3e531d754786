"""From the boxes of single frames to tracks: who is who, also behind a pillar.

Pure functions and states of records. May import: `pipeline/` files.
"""
