"""Turns observations into windows, presence, rule findings and incidents.

Every file is a pure function of records: event time is data, no clock is read, and a replay gives
the same results.

May import: `pipeline/config` and the files of `pipeline/`.
"""
