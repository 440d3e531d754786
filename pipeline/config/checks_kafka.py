"""Checks of a Kafka bus that need more than one field; no broker is contacted.

No message quotes an address or a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count

from pipeline import topics
from pipeline.config.problem import Problem
from pipeline.config.schema import Config, KafkaBus, size_bytes
from pipeline.config.topic_plan import LEAST_SEGMENT, Plan, partitions_of, plans, shares
from pipeline.kafka_partitioner import key_hash

LEAST_SPOOL = 100_000_000  # bytes: half a minute of ten cameras
MOST_SITES = 300  # on one partition: a commit's note of 4,096 bytes holds 339
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\])")


def bus_problems(config: Config, bus: KafkaBus) -> Iterator[Problem]:
    """Yields every problem of `bus`, which is the bus of `config`."""
    for i, broker in enumerate(bus.brokers):
        wrong = _broker(broker)
        if not wrong and broker in bus.brokers[:i]:
            wrong = "is named twice"
        if wrong:
            yield Problem(("bus", "brokers", i), wrong)
    if bus.min_insync > bus.replication:
        what = f"is more than bus.replication ({bus.replication}): nothing could be written"
        yield Problem(("bus", "min_insync"), what)
    yield from _security(bus)
    yield from _sizes(config, bus)
    yield from _notes(config.sites, bus)


def _broker(text: str) -> str:
    """Returns what is wrong with a broker's address, or ""."""
    if "://" in text or "/" in text or "@" in text:
        return "must be host:port alone, like kafka-1:9092; TLS and passwords are bus.tls, bus.sasl"
    if "," in text or " " in text:
        return "must be one address; give several as a list: [kafka-1:9092, kafka-2:9092]"
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return "has no port; it must be host:port, like kafka-1:9092 or [::1]:9092"
    if not _HOST.fullmatch(host):
        return "begins with what is no host; it must be host:port, like kafka-1:9092"
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535):
        return "must end with a port, 1 to 65535, like kafka-1:9092"
    return ""


def _security(bus: KafkaBus) -> Iterator[Problem]:
    if bus.tls is not None and bus.tls.key and not bus.tls.cert:
        yield Problem(("bus", "tls", "key"), "needs bus.tls.cert, the certificate it belongs to")
    if bus.sasl is None:
        return
    for name in ("username", "password"):
        if not getattr(bus.sasl, name).strip():
            yield Problem(("bus", "sasl", name), "is empty")
    if bus.tls is None and not all(_loopback(broker) for broker in bus.brokers):
        what = "would go over the network for all to read; add bus.tls (`tls: {}` is enough where"
        yield Problem(("bus", "sasl"), f"{what} a public authority made the brokers' certificates)")


def _loopback(broker: str) -> bool:
    host = broker.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sizes(config: Config, bus: KafkaBus) -> Iterator[Problem]:
    try:
        if size_bytes(bus.spool) < LEAST_SPOOL:
            what = f"must be at least {LEAST_SPOOL // 10**6} MB, for an outage of some seconds"
            yield Problem(("bus", "spool"), what)
    except ValueError as error:
        yield Problem(("bus", "spool"), str(error))
    try:
        short = [plan for plan in plans(config, bus) if _kept(plan) < _least(plan)]
    except ValueError:
        return  # storage.cap itself is wrong: its own check reports it
    if short:
        cap = size_bytes(config.storage.cap)
        share = shares(config)
        needed = max(
            _least(plan) * plan.partitions * cap // max(1, share[plan.topic][0]) for plan in short
        )
        each = min(short, key=_kept)
        yield Problem(
            ("storage", "cap"),
            f"is too little for so many partitions: one of {each.topic} would keep "
            f"{_kept(each) / 1e6:.1f} MB, and a record may have {bus.max_message / 1e6:.1f}; "
            f"at least {-(-needed // 10**7) * 10} MB, or fewer bus.partitions",
        )


def _kept(plan: Plan) -> int:
    return int(plan.config["retention.bytes"])


def _least(plan: Plan) -> int:
    return max(LEAST_SEGMENT, int(plan.config["max.message.bytes"]))


def _notes(sites: Iterable[str], bus: KafkaBus) -> Iterator[Problem]:
    """Checks that the floors of a partition's sites fit in a note (4,096 bytes at most)."""
    hashes = [key_hash(site) for site in sites]
    for topic in (topics.OBSERVATIONS, topics.ANOMALIES):
        field, partitions = topic.removesuffix(".v1"), partitions_of(bus, topic)
        most = _most(hashes, partitions)
        if most > MOST_SITES:
            more = next(n for n in count(partitions + 1) if _most(hashes, n) <= MOST_SITES)
            yield Problem(
                ("bus", "partitions", field),
                f"is {partitions}, and {most} sites would share one: the note of a commit holds "
                f"{MOST_SITES}; at least {more}",
            )


def _most(hashes: Iterable[int], partitions: int) -> int:
    """Returns the number of sites on the fullest partition."""
    return max(Counter(each % partitions for each in hashes).values(), default=0)
