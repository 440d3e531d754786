"""When a worker counts as stalled: it has work, and the place in it does not change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline import host
from pipeline.bus.log import LocalLog
from pipeline.errors import OutsideError
from workers.delivery import outbox
from workers.runtime.lag import ConsumerProgress, LocalOffsets, unanswered
from workers.runtime.watchdog import Stall, watch


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Brokers:
    """What brokers would say; `away` means that they do not answer."""

    def __init__(self, end: Mapping[int, int], committed: Mapping[int, int] | None = None) -> None:
        self.ends = dict(end)
        self.commits = {number: (offset, b"") for number, offset in (committed or {}).items()}
        self.away = False
        self.held: dict[int, int] = {}  # the oldest, where retention took what came before

    def end(self, topic: str) -> Mapping[int, int]:
        if self.away:
            msg = "no broker answers"
            raise OutsideError(msg)
        return dict(self.ends)

    def oldest(self, topic: str) -> Mapping[int, int]:
        return self.held

    def committed(self, topic: str, group: str) -> Mapping[int, tuple[int, bytes]]:
        return self.commits


def test_work_at_the_same_place_counts_the_seconds() -> None:
    clock = Clock()
    stall = Stall(clock)
    assert stall.saw(3, "here") == 0
    clock.now = 50
    assert stall.saw(9, "here") == 50
    assert stall.saw(9, "further") == 0
    clock.now = 60
    assert stall.saw(9, "further") == 10


def test_who_has_no_work_does_not_stall() -> None:
    clock = Clock()
    stall = Stall(clock)
    for clock.now in range(0, 1000, 100):
        assert stall.saw(0, "here") == 0
    clock.now += 7
    assert stall.saw(1, "here") == 7  # counted from the last look at which nothing waited


def test_what_waits_while_the_brokers_are_away_is_no_stall() -> None:
    clock = Clock()
    stall = Stall(clock)
    stall.saw(3, "here")
    clock.now = 110
    stall.excuse()
    clock.now = 130
    assert stall.saw(3, "here") == 0
    clock.now = 140
    assert stall.saw(3, "here") == 10


def looks(job: ConsumerProgress, brokers: Brokers, turns: int, every: float = 10) -> float:
    """What a stall counts after so many looks, during which the job's thread says nothing."""
    clock = Clock()
    stall, stuck = Stall(clock), 0.0
    for _ in range(turns):
        stuck = stall.saw(*job.look(brokers))
        clock.now += every
    return stuck


def test_a_model_that_hangs_stalls_its_partitions() -> None:
    job = ConsumerProgress("frames.v1", "vision")
    job.moved({0: 5, 1: 7})
    assert looks(job, Brokers({0: 5, 1: 9}), 4) == 30


def test_an_idle_worker_does_not_stall_whatever_others_have_to_do() -> None:
    job = ConsumerProgress("frames.v1", "vision")
    job.moved({0: 5})
    assert looks(job, Brokers({0: 5, 1: 900}), 4) == 0


def test_a_worker_without_a_partition_stalls_when_nobody_moves_the_group() -> None:
    job = ConsumerProgress("frames.v1", "vision")
    assert looks(job, Brokers({0: 5, 1: 9}, {0: 5, 1: 7}), 4) == 30
    assert looks(job, Brokers({0: 5, 1: 9}, {0: 5, 1: 9}), 4) == 0


def test_what_retention_took_waits_for_nobody() -> None:
    job, brokers = ConsumerProgress("frames.v1", "vision"), Brokers({0: 9000, 1: 5}, {0: 100, 1: 5})
    brokers.held = {0: 9000}
    assert looks(job, brokers, 4) == 0  # by what the group has committed
    job.moved({0: 100, 1: 5})
    assert looks(job, brokers, 4) == 0  # by what its own thread says
    brokers.held = {0: 8999}
    assert looks(job, brokers, 4) == 30


def test_answers_that_are_never_kept_do_not_count_as_moving() -> None:
    job, clock = ConsumerProgress("frames.v1", "vision"), Clock()
    stall, brokers, stuck = Stall(clock), Brokers({0: 9}), []
    for _ in range(4):  # thrown out at each commit, it reads the same poll again
        for place in (5, 7):
            job.moved({0: place})
            stuck.append(stall.saw(*job.look(brokers)))
            clock.now += 10
    assert stuck == [0, 0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(("by_design", "stuck"), [(True, 0), (False, 30)])
def test_who_rebuilds_or_waits_for_a_receiver_need_only_turn(by_design: bool, stuck: int) -> None:
    job, clock = ConsumerProgress("alerts.v1", "delivery-guard"), Clock()
    stall, seen = Stall(clock), 0.0
    for _ in range(4):
        job.moved({0: 5}, by_design=by_design)
        seen = stall.saw(*job.look(Brokers({0: 9})))
        clock.now += 10
    assert seen == stuck


def test_a_delivery_that_hangs_within_a_turn_stalls() -> None:
    job = ConsumerProgress("alerts.v1", "delivery-guard")
    job.moved({0: 5}, by_design=True)
    assert looks(job, Brokers({0: 9}), 4) == 30


def test_a_note_may_have_reached_further_than_its_commit() -> None:
    committed = {0: (40, host.pack(100, {})), 1: (7, b"")}
    assert unanswered({0: 100, 1: 9, 2: 3}, committed) == 0 + 2 + 3


def test_a_slow_turn_that_answers_one_entry_after_another_does_not_stall() -> None:
    answered = iter(range(4))
    job = ConsumerProgress("audio.v1", "speech", answered=lambda: next(answered))
    job.moved({0: 5})
    assert looks(job, Brokers({0: 9}), 4) == 0


def test_a_slow_turn_that_no_longer_answers_stalls() -> None:
    answered = iter([1, 2, 2, 2])
    job = ConsumerProgress("audio.v1", "speech", answered=lambda: next(answered))
    job.moved({0: 5})
    assert looks(job, Brokers({0: 9}), 4) == 20


def test_turns_that_answer_the_same_again_and_keep_nothing_stall() -> None:
    answered = iter([1, 3, 0, 2, 3, 1, 2])
    job = ConsumerProgress("audio.v1", "speech", answered=lambda: next(answered))
    job.moved({0: 5})
    assert looks(job, Brokers({0: 9}), 7) == 50


def test_who_waits_for_brokers_to_take_what_it_made_does_not_stall() -> None:
    stop, looked = threading.Event(), iter(range(20))

    def settling() -> bool:
        if next(looked, None) is None:
            stop.set()
        return True

    job = ConsumerProgress("frames.v1", "vision", settling)
    job.moved({0: 5})
    watch(stop, Brokers({0: 9}), [job], 0.0, lambda name, value: None, every=0.001)
    assert stop.is_set()


def test_a_delivery_s_note_counts_too() -> None:
    box = outbox.pack(40, 100, outbox.CircuitBreaker(), {40: (1, 0.0), 41: (0, 0.0)})
    assert unanswered({0: 103}, {0: (40, box)}) == 3


def test_what_retention_took_unread_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, told, stop = ConsumerProgress("frames.v1", "vision"), dict[str, float](), threading.Event()
    job.moved({0: 9}, lost=7)

    def gauge(name: str, value: float) -> None:
        told[name] = value
        if len(told) == 2:
            stop.set()

    monkeypatch.setattr(logging.getLogger("fusewatch"), "propagate", True)  # as pytest listens
    watch(stop, Brokers({0: 9}), [job], 60, gauge, every=0.001)
    assert told == {"lost.vision": 7, "behind.vision": 0}
    assert "retention took 7 entries of frames.v1" in caplog.text


def test_the_watch_ends_its_process_with_a_word_that_says_what_stands_still() -> None:
    job, told = ConsumerProgress("frames.v1", "vision"), dict[str, float]()
    job.moved({0: 5})
    with pytest.raises(OutsideError, match=r"vision has stalled: 4 entries of frames\.v1 wait"):
        watch(threading.Event(), Brokers({0: 9}), [job], 0.05, told.__setitem__, every=0.01)
    assert told == {"behind.vision": 4, "lost.vision": 0}


class Asleep(threading.Event):
    """A wait that takes as long as a test says; the last one ends the watch."""

    def __init__(self, clock: Clock, *waits: float) -> None:
        super().__init__()
        self.clock, self.waits = clock, list(waits)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.waits:
            return True
        self.clock.now += self.waits.pop(0)
        return False


@pytest.mark.parametrize("paused", [30, 3600])
def test_a_machine_that_was_paused_has_not_stalled(paused: float) -> None:
    job, clock, brokers = ConsumerProgress("frames.v1", "vision"), Clock(), Brokers({0: 9})
    job.moved({0: 5})
    stop = Asleep(clock, 5, 5, paused, 5, 5)  # awake for 10 s, and then for 10 s again
    watch(stop, brokers, [job], 20, monotonic=clock)
    stop = Asleep(clock, 5, 5, paused, 5, 5, 5, 5)
    with pytest.raises(OutsideError, match="for 20 s"):
        watch(stop, brokers, [job], 20, monotonic=clock)


def test_a_delivery_may_wait_for_its_receiver_beyond_the_patience_of_others() -> None:
    job, clock = ConsumerProgress("alerts.v1", "delivery-guard", extra=10), Clock()
    job.moved({0: 5})
    watch(Asleep(clock, *[5] * 6), Brokers({0: 9}), [job], 20, monotonic=clock)
    with pytest.raises(OutsideError, match="for 30 s"):
        watch(Asleep(clock, *[5] * 7), Brokers({0: 9}), [job], 20, monotonic=clock)


def test_the_watch_goes_on_while_the_brokers_are_away() -> None:
    job, brokers, stop = ConsumerProgress("frames.v1", "vision"), Brokers({0: 9}), threading.Event()
    job.moved({0: 5})
    brokers.away = True
    looked = iter(range(20))

    def end(topic: str) -> Mapping[int, int]:
        if next(looked, None) is None:
            stop.set()
        return Brokers.end(brokers, topic)

    brokers.end = end  # type: ignore[method-assign]
    watch(stop, brokers, [job], 0.0, lambda name, value: None, every=0.001)
    assert stop.is_set()


def test_the_local_log_tells_what_a_group_has_reached_before_its_first_turn(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log", clock=lambda: 0)
    for _ in range(5):
        log.publish("frames.v1", "office/desk", b"x")
    log.flush()
    job, bus = ConsumerProgress("frames.v1", "vision"), LocalOffsets(log)
    assert job.waiting(bus) == 5, "no group yet"
    reader = log.reader("frames.v1", "vision")
    reader.commit(0, 1, host.pack(3, {}))
    assert bus.committed("frames.v1", "vision") == {0: (1, host.pack(3, {}))}
    assert job.waiting(bus) == 2
    job.moved({0: 4})
    assert (job.waiting(bus), bus.oldest("frames.v1")) == (1, {0: 0})
    log.close()
