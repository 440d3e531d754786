"""The settings: their types, what is wrong with them, and what follows from them.

`schema` has the types, `checks` and `checks_kafka` the rules between fields, `schedule` the hours
of a rule, and `topic_plan` the topics that brokers should have.
May import: the files of `pipeline/`.
"""
