"""Tuning: compares alerts of two runs, shows observations, and tries settings on them.

Knows files of alerts, tables and pictures. It judges nothing itself: `workers/replay` does.
May import: `workers/replay`, `workers/training` and everything below them.
"""
