"""Maps a key to a partition with the default hash of all Kafka clients.

Clients have their own; this one allows a config to be checked where no client is installed.
"""

from __future__ import annotations

_M, _MASK = 0x5BD1E995, 0xFFFFFFFF


def partition_of(key: str, partitions: int) -> int:
    """Returns the partition of a key in a topic with `partitions` partitions."""
    return key_hash(key) % partitions


def key_hash(key: str) -> int:
    """Returns the hash of a key; its remainder by the number of partitions is the partition."""
    return murmur2(key.encode()) & 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """Returns the MurmurHash2 (Austin Appleby) of `data`, 32 bits, with the seed of Kafka's
    clients."""
    whole = len(data) & ~3
    mixed = 0x9747B28C ^ len(data)
    for i in range(0, whole, 4):
        word = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        mixed = (mixed * _M & _MASK) ^ word
    if data[whole:]:
        mixed = (mixed ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    mixed = (mixed ^ mixed >> 13) * _M & _MASK
    return mixed ^ mixed >> 15
