"""The list of destinations, and the delivery to each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.ports import Bus
from pipeline.types import Alert
from workers.config.secrets import Secrets
from workers.delivery import cloudevent, inline_picture, jsonl, snapshots, webhook
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.enable_mark import EnableMark
from workers.delivery.webhook import Document

REPLAY_TIMEOUT = 60.0  # s that `replay --deliver` tries


# A new destination is a file with a `subscribers` function, and a line in one of these.
RemoteSubscribers = Callable[[Config, Secrets, Document], Iterable[Subscriber]]
REMOTE: Sequence[RemoteSubscribers] = (webhook.subscribers,)  # also for `deliver_now`
LOCAL: Sequence[Callable[[Config, Path, Bus], Iterable[Subscriber]]] = (  # in the state folder
    jsonl.subscribers,
    snapshots.subscribers,
)


def remote(
    settings: Config, secrets: Secrets, folder: Path | None = None, bus: Bus | None = None
) -> list[Subscriber]:
    """Returns the subscribers outside the state folder; looks up their secrets.

    Their pictures are kept in the state folder `folder`, and cut from the frames of `bus`. Without
    a bus only those that are kept are sent; without a folder none.
    """
    document: Document = cloudevent.event_bytes
    if folder is not None and any(hook.picture == "inline" for hook in settings.webhooks):
        document = inline_picture.inline_pictures(settings, folder, bus).event_bytes
    return [who for make in REMOTE for who in make(settings, secrets, document)]


def every(settings: Config, secrets: Secrets, folder: Path, bus: Bus) -> list[Subscriber]:
    """Returns all subscribers; `folder` is the state folder, `bus` holds the captured frames."""
    found = [*remote(settings, secrets, folder, bus), *local(settings, folder, bus)]
    return [replace(who, enabled=EnableMark(folder, who.name)) for who in found]


def local(settings: Config, folder: Path, bus: Bus) -> list[Subscriber]:
    """Returns the subscribers that are files: those in the state folder and those of the config."""
    return [who for make in LOCAL for who in make(settings, folder, bus)]


def give_way(folder: Path, wanted: int) -> int:
    """Makes the oldest pictures in the state folder give way until `wanted` bytes are freed.

    For a full disk. Returns how many bytes are freed.
    """
    freed = snapshots.evict(folder / "evidence", wanted)
    return freed + inline_picture.evict(folder / inline_picture.FOLDER, wanted - freed)


def delivery(
    who: Subscriber,
    bus: Bus,
    pause: Callable[[float], object],
    count: Callable[[str, str, str], object],
) -> Delivery:
    """Creates the delivery to one subscriber; `pause` waits some seconds, or until the stop."""
    outside = DeliveryEnvironment(clock=time.time, random=random.random, pause=pause, count=count)
    return Delivery(who, bus.reader(topics.ALERTS, who.group), dead_letter_publisher(bus), outside)


def deliver_now(settings: Config, alerts: Sequence[Alert], secrets: Secrets) -> list[str]:
    """Sends replayed alerts to the remote subscribers.

    Returns the names of those that did not take all within `REPLAY_TIMEOUT` s.
    """
    bus = MemoryBus()
    for alert in alerts:
        bus.publish(topics.ALERTS, topics.key_of(topics.ALERTS, alert), codec.encode(alert))
    bus.flush()
    missed = []
    for who in remote(settings, secrets):
        sending = delivery(who, bus, time.sleep, lambda site, source, what: None)
        dead = len(bus.values(topics.DEAD))
        until = time.monotonic() + REPLAY_TIMEOUT
        while not sending.idle and time.monotonic() < until:
            sending.step(0.1)
        if sending.pending or len(bus.values(topics.DEAD)) > dead:
            missed.append(who.name)
        sending.close()
    return missed
