"""The trace of what was captured leads to the webhook that it caused, and is the same each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import codec, topics, trace
from pipeline.bus.log_search import between
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Webhook as Settings
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, AudioChunk, FrameChunk, Record, rfc3339
from tests.graph.conftest import FAKES
from workers import daemon
from workers.config import loader
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.receiver import Receiver, Reply
from workers.delivery.webhook import Webhook
from workers.replay.scene_replay import replay

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
Scene = Callable[..., Path]


class Posted(msgspec.Struct):
    """What a run captured, by the 32 digits of its traces, and what a receiver got of it."""

    captured: Mapping[str, Record]
    events: Mapping[str, dict[str, Any]]
    headers: list[tuple[str, str]]  # webhook-id, traceparent

    @property
    def parents(self) -> dict[str, str]:
        return dict(self.headers)

    def cause(self, event: Mapping[str, Any]) -> Record:
        """The captured record to which an event's traceparent leads."""
        return self.captured[self.parents[event["id"]].split("-")[1]]


def by_trace(entries: list[Entry]) -> dict[str, Record]:
    records = {entry.trace.split("-")[1]: codec.decode(entry.value) for entry in entries}
    assert len(records) == len(entries), "each record that was captured has a trace of its own"
    return records


def posts(receiver: Receiver) -> list[tuple[str, str]]:
    return [(post.headers["webhook-id"], post.headers["traceparent"]) for post in receiver.posts]


def by_drain(config: Path, scene: Path) -> Posted:
    bus = MemoryBus(keep=True)
    replay(loader.load(config), scene, FAKES, bus=bus)
    entries = [
        event
        for topic in topics.CHUNKS
        for event in bus.reader(topic, "test").poll(10_000)
        if isinstance(event, Entry)
    ]
    failed: set[str] = set()

    def answer(post: Any) -> Reply:
        if post.headers["webhook-id"] in failed:
            return Reply()
        failed.add(post.headers["webhook-id"])
        return Reply(503)

    with Receiver(SECRET, answer=answer) as receiver:
        clock = [0.0]
        outside = DeliveryEnvironment(clock=lambda: clock[0], random=lambda: 0.5)
        sink = Webhook(Settings(url=receiver.url, secret=SECRET))
        delivery: Delivery | None = None
        while delivery is None or not delivery.idle:
            if delivery is not None:
                delivery.close()  # a restart at each step
            reader = bus.reader(topics.ALERTS, "delivery-siem")
            delivery = Delivery(
                Subscriber(name="siem", sink=sink), reader, dead_letter_publisher(bus), outside
            )
            delivery.step()
            delivery.step()
            clock[0] += 60
        return Posted(by_trace(entries), receiver.events, posts(receiver))


def by_edge(config: Path, scene: Path) -> Posted:
    with Receiver(SECRET) as receiver:
        config.write_text(
            f"{config.read_text()}\nwebhooks:\n"
            f"  - {{name: siem, url: '{receiver.url}', secret: '{SECRET}'}}\n"
        )
        state = config.parent / "state"
        assert daemon.run(config, scene=scene, state=state, encoders=FAKES) == 0
        entries = [
            entry for topic in topics.CHUNKS for entry in between(state / "log", topic, 0, FOREVER)
        ]
        return Posted(by_trace(entries), receiver.events, posts(receiver))


WAYS = pytest.mark.parametrize("way", [by_drain, by_edge], ids=["drain", "edge"])


@WAYS
def test_a_webhook_has_the_trace_of_the_record_that_caused_its_revision(
    way: Callable[[Path, Path], Posted], config: Path, scene: Scene
) -> None:
    posted = way(config, scene(person=(3, 6), loud=(8, 9)))
    assert all(trace.child(parent, "x") for _, parent in posted.headers), "each is a traceparent"
    opened, *more = sorted(posted.events.values(), key=lambda event: event["data"]["revision"])
    frame = posted.cause(opened)
    assert isinstance(frame, FrameChunk)
    assert rfc3339(frame.start) == opened["data"]["start"]
    shot = next(event for event in more if "gunshot" in event["data"]["labels"])
    heard = posted.cause(shot)
    assert isinstance(heard, AudioChunk)
    assert heard.end % SECOND == 0, "the chunk with which the second of the shot was complete"
    assert rfc3339(heard.end) == shot["time"]
    assert len({posted.parents[event["id"]] for event in posted.events.values()}) == len(
        posted.events
    )


def test_a_trace_is_the_same_at_each_attempt_after_restarts_and_in_another_run(
    config: Path, scene: Scene
) -> None:
    played = scene(person=(3, 6), loud=(8, 9))
    posted = by_drain(config, played)
    assert len(posted.headers) == 2 * len(posted.events), "each was refused once"
    assert len(set(posted.headers)) == len(posted.events)
    assert posted.parents == by_drain(config, played).parents


def test_the_first_word_of_an_incident_has_one_trace_in_every_way(
    config: Path, scene: Scene
) -> None:
    played = scene(person=(3, 6))
    firsts = []
    for way in (by_drain, by_edge):
        posted = way(config, played)
        opened = [event for event in posted.events.values() if event["data"]["revision"] == 0]
        firsts.append({event["id"]: posted.parents[event["id"]] for event in opened})
    assert firsts[0] == firsts[1] != {}
