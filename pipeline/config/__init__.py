"""The config: its types, the checks between settings, and values derived from it.

`schema` has the types, and `rule_kinds` those of rules. `checks` and `checks_kafka` look at fields
together, `schedule` at the hours of a rule. `topic_plan` has the topics that brokers should have.
May import: the files of `pipeline/`.
"""
