"""Hearing: YAMNet and the sound head, voice activity, and speech recognition.

`speech` is faster-whisper, `openai_speech` the adapter of an optional package; `transcript`
decides whether a transcript is accepted.
May import: the files of `models/`, and `pipeline/`.
"""
