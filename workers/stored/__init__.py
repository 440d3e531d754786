"""What is stored and judged again: which part of it, by which rules, in which order, how fast.

May import: `workers/bus/`, `workers/stages/` and everything below them.
"""
