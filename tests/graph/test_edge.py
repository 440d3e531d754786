"""The daemon's own doing: when it starts what, how well it is, and how it ends."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.ports import Entry
from pipeline.types import SECOND, Alert, Anomaly, Detections, FrameChunk, Progress, Record
from tests import make
from tests.graph.conftest import FAKES
from tests.live.servers import eventually
from workers import graph
from workers.bus.publish import publish_all
from workers.capture import factory
from workers.capture.clock import UtcClock
from workers.config import loader
from workers.config.secrets import Secrets
from workers.daemon import Daemon, _over
from workers.delivery.delivery import Subscriber
from workers.media.jpeg import encoded
from workers.runtime.lag import (
    BACKLOG_TIMEOUT,
    MAX_BACKLOG,
    KeepingUp,
    LocalOffsets,
    StageLag,
    caught_up,
)
from workers.runtime.state_folder import local_log
from workers.runtime.status import Status
from workers.runtime.supervisor import Supervisor
from workers.stages.encoders import Encoders
from workers.view import View


def built(config: Path) -> Daemon:
    """A daemon that has not begun, on a log of its own."""
    # A file needs no PyAudio.
    config.write_text(config.read_text().replace("device:default", "nothing.flac"))
    settings, status, folder = loader.load(config), Status(), config.parent / "state"
    secrets = Secrets(base=config.parent)
    bus = local_log(settings, folder)
    clock = UtcClock(floor=factory.newest_event_time(bus.last, settings.sites))
    return Daemon(settings, config, folder, bus, secrets, status,
                  View(status, secrets), Supervisor(), clock)  # fmt: skip


@contextlib.contextmanager
def running(daemon: Daemon, encoders: Encoders) -> Iterator[None]:
    """The daemon at work on its live sources."""
    done = threading.Thread(target=daemon.work, args=(None, None, encoders))
    done.start()
    try:
        yield
    finally:
        daemon.supervisor.stop.set()
        done.join()
        daemon.bus.close()
        daemon.view.close()
    assert daemon.supervisor.error is None


def records(bus: LocalLog, topic: str) -> list[Record]:
    """All that the topic holds."""
    reader = bus.reader(topic, "test")
    polled = [entry for entry in reader.poll(10_000) if isinstance(entry, Entry)]
    reader.close()
    return [codec.decode(entry.value) for entry in polled]


def put(bus: LocalLog, topic: str, *given: Record) -> None:
    publish_all(bus, topic, given)


def frame(start: int) -> FrameChunk:
    data = encoded(np.full((48, 64, 3), 200, np.uint8))
    return FrameChunk(site="office", source="desk", start=start, end=start + SECOND // 5,
                      seq=0, width=64, height=48, data=data)  # fmt: skip


class Held:
    """A model that waits in its first call until it is let go."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, batch: Sequence[Any]) -> Any:
        self.entered.set()
        assert self.go.wait(60)
        return self.model(batch)


def test_nobody_promises_anything_before_the_backlog_of_a_downtime_is_worked_off(
    config: Path,
) -> None:
    daemon, detector = built(config), Held(FAKES.detector)
    old = daemon.clock() - 1000 * SECOND
    for k in range(5):
        put(daemon.bus, topics.FRAMES, frame(old + k * SECOND))
    encoders = msgspec.structs.replace(FAKES, detector=detector)
    with running(daemon, encoders):
        assert detector.entered.wait(30)
        assert daemon.bus.end(topics.REPORTS) == 0
        detector.go.set()

        def observed() -> list[str]:
            return [record.source for record in records(daemon.bus, topics.OBSERVATIONS)]

        eventually(lambda: "reports" in observed(), within=30)
        seen = records(daemon.bus, topics.OBSERVATIONS)
        last = max(i for i, record in enumerate(seen) if isinstance(record, Detections))
        assert last < observed().index("reports")
        assert daemon.bus.end(topics.LATE) == 0


def test_who_is_stopped_before_the_backlog_is_worked_off_has_promised_nothing(config: Path) -> None:
    daemon, detector = built(config), Held(FAKES.detector)
    put(daemon.bus, topics.FRAMES, frame(daemon.clock() - 1000 * SECOND))
    with running(daemon, msgspec.structs.replace(FAKES, detector=detector)):
        assert detector.entered.wait(30)
        daemon.supervisor.stop.set()
        detector.go.set()
    again = built(config)
    assert [again.bus.end(topic) for topic in topics.CHUNKS] == [1, 0, 0]
    again.bus.close()
    again.view.close()


def test_a_reload_is_done_while_the_daemon_goes_on(
    config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon, said = built(config), list[str]()

    def told(what: str) -> bool:
        said.append(capfd.readouterr().err)
        return what in "".join(said)

    with running(daemon, FAKES):
        eventually(lambda: told('"ready"'), within=30)
        daemon.supervisor.reload.set()
        eventually(lambda: told("reload: heads are now office: "), within=30)
        assert not daemon.supervisor.stop.is_set()


def test_a_backlog_is_waited_for_so_long_and_no_longer() -> None:
    left = iter([3, 2, 0])
    assert caught_up(lambda: {"vision": next(left)}, lambda: False, 10)
    turns: list[int] = []

    def turn() -> bool:
        turns.append(1)
        return len(turns) == 7

    assert not caught_up(lambda: {"vision": 3}, turn, 4)
    assert len(turns) == 4
    assert not caught_up(lambda: {"vision": 3}, turn, 99)
    assert len(turns) == 7


def test_a_clock_set_back_over_a_restart_makes_no_source_a_repeat(config: Path) -> None:
    daemon = built(config)
    ahead = daemon.clock() + 5000 * SECOND
    put(daemon.bus, topics.FRAMES, frame(ahead))
    daemon.bus.close()
    daemon.view.close()
    again = built(config)
    assert again.clock.ahead >= 4999 * SECOND
    with running(again, FAKES):

        def promises() -> list[Progress]:
            said = records(again.bus, topics.FRAMES)
            return [record for record in said if isinstance(record, Progress)]

        eventually(promises, within=30)
        assert all(promise.upto > ahead for promise in promises())


def told(daemon: Daemon) -> list[list[str]]:
    lines = (daemon.folder / "alerts.jsonl").read_text().splitlines()
    return [json.loads(line)["data"]["labels"] for line in lines]


@pytest.mark.parametrize("hung", ["vision", "deliver evidence"])
def test_a_failure_is_told_although_another_thread_hangs(config: Path, hung: str) -> None:
    daemon = built(config)
    who, nodes = (
        daemon._subscribers(),
        list(graph.nodes(daemon.settings, FAKES, daemon.status, recorded=False)),
    )
    holds = [
        daemon.bus.reader(topics.FRAMES, "vision"),
        daemon.bus.reader(topics.ALERTS, "delivery-evidence"),
    ]
    holds.pop(hung == "vision").close()
    daemon.supervisor.blame("sound", RuntimeError("a bug"))
    daemon._tell(nodes[-1], who, [hung])
    assert told(daemon) == [["stage-failed"]]
    holds.pop().close()
    daemon.bus.close()
    daemon.view.close()


@pytest.mark.parametrize("failed", ["alert", "sound"])
def test_a_failure_that_cannot_be_told_is_in_the_log_for_the_next(
    config: Path, failed: str
) -> None:
    daemon = built(config)
    nodes = list(graph.nodes(daemon.settings, FAKES, daemon.status, recorded=False))
    hung = daemon.bus.reader(topics.ANOMALIES, "alert")
    daemon.supervisor.blame(failed, RuntimeError("a bug"))
    daemon._tell(nodes[-1], daemon._subscribers(), ["alert"])
    assert told(daemon) == []
    (anomaly,) = records(daemon.bus, topics.ANOMALIES)
    assert isinstance(anomaly, Anomaly)
    assert anomaly.label == "stage-failed"
    hung.close()
    daemon.bus.close()
    daemon.view.close()


def test_a_stage_that_does_not_keep_up_for_a_minute_is_not_healthy() -> None:
    now = [0.0]
    keeps_up = KeepingUp(lambda: now[0])
    keeps_up.saw({"vision": MAX_BACKLOG + 1, "sound": MAX_BACKLOG})
    assert keeps_up()
    now[0] += BACKLOG_TIMEOUT
    assert not keeps_up()
    keeps_up.saw({"vision": MAX_BACKLOG + 1, "sound": 0})
    assert not keeps_up()
    keeps_up.saw({"vision": 3, "sound": 0})
    assert keeps_up()


def test_the_smallest_cap_that_is_accepted_is_enough_for_every_topic(config: Path) -> None:
    config.write_text(config.read_text() + "storage: {cap: 100 MB}\n")
    daemon = built(config)
    for topic in topics.ALL_TOPICS:
        assert daemon.bus.end(topic) == 0
    daemon.bus.close()
    daemon.view.close()


def test_a_scene_is_not_over_while_a_delivery_has_not_read_the_last_alert(config: Path) -> None:
    daemon = built(config)
    played = threading.Event()
    played.set()
    got: list[Alert] = []
    who = Subscriber(name="test", sink=SimpleNamespace(send=lambda alert, trace: got.append(alert)))
    delivery = daemon._delivery(who)
    delivery.step()
    assert delivery.idle
    over = partial(_over, played, StageLag(LocalOffsets(daemon.bus), []), [delivery], daemon.bus)
    assert over()
    put(daemon.bus, topics.ALERTS, make.alert())
    assert delivery.idle, "it has not looked again"
    assert not over()
    delivery.step()
    assert over()
    assert len(got) == 1
    delivery.close()
    daemon.bus.close()
    daemon.view.close()
