"""Media: JPEG, PCM, recorded video and sound, sound levels and picture quality.

May import: `models/` and `pipeline/`.
"""
