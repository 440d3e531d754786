"""Who gets alerts, made of the config: webhooks, files and the evidence folder."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.checks import webhook_names
from pipeline.config.schema import Config, size_bytes
from pipeline.errors import ConfigError
from pipeline.ports import Bus
from pipeline.types import Alert, content_id
from workers.config.secrets import Secrets
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Filter,
    Subscriber,
    dead_letters,
)
from workers.delivery.jsonl import Jsonl
from workers.delivery.snapshots import Evidence
from workers.delivery.webhook import Outcome, Webhook, try_out

NOW = 60.0  # s that `replay --deliver` tries


def webhooks(settings: Config, secrets: Secrets) -> Iterator[Subscriber]:
    """A subscriber a webhook; its secrets are looked up here."""
    names = webhook_names(settings)
    for i, (name, given) in enumerate(zip(names, settings.webhooks, strict=True)):
        hook = replace(secrets.webhook(given, f"webhooks[{i}]"), name=name)
        yield Subscriber(
            name=name,
            sink=Webhook(hook),
            wants=Filter(sites=hook.sites, min_severity=hook.min_severity),
            address=hook.url,
        )


def files(settings: Config, folder: Path) -> Iterator[Subscriber]:
    """JSON lines: those of the config, and always `alerts.jsonl` in the state folder.

    That one and the one before it, `alerts.jsonl.1`, take a hundredth of the cap each; a file of
    the config belongs to who named it, and grows.
    """
    most = size_bytes(settings.storage.cap) // 100
    given = [  # a name is a place in the log: it must not move when another file is put before
        (f"jsonl-{content_id(one.path)[:8]}", Path(one.path).expanduser(), one.sites)
        for one in settings.jsonl
    ]
    own = ("jsonl", folder / "alerts.jsonl", ())
    for name, path, sites in [own, *given]:
        sink = Jsonl(path, most if path == own[1] else None)
        yield Subscriber(name=name, sink=sink, wants=Filter(sites=sites), flush=sink.flush)


def evidence(settings: Config, folder: Path, bus: Bus) -> Subscriber:
    """The folder of snapshots, `evidence/` in the state folder: a tenth of the cap."""
    cap = size_bytes(settings.storage.cap) // 10
    return Subscriber(name="evidence", sink=Evidence(folder / "evidence", bus, cap))


def delivery(
    who: Subscriber,
    bus: Bus,
    pause: Callable[[float], object],
    count: Callable[[str, str, str], object],
) -> Delivery:
    """Creates the delivery to one subscriber; `pause` waits some seconds, or until the stop."""
    outside = DeliveryEnvironment(clock=time.time, random=random.random, pause=pause, count=count)
    return Delivery(who, bus.reader(topics.ALERTS, who.group), dead_letters(bus), outside)


def deliver_now(settings: Config, alerts: Sequence[Alert], secrets: Secrets) -> list[str]:
    """Send replayed alerts to the webhooks; the names of those that did not take all in time."""
    bus = MemoryBus()
    for alert in alerts:
        bus.publish(topics.ALERTS, topics.key_of(topics.ALERTS, alert), codec.encode(alert))
    bus.flush()
    missed = []
    for who in webhooks(settings, secrets):
        sending = delivery(who, bus, time.sleep, lambda site, source, what: None)
        dead = len(bus.values(topics.DEAD))
        until = time.monotonic() + NOW
        while not sending.idle and time.monotonic() < until:
            sending.step(0.1)
        if sending.pending or len(bus.values(topics.DEAD)) > dead:
            missed.append(who.name)
        sending.close()
    return missed


def try_webhooks(settings: Config, name: str | None, secrets: Secrets) -> list[Outcome]:
    """What came back from a signed test event to the webhook `name`, or to each."""
    names = webhook_names(settings)
    if name is not None and name not in names:
        msg = f"webhooks: there is none named {name!r}; there are {', '.join(names) or 'none'}"
        raise ConfigError(msg)
    return [
        try_out(Webhook(replace(secrets.webhook(hook, f"webhooks[{i}]"), name=known)))
        for i, (known, hook) in enumerate(zip(names, settings.webhooks, strict=True))
        if name in (None, known)
    ]
