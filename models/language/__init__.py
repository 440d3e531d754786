"""Language: sentence embeddings, and stemmed keywords.

May import: the files of `models/`, and `pipeline/`.
"""
