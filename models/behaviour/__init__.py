"""Learned heads of behaviours.

May import: the files of `models/`, and `pipeline/`.
"""
