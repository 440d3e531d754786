"""The commands of the command line: what each takes and which function runs it.

`workers/cli.py` puts them together. May import: all of workers.
"""
