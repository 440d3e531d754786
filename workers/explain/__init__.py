"""Explains why an alert came or did not come: what stood in the way of each rule and head.

It plays or judges an input again, as `replay` does, and keeps what the stages say of themselves.
May import: `workers/replay` and everything below it.
"""
