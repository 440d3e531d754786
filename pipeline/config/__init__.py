"""The config: its types, the checks between settings, and values derived from it.

`schema` has the types, `checks` and `checks_kafka` the rules between fields, `schedule` the hours
of a rule, and `topic_plan` the topics that the brokers need.
May import: the files of `pipeline/`.
"""
