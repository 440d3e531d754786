"""How a stage is run: its order of deeds, and what a crash anywhere does to what is published."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.limits import MAX_DEAD_BYTES, most_bytes
from pipeline.ports import Bus, Entry
from pipeline.run import KINDS, Runner, dead_letter, drain
from pipeline.types import FOREVER, Anomaly, DeadLetter, Record, Report, Sound
from tests import make
from tests.pure.windowed import (
    Crash,
    Fuse,
    FusedBus,
    FusedStage,
    Happening,
    Windowed,
    by_site,
    happenings,
    told,
)

IN, OUT = topics.OBSERVATIONS, topics.ANOMALIES
ANY = "any.v1"  # a topic that may hold any kind of record


def everything(bus: Bus, topic: str) -> list[bytes]:
    """All that a topic holds."""
    reader = bus.reader(topic, "the test")
    found = []
    while events := reader.poll(1000):
        found += [event.value for event in events if hasattr(event, "value")]
    reader.close()
    return found


def run_through(
    bus: Bus, entries: Sequence[tuple[str, bytes]], fuses: Sequence[int], limit: int, chunk: int
) -> int:
    """Publishes `entries` bit by bit and drains; each fuse kills the process once. Inferences."""
    stage, sent = Windowed(), 0

    def pump() -> bool:
        nonlocal sent
        for key, value in entries[sent : sent + chunk]:
            bus.publish(IN, key, value)
        bus.flush()
        sent += chunk
        return sent - chunk < len(entries)

    for steps in (*fuses, None):
        fuse = Fuse(steps)
        fused = FusedBus(bus, fuse)
        runner = Runner(FusedStage(stage, fuse), fused, topic=IN, group="g", out=OUT, limit=limit)
        try:
            drain([runner], pump)
            break
        except Crash:
            continue
        finally:
            runner.close()
    return stage.calls


def check_crashes_change_nothing(
    bus: Bus, happened: list[Happening], fuses: list[int], limit: int, chunk: int
) -> None:
    entries = told(happened)
    calm = MemoryBus(keep=True)
    run_through(calm, entries, [], 1000, 1000)
    run_through(bus, entries, fuses, limit, chunk)
    expected, got = by_site(calm.values(OUT)), by_site(everything(bus, OUT))
    assert expected.keys() == got.keys()
    for site, records in expected.items():
        assert len(set(map(codec.encode, records))) == len(records)  # nothing is said twice
        firsts = list(dict.fromkeys(map(codec.encode, got[site])))
        assert firsts == [codec.encode(record) for record in records]
    dead = {codec.decode(value) for value in everything(bus, topics.DEAD)}
    assert sorted(d.value for d in dead if isinstance(d, DeadLetter)) == sorted(
        value for _, value in entries if value.startswith(b"junk")
    )


fuses = st.lists(st.integers(1, 90), max_size=8)


@given(happenings, fuses, st.integers(1, 12), st.integers(1, 20), st.integers(1, 2))
def test_a_crash_at_any_step_loses_nothing_and_repeats_only_exactly(
    happened: list[Happening], fuses: list[int], limit: int, chunk: int, partitions: int
) -> None:
    check_crashes_change_nothing(MemoryBus(partitions, keep=True), happened, fuses, limit, chunk)


@settings(max_examples=15)
@given(happenings, fuses, st.integers(1, 12), st.integers(1, 20))
def test_a_crash_at_any_step_loses_nothing_over_the_local_log(
    happened: list[Happening], fuses: list[int], limit: int, chunk: int
) -> None:
    with (
        TemporaryDirectory() as folder,
        closing(LocalLog(Path(folder), clock=lambda: 0)) as log,
    ):
        check_crashes_change_nothing(log, happened, fuses, limit, chunk)


@given(happenings, st.lists(st.integers(1, 9), max_size=30))
def test_a_restart_between_two_steps_repeats_nothing_at_all(
    happened: list[Happening], lives: list[int]
) -> None:
    calm, bus = MemoryBus(keep=True), MemoryBus(keep=True)
    entries = told(happened)
    run_through(calm, entries, [], 1000, 1000)
    for key, value in entries:
        bus.publish(IN, key, value)
    bus.flush()
    for steps in (*lives, len(entries)):
        runner = Runner(Windowed(), bus, topic=IN, group="g", out=OUT, limit=3)
        for _ in range(steps):
            runner.step()
        drain([runner] if steps == len(entries) else [])
        runner.close()
    assert bus.values(OUT) == calm.values(OUT)
    assert bus.values(topics.DEAD) == calm.values(topics.DEAD)


@given(happenings, st.integers(1, 40))
def test_a_process_that_always_dies_while_rebuilding_gets_no_further_and_forgets_nothing(
    happened: list[Happening], burns: int
) -> None:
    check_crashes_change_nothing(MemoryBus(keep=True), happened, [80, *[burns] * 12], 4, 1000)


def test_a_restart_infers_again_only_what_is_still_needed() -> None:
    bus, stage = MemoryBus(keep=True), Windowed()
    for k in range(100):
        for source in ("a", "b"):
            for record in (
                make.sound(k, site="goes on", source=source),
                make.progress(k + 1, site="goes on", source=source),
                make.progress(k + 1, site="waits for b", source="a"),
            ):
                bus.publish(IN, record.site, codec.encode(record))
    bus.flush()
    runner = Runner(stage, bus, topic=IN, group="g", out=OUT)
    assert drain([runner]) == stage.calls == 600
    runner.close()
    assert drain([Runner(stage, bus, topic=IN, group="g", out=OUT)]) > 590  # from the waiting one
    assert stage.calls == 600 + 200 + 2 * 4  # a horizon of two seconds of the other


def test_junk_at_the_end_is_not_read_again() -> None:
    bus = MemoryBus(keep=True)
    bus.publish(IN, "office", b"junk")
    bus.flush()
    for moved in (1, 0):
        runner = Runner(Windowed(), bus, topic=IN, group="g", out=OUT)
        assert drain([runner]) == moved
        runner.close()
    assert len(bus.values(topics.DEAD)) == 1


# -- the order of deeds


class Told:
    """A stage and a bus that write down what is asked of them."""

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.answers = 1
        self.bus = MemoryBus(keep=True)

    def infer(self, batch: Sequence[Record]) -> list[None]:
        self.deeds.append(f"infer {len(batch)}")
        return [None] * (len(batch) * self.answers)

    def open(self, floors: dict[str, int]) -> Told:
        return self

    def on(self, record: Record, inferred: object) -> list[Record]:
        self.deeds.append("feed")
        if isinstance(record, Sound) and record.loudness_db == 0:
            msg = "a bug"
            raise ZeroDivisionError(msg)
        if isinstance(record, Report):
            return [msgspec.structs.replace(record, text=record.text * 2)]
        return [make.anomaly(record.start / 1e9) if isinstance(record, Sound) else record]

    def floor(self, site: str) -> int:
        return FOREVER

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        self.deeds.append(f"publish {topic} {key}")
        self.bus.publish(topic, key, value, trace)

    def flush(self) -> None:
        self.deeds.append("flush")
        self.bus.flush()

    def reader(self, topic: str, group: str) -> Told:
        self.inner = self.bus.reader(topic, group)
        return self

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[object]:
        self.deeds.append("poll")
        return self.inner.poll(limit, wait)

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        self.deeds.append(f"commit {partition} {offset}")
        self.inner.commit(partition, offset, note)

    @property
    def lost(self) -> int:
        return self.inner.lost

    def behind(self, partition: int) -> int:
        return self.inner.behind(partition)

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        return ()

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def both() -> Told:
    return Told()


def rejected(reason: str) -> DeadLetter:
    """What a stage says that rejects a record, not knowing where it stood."""
    return DeadLetter(
        site="office", source="x", topic="", partition=0, offset=0, reason=reason, value=b""
    )


def runner(both: Told, *records: Record | bytes) -> Runner:
    for record in records:
        value = record if isinstance(record, bytes) else codec.encode(record)
        both.bus.publish(ANY, "office/desk", value)
    both.bus.flush()
    return Runner(both, both, topic=ANY, group="g", out=OUT)


def test_a_step_polls_infers_feeds_publishes_flushes_and_commits_in_this_order(
    both: Told,
) -> None:
    ours = runner(both, make.sound(1), make.sound(2))
    assert ours.step() == 2
    publish = f"publish {OUT} office"
    assert both.deeds == [
        *("poll", "infer 2", "feed", publish, "feed", publish, "flush", "commit 0 2"),
    ]


def test_a_step_without_entries_neither_infers_nor_flushes_nor_commits(both: Told) -> None:
    ours = runner(both)
    assert (ours.step(), ours.step()) == (0, 0)
    assert both.deeds == ["poll", "poll"]


def test_bytes_that_are_no_record_go_to_dead_and_the_partition_moves_on(both: Told) -> None:
    ours = runner(both, make.sound(1), b"junk", make.sound(2))
    assert ours.step() == 3
    assert both.deeds[1] == "infer 2"
    assert len(both.bus.values(OUT)) == 2
    dead = codec.decode(both.bus.values(topics.DEAD)[0])
    assert isinstance(dead, DeadLetter)
    assert (dead.site, dead.source, dead.topic) == ("office", "desk", ANY)
    assert (dead.partition, dead.offset, dead.value) == (0, 1, b"junk")
    assert "not a Fusewatch record" in dead.reason


@pytest.mark.parametrize("topic", KINDS)
def test_a_record_of_another_topics_kind_goes_to_dead(both: Told, topic: str) -> None:
    stranger = make.anomaly(1) if topic != topics.ANOMALIES else make.alert()
    both.bus.publish(topic, "office", codec.encode(stranger))
    both.bus.publish(topic, "office", codec.encode(rejected("no")))
    both.bus.flush()
    assert Runner(both, both, topic=topic, group="g", out=ANY).step() == 2
    assert both.bus.values(ANY) == []
    reasons = [letter.reason for letter in map(codec.decode, both.bus.values(topics.DEAD))]
    assert reasons == [
        f"{type(stranger).__name__}, and {topic} holds none of those",
        f"DeadLetter, and {topic} holds none of those",
    ]


@given(
    size=st.sampled_from([0, MAX_DEAD_BYTES, MAX_DEAD_BYTES + 1, 3 * MAX_DEAD_BYTES]),
    key=st.sampled_from(["office/desk", "x" * 100_000, "ö" * 30_000 + "/" + "ü" * 30_000]),
    reason=st.sampled_from(["short", "r" * 100_000, "\U0001f600" * 50_000]),
)
def test_a_dead_letter_always_fits_into_its_topic(size: int, key: str, reason: str) -> None:
    site, _, source = key.partition("/")
    entry = Entry(2**31 - 1, 2**63 - 1, key, bytes(size))
    made = dead_letter(
        site=site, source=source, topic=topics.OBSERVATIONS, entry=entry, reason=reason
    )
    assert len(codec.encode(made)) <= most_bytes(topics.DEAD, 65_536)
    assert made.value == bytes(min(size, MAX_DEAD_BYTES))
    cut = f"[the first {MAX_DEAD_BYTES} of {size} bytes]"
    assert made.reason.endswith(cut) == (size > MAX_DEAD_BYTES)


def test_a_record_of_a_megabyte_that_names_no_type_of_ours_fits_into_dead(both: Told) -> None:
    liar = msgspec.msgpack.encode({"type": "no such " * 120_000, "site": "a", "source": "b"})
    assert runner(both, liar).step() == 1
    (value,) = both.bus.values(topics.DEAD)
    assert len(value) <= most_bytes(topics.DEAD, 1_000_000)


def test_a_record_that_a_stage_rejects_is_told_with_its_place(both: Told) -> None:
    ours = runner(both, make.sound(1), rejected("no"))
    ours.step()
    dead = codec.decode(both.bus.values(topics.DEAD)[0])
    assert isinstance(dead, DeadLetter)
    assert (dead.topic, dead.offset, dead.reason) == (ANY, 1, "no")
    assert dead.value == codec.encode(rejected("no"))


def test_an_answer_that_no_bus_would_take_is_told_and_the_partition_moves_on(both: Told) -> None:
    ours = runner(both, make.report(1, "help " * 200), make.sound(2))
    ours.max_bytes = 1100  # the report passes, and what is said to it is larger
    assert ours.step() == 2
    assert len(both.bus.values(OUT)) == 1
    (letter_,) = (codec.decode(value) for value in both.bus.values(topics.DEAD))
    assert isinstance(letter_, DeadLetter)
    assert (letter_.topic, letter_.offset) == (ANY, 0)
    assert letter_.reason.startswith("the answer of g, Report, has ")
    assert both.deeds[-1] == "commit 0 2"


def test_a_bug_says_where_it_happened_and_commits_nothing(both: Told) -> None:
    bad = Sound(site="office", source="room", start=0, end=1, loudness_db=0)
    ours = runner(both, make.sound(1), bad)
    with pytest.raises(ZeroDivisionError) as caught:
        ours.step()
    assert caught.value.__notes__ == ["any.v1/0@1"]
    assert both.deeds[-1] == "feed"
    assert both.bus.values(OUT) == []


def test_a_stage_that_answers_too_often_is_told(both: Told) -> None:
    both.answers = 2
    ours = runner(both, make.sound(1))
    with pytest.raises(RuntimeError, match=r"Told\.infer gave 2 results for 1 records") as caught:
        ours.step()
    assert caught.value.__notes__ == ["while inferring any.v1/0@0"]


def test_draining_goes_through_a_chain_of_stages_slice_by_slice() -> None:
    class Renamed:
        """Passes everything on."""

        def infer(self, batch: Sequence[Record]) -> list[None]:
            return [None] * len(batch)

        def open(self, floors: dict[str, int]) -> Renamed:
            return self

        def on(self, record: Record, inferred: object) -> list[Record]:
            return [record]

        def floor(self, site: str) -> int:
            return FOREVER

    bus, left = MemoryBus(), [make.sound(k) for k in range(5)]

    def pump() -> bool:
        if left:
            bus.publish(ANY, "office/room", codec.encode(left.pop(0)))
            bus.flush()
            return True
        return False

    chain = [
        Runner(Renamed(), bus, topic=ANY, group="one", out=IN),
        Runner(Renamed(), bus, topic=IN, group="two", out=OUT),
    ]
    assert drain(chain, pump) == 10
    assert [codec.decode(value).start for value in bus.values(OUT)] == [
        k * 1_000_000_000 for k in range(5)
    ]


def test_replay_holds_in_memory_only_what_somebody_still_reads() -> None:
    bus = MemoryBus(keep_bytes=10_000)
    fast = Runner(Windowed(), bus, topic=IN, group="fast", out=OUT)
    slow = Runner(Windowed(), bus, topic=IN, group="slow", out="elsewhere.v1")
    for k in range(1000):
        record = make.progress(k // 2, source="ab"[k % 2])
        bus.publish(IN, "office", codec.encode(record))
    bus.flush()
    drain([fast])
    assert len(bus.values(IN)) == 1000
    drain([slow])
    assert sum(map(len, bus.values(IN))) <= 10_000


def test_the_stage_of_these_tests_closes_windows_with_what_happened_in_them() -> None:
    bus = MemoryBus(keep=True)
    for source in ("a", "b"):
        for record in (make.sound(0.5, source=source), make.progress(5, source=source)):
            bus.publish(IN, "office", codec.encode(record))
    bus.flush()
    drain([Runner(Windowed(), bus, topic=IN, group="g", out=OUT)])
    said = [codec.decode(value) for value in bus.values(OUT)]
    windows = {r.end / 1e9: r.score for r in said if isinstance(r, Anomaly) and r.reasons}
    assert windows == {
        0.75 + k / 4: 2 for k in range(11)
    }  # from its start to horizon after its end
