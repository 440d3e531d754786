"""Checks once, before anything else starts, that the brokers have what a worker needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline import topics
from pipeline.config.schema import KafkaBus
from pipeline.errors import ConfigError, OutsideError
from pipeline.limits import most_bytes

RECORD_OVERHEAD = 1 << 11  # bytes of a batch beside its one value: a key, headers, what Kafka adds
FAUST_PROTOCOL = "faust"  # the name of the assignment protocol of Faust's members


class Known(Protocol):
    """An admin client for topics and groups, like `pipeline.bus.kafka.admin.Admin`.

    `limits` is topic -> bytes of its largest batch; `assignor` is a group's assignment protocol,
    or None. Both raise OutsideError.
    """

    def limits(self, topics: Sequence[str]) -> Mapping[str, int]: ...
    def assignor(self, group: str) -> str | None: ...


def check_topics(known: Known, settings: KafkaBus) -> None:
    """Raises ConfigError if a topic is missing or does not take our largest record."""
    limits = known.limits(topics.ALL_TOPICS)
    if missing := [name for name in topics.ALL_TOPICS if name not in limits]:
        msg = (
            f"bus: the brokers have no topic {settings.prefix}.{missing[0]}"
            f"{f' (nor {len(missing) - 1} others)' if missing[1:] else ''}: "
            "`fusewatch topics create CONFIG` makes what is missing"
        )
        raise ConfigError(msg)
    for name, limit in limits.items():
        needed = most_bytes(name, settings.max_message) + RECORD_OVERHEAD
        if limit < needed:
            msg = (
                f"bus.max_message: {settings.max_message} bytes; {settings.prefix}.{name} takes "
                f"{limit}, and needs {needed}: `fusewatch topics create CONFIG` raises it, or "
                "lower this"
            )
            raise ConfigError(msg)


def check_group(known: Known, settings: KafkaBus, group: str, *, faust: bool) -> None:
    """Raises OutsideError if the other kind of worker is in the group.

    The two kinds use different assignment protocols, and brokers refuse a group with both.
    """
    name = f"{settings.prefix}-{group}"
    protocol = known.assignor(name)
    if protocol is None or (protocol == FAUST_PROTOCOL) == faust:
        return
    there, here = ("Faust", "plain") if protocol == FAUST_PROTOCOL else ("plain", "Faust")
    msg = (
        f"the group {name} has {there} workers ({protocol}), and this is a "
        f"{here} one: they cannot share partitions, so one group is all Faust or all plain; stop "
        "the others first, or start this one "
        f"{'with' if protocol == FAUST_PROTOCOL else 'without'} --faust"
    )
    raise OutsideError(msg)
