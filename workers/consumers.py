"""Starts the consumers of a process: a thread for each stage and each delivery, and the watchdog.

The daemon and the workers start them the same way, on different buses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline import topics
from pipeline.run import Runner
from workers.delivery.delivery import Delivery
from workers.runtime import watchdog
from workers.runtime.lag import ConsumerOffsets, ConsumerProgress
from workers.runtime.supervisor import IDLE_WAIT, Supervisor

WATCHDOG = "watchdog"  # the name of its thread, which errors show


@dataclass(frozen=True)
class Consumer:
    """A stage or a delivery, with its thread's name, its progress, and functions to run it."""

    name: str
    progress: ConsumerProgress
    turn: Callable[[], None]
    close: Callable[[], None]


def stage_consumer(runner: Runner) -> Consumer:
    """Returns the consumer of a stage; its offset need not advance while it rebuilds its state."""
    progress = ConsumerProgress(
        runner.topic,
        runner.group,
        settling=lambda: runner.settling,
        answered=lambda: runner.answered,
    )
    return Consumer(runner.group, progress, partial(_step, runner, progress), runner.close)


def delivery_consumer(delivery: Delivery) -> Consumer:
    """Returns the consumer of a delivery; its offset need not advance while alerts wait."""
    progress = ConsumerProgress(
        topics.ALERTS,
        delivery.group,
        settling=lambda: delivery.settling,
        extra=delivery.timeout,
    )
    turn = partial(_deliver, delivery, progress)
    return Consumer(f"deliver {delivery.name}", progress, turn, delivery.close)


def start(
    consumers: Sequence[Consumer],
    supervisor: Supervisor,
    bus: ConsumerOffsets,
    patience: float,
    gauge: Callable[[str, float], object] = lambda name, value: None,
) -> None:
    """Starts a thread for each consumer, and the watchdog with a patience of `patience` s."""
    for consumer in consumers:
        supervisor.repeat(consumer.name, consumer.turn, consumer.close)
    jobs = [consumer.progress for consumer in consumers]
    supervisor.start(WATCHDOG, partial(watchdog.watch, supervisor.stop, bus, jobs, patience, gauge))


def _step(runner: Runner, progress: ConsumerProgress) -> None:
    runner.step(IDLE_WAIT)
    hosts = runner.hosts
    rebuilding = any(host.rebuilding for host in hosts.values())
    reached = {number: host.reached for number, host in hosts.items()}
    progress.moved(reached, by_design=rebuilding, lost=runner.reader.lost)


def _deliver(delivery: Delivery, progress: ConsumerProgress) -> None:
    delivery.step(IDLE_WAIT)
    progress.moved(delivery.places, by_design=delivery.pending > 0, lost=delivery.lost)
