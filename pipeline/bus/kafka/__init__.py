"""The `Bus` on Apache Kafka, through kafka-python.

One file each: connections, producers, the consumer-group reader, reads outside a group, and the
administration of topics.
May import: `pipeline/bus`, `pipeline/config` and the files of `pipeline/`.
"""
