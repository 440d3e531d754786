"""Writes the pages and figures of the docs that are made of the code (`make reference`).

`python -m docs.generate` writes them all. `tests/pure/test_generated.py` compares them with the
code. May import: all packages.
"""
