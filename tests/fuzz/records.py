"""Mutated records on each topic, mutated files of alerts and notes of deliveries."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.errors import OutsideError, Retry
from pipeline.run import drain
from tests import make
from tests.fuzz.mutations import damaged
from tests.graph.conftest import CONFIG, FAKES
from tests.graph.test_poison import ALSO, GOOD, MAX, key, odd
from workers import graph
from workers.config import loader
from workers.delivery import cloudevent
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.jsonl import Jsonl
from workers.delivery.outbox import CircuitBreaker, Outbox, pack
from workers.runtime.status import Status


class Records:
    """A case is some mutated records among good ones, and all stages that read them."""

    name, target, batch, patience = "records", 1000, 50, 30.0
    files = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = folder / "office.yaml"
        config.write_text(CONFIG)
        self._settings = loader.load(config)

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Publishes records to one topic and runs every stage until nothing is left."""
        topic = dice.choice(sorted(GOOD))
        given = [*GOOD[topic], *ALSO.get(topic, ())]
        all_bytes = [codec.encode(record) for record in given]
        bus = MemoryBus(keep=True)
        for record in dice.choices(given, k=4):
            value = odd(record, dice) if dice.random() < 0.5 else codec.encode(record)
            if dice.random() < 0.7:
                value = damaged(dice, value, all_bytes)
            codec.span(value)
            bus.publish(topic, key(topic), value)
            bus.publish(topic, key(topic), codec.encode(record))
        bus.flush()
        path = self._folder / f"alerts-{number}.jsonl"
        with closing(Jsonl(path)) as sink:
            runners = [
                node.runner(bus, MAX)
                for node in graph.nodes(self._settings, FAKES, Status(), recorded=number % 2 == 0)
            ]
            delivery = Delivery(
                Subscriber(name="jsonl", sink=sink),
                bus.reader(topics.ALERTS, "delivery-jsonl"),
                dead_letter_publisher(bus),
                DeliveryEnvironment(clock=time.time, random=lambda: 0.5),
            )
            while drain(runners) + delivery.step():
                pass
            assert delivery.idle
        path.unlink()


class Alerts:
    """A case is a damaged `alerts.jsonl`, and its older file; the next alert is written."""

    name, target, batch, patience = "alerts", 500, 50, 30.0
    files = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._alerts = [make.alert(revision=number) for number in range(1, 9)]
        lines = [cloudevent.event_bytes(alert) + b"\n" for alert in self._alerts]
        self._whole = b"".join(lines[:-1])
        self._new = self._alerts[-1]

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        logging.getLogger("fusewatch.delivery").setLevel(logging.CRITICAL)
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Damages the files, opens them as a start does, and sends an alert."""
        path = self._folder / f"{number}.d" / "alerts.jsonl"
        path.parent.mkdir()
        others = [self._whole, b"\n\n", b"no line of ours\n", bytes(4096)]
        path.write_bytes(damaged(dice, self._whole, others))
        older = path.with_name("alerts.jsonl.1")
        match dice.randrange(4):
            case 0:
                older.write_bytes(damaged(dice, self._whole, others))
            case 1:
                older.mkdir()
        most = dice.choice((None, 100, 5000))
        with closing(Jsonl(path, most, ours=True)) as sink:
            match dice.randrange(8):
                case 0:
                    path.unlink()
                case 1:
                    path.unlink()
                    path.mkdir()
                case 2:
                    path.write_bytes(dice.randbytes(100))
            try:
                sink.send(self._new)
                sink.flush()
            except Retry:
                if not older.is_dir():
                    raise
            else:
                wanted = cloudevent.event_bytes(self._new) + b"\n"
                assert path.read_bytes().endswith(wanted)


class Notes:
    """A case is a mutated note of a delivery: it is read, or refused in words."""

    name, target, batch, patience = "notes", 1000, 200, 30.0
    files = False

    def __init__(self, folder: Path) -> None:
        items = {5: (1, 100.0), 9: (3, 200.0)}
        self._note = pack(5, 12, CircuitBreaker(2, 300.0, b"12345678"), items)

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Reads one mutated note."""
        with suppress(OutsideError):
            Outbox(5, damaged(dice, self._note, [self._note]))
