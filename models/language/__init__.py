"""Words: sentence embeddings, and keywords by their stems.

May import: the files of `models/`, and `pipeline/`.
"""
