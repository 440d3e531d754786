"""The settings: their types, their checks, and the topics that they need.

`schema` has the types, and `rule_kinds` the types of rules. `checks` and `checks_kafka` check
fields against each other. `schedule` has the hours of a rule. `topic_plan` plans Kafka's topics.
May import: the files of `pipeline/`.
"""
