"""What observations amount to: windows, presence, tracks, rules, incidents.

Every file is a pure function of records: event time is data, no clock is read, and a replay gives
the same answers.
May import: `pipeline/config` and the files of `pipeline/`.
"""
