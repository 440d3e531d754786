"""The `Bus` over Apache Kafka, by kafka-python.

Connections, producers, the reader of a group, reads outside a group, and the administration of
topics have a file each.
May import: `pipeline/bus`, `pipeline/config` and the files of `pipeline/`.
"""
