"""Capture without a device and without threads: life, loss, return, promises and the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import DiskFull, SourceLost
from pipeline.topics import AUDIO, FRAMES
from pipeline.types import SECOND, AudioChunk, Chunk, FrameChunk, Progress, Record, Roster, ns
from workers.capture.capture import (
    CHUNK_OVERHEAD,
    MAX_AUDIO_CHUNKS,
    Capture,
    CaptureSettings,
    Count,
    cut_before,
)
from workers.capture.heartbeat import HeartbeatMonitor
from workers.runtime.status import Status

Life = list["Chunk | SourceLost | Callable[[], object]"]


class Clock:
    """Time that stands still until it is told."""

    def __init__(self, now: int = 1000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += ns(seconds)


class Stop(threading.Event):
    """Waiting moves the clock; it is set when the lives are used up."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        self.clock.forward(timeout or 0)
        return self.is_set()


class Fake:
    """One life: its chunks; calls what can be called, raises what can be raised."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.closed = False

    def __iter__(self) -> Iterator[Chunk]:
        for item in self.life:
            if isinstance(item, SourceLost):
                raise item
            if callable(item):
                item()
            else:
                yield item

    def close(self) -> None:
        self.closed = True


class Bench:
    """A capture of lives that are given, with everything that it published."""

    def __init__(self, *topics: tuple[str, str], **settings: int) -> None:
        self.clock = Clock()
        self.stop = Stop(self.clock)
        self.status = Status()
        self.out: list[tuple[str, Record]] = []
        self.lives: list[Fake | SourceLost] = []
        self.full, self.small = False, False  # a full disk; one that still takes small records
        self.drop: Count = lambda *_: None
        self.capture = Capture(
            CaptureSettings(site="office", sources=("desk", "reports"), **settings),
            dict(topics or (("desk", FRAMES),)),
            self._live,
            publish=self._stored,
            status=self.status,
            clock=self.clock,
            chance=lambda: 0.0,
        )

    def _stored(self, topic: str, records: Sequence[Record]) -> None:
        small = not any(isinstance(record, (FrameChunk, AudioChunk)) for record in records)
        if self.full and not (self.small and small):
            msg = "no space left"
            raise DiskFull(msg)
        self.out.extend((topic, record) for record in records)

    def _live(self, count: Count) -> Fake:
        self.drop = count
        life = self.lives.pop(0) if self.lives else self.stop.set() or Fake([])
        if isinstance(life, SourceLost):
            raise life
        return life

    def run(self, *lives: Life | SourceLost) -> None:
        self.lives = [life if isinstance(life, SourceLost) else Fake(life) for life in lives]
        self.capture.read(self.stop)

    def publish(self) -> list[Record]:
        before = len(self.out)
        self.capture.publish_once()
        return [record for _, record in self.out[before:] if not isinstance(record, Roster)]

    def frame(self, seq: int, seconds: float = 0.0, size: int = 10) -> FrameChunk:
        start = self.clock.now + ns(seconds)
        return FrameChunk(site="office", source="desk", start=start, end=start + SECOND // 5,
                          seq=seq, width=2, height=2, data=bytes(size))  # fmt: skip

    def counts(self, source: str = "desk") -> dict[str, int]:
        return self.status.snapshot().counts.get("office", {}).get(source, {})

    def state(self, source: str = "desk") -> tuple[str, str]:
        state = self.status.snapshot().sources["office"][source]
        return state.state, state.reason


def sound(start: int, seq: int = 0, length: float = 0.1, source: str = "room") -> AudioChunk:
    data = b"".join(i.to_bytes(2, "little") for i in range(round(16_000 * length)))
    return AudioChunk(site="office", source=source, start=start, end=start + ns(length),
                      seq=seq, rate=16_000, channels=1, data=data)  # fmt: skip


def progress(records: list[Record]) -> list[Progress]:
    return [record for record in records if isinstance(record, Progress)]


def test_the_roster_is_said_first_and_every_ten_seconds() -> None:
    bench = Bench()
    for _ in range(25):
        bench.publish()
        bench.clock.forward(1)
    rosters = [(r, i) for i, (_, r) in enumerate(bench.out) if isinstance(r, Roster)]
    assert rosters[0][1] == 0
    assert [(r.start - 1000 * SECOND) // SECOND for r, _ in rosters] == [0, 10, 20]
    assert rosters[0][0].sources == ("desk", "reports")


def test_a_lost_source_is_spoken_for_every_hop_with_the_reason() -> None:
    bench = Bench()
    bench.run(SourceLost("the camera cannot be reached: Connection refused"))
    said = []
    for _ in range(30):
        said += bench.publish()
        bench.clock.forward(0.1)
    assert [p.upto for p in progress(said)] == [1001 * SECOND + i * SECOND for i in range(3)]
    assert all(not p.alive and "refused" in p.reason for p in progress(said))
    assert bench.state()[0] == "connecting"


def test_nothing_is_promised_for_a_source_that_lives() -> None:
    bench = Bench()
    bench.run([bench.frame(0), bench.stop.set])
    said = bench.publish()
    assert [type(r) for r in said] == [FrameChunk]
    bench.clock.forward(4)
    assert bench.publish() == []
    assert bench.state() == ("live", "")


def test_a_source_that_hangs_is_lost_after_a_while_and_back_with_its_next_frame() -> None:
    bench = Bench()
    seen: list[Record] = []

    def hang() -> None:
        seen.extend(bench.publish())
        bench.clock.forward(6)
        seen.extend(bench.publish())
        assert bench.state() == ("lost", "nothing came for 5 s")
        bench.lives.append(Fake([bench.frame(0, 0.01), bench.stop.set]))

    bench.run([bench.frame(0), hang, SourceLost("the camera stopped sending")])
    seen += bench.publish()
    assert [type(r) for r in seen] == [FrameChunk, Progress, FrameChunk]
    assert bench.state() == ("live", "")


def test_a_source_whose_frames_are_far_apart_hangs_after_three_of_them() -> None:
    bench = Bench()

    def hang() -> None:
        bench.publish()
        bench.clock.forward(11)
        bench.publish()
        assert bench.state() == ("live", "")
        bench.clock.forward(2)
        bench.publish()
        assert bench.state() == ("lost", "nothing came for 12 s")
        bench.stop.set()

    keyframe = bench.frame(0)
    bench.run([msgspec.structs.replace(keyframe, end=keyframe.start + 4 * SECOND), hang])


def test_a_source_that_says_that_it_lives_is_not_lost_until_it_is_silent() -> None:
    bench = Bench()

    def lives() -> None:
        bench.publish()
        bench.clock.forward(4)

    def still() -> None:
        bench.clock.forward(4)
        bench.publish()
        assert bench.state() == ("live", "")
        bench.clock.forward(2)
        bench.publish()
        assert bench.state() == ("lost", "nothing came for 5 s")
        bench.stop.set()

    bench.run([bench.frame(0), lives, Progress(site="office", source="desk", upto=0), still])


def test_frames_that_were_not_decoded_are_counted_apart_from_those_that_were_not_wanted() -> None:
    bench = Bench()

    def left_out() -> None:
        bench.publish()
        for _ in range(6):
            bench.drop("desk", "gated.undecoded")

    bench.run([bench.frame(0), left_out, bench.frame(9), bench.stop.set, bench.frame(10)])
    bench.publish()
    assert bench.counts() == {
        **{"captured": 10, "published": 2},
        **{"gated.rate": 2, "gated.undecoded": 6},
    }


def test_a_source_that_says_that_it_has_nothing_is_lost_with_its_reason_from_the_start() -> None:
    bench = Bench()
    nothing = Progress(
        site="office", source="desk", upto=bench.clock.now, alive=False, reason="no picture"
    )

    def look() -> None:
        [said] = bench.publish()
        assert isinstance(said, Progress)
        assert (said.alive, said.reason) == (False, "no picture")
        assert bench.state() == ("lost", "no picture")

    bench.run([nothing, look, SourceLost("gone")], [bench.stop.set])
    bench.publish()
    assert bench.state() == ("connecting", "gone")


def test_delays_grow_from_half_a_second_to_thirty_and_begin_again_after_a_long_life() -> None:
    bench = Bench()
    long = [bench.frame(0), lambda: bench.clock.forward(60), SourceLost("gone")]
    bench.run(*[SourceLost("no")] * 8, long, SourceLost("no"))
    assert bench.stop.waits == [1, 2, 4, 8, 16, 30, 30, 30, 1, 2]
    jittered = Bench()
    jittered.capture._chance = lambda: 0.999
    jittered.run(*[SourceLost("no")] * 7)
    assert min(jittered.stop.waits) >= 0.5
    assert max(jittered.stop.waits) < 16


def test_each_life_is_closed_whatever_ends_it() -> None:
    bench = Bench()
    lost, whole = Fake([bench.frame(0), SourceLost("gone")]), Fake([bench.frame(0)])
    broken = Fake([lambda: 1 // 0])
    bench.lives = [lost, broken, whole]
    bench.capture.read(bench.stop)
    assert [fake.closed for fake in (lost, broken, whole)] == [True, True, True]


def test_a_defect_in_one_life_loses_the_source_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()

    def missing() -> None:
        raise AttributeError("codec_context")  # noqa: EM101

    bench.run([lambda: 1 // 0], [lambda: 1 // 0], [missing], [bench.frame(0)])
    assert [r.getMessage() for r in caplog.records if r.exc_info] == [
        "office/desk: unexpected ZeroDivisionError",
        "office/desk: unexpected AttributeError",
    ]
    assert bench.counts()["defects"] == 3
    assert bench.stop.waits == [1, 2, 4]


def test_a_recording_that_ends_is_lost_and_not_begun_again() -> None:
    bench = Bench()
    bench.run([bench.frame(0)], [bench.frame(0)])
    assert len(bench.lives) == 1
    bench.publish()
    bench.clock.forward(1)
    (said,) = progress(bench.publish())
    assert (said.alive, said.reason) == (False, "the recording has ended")


def test_the_newest_frame_wins_and_every_captured_frame_is_accounted_for() -> None:
    bench = Bench(max_bytes=CHUNK_OVERHEAD + 100)
    life = [bench.frame(0, 0.0), bench.frame(6, 0.2), lambda: bench.drop("desk", "dropped.size"),
            bench.frame(14, 0.4), bench.frame(15, 0.5, size=101), bench.stop.set]  # fmt: skip
    bench.run(life)
    (shown,) = bench.publish()
    assert isinstance(shown, FrameChunk)
    assert shown.seq == 14
    assert bench.counts() == {
        "captured": 16,
        "gated.rate": 11,
        "dropped.newer": 2,
        "dropped.size": 1,
        "dropped.too-large": 1,
        "published": 1,
    }


def test_what_is_not_too_large_is_a_record_that_a_bus_takes() -> None:
    most = 65_536
    bench = Bench(max_bytes=most)
    bench.run([bench.frame(0, size=most - CHUNK_OVERHEAD), bench.stop.set])
    (shown,) = bench.publish()
    long = msgspec.structs.replace(shown, site="s" * 40, source="c" * 40, start=2**62, end=2**62)
    assert most - CHUNK_OVERHEAD < len(codec.encode(long)) <= most


def test_a_source_whose_frames_are_all_too_large_lives_and_they_are_counted() -> None:
    bench = Bench(max_bytes=CHUNK_OVERHEAD + 100)
    bench.run([bench.frame(0, size=101), bench.frame(1, 0.2, size=101), bench.stop.set])
    assert bench.publish() == []
    assert bench.state() == ("live", "")
    assert bench.counts() == {"captured": 2, "dropped.too-large": 2}


def test_what_a_full_disk_does_not_take_is_dropped_and_counted() -> None:
    bench = Bench()
    bench.full = True
    bench.run([bench.frame(0), bench.publish, bench.frame(1, 0.2), bench.stop.set])
    bench.full = False
    assert [r.seq for r in bench.publish()] == [1]  # type: ignore[attr-defined]
    assert bench.counts() == {"captured": 2, "dropped.disk-full": 1, "published": 1}


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("plw")), max_size=40))
def test_the_ledger_balances_whatever_happens(steps: list[tuple[int, str]]) -> None:
    bench = Bench(max_bytes=CHUNK_OVERHEAD + 100)
    lives: list[Life] = [[]]
    seq = 0
    for gap, what in steps:
        seq += gap
        if what == "p":
            lives[-1].append(bench.publish)
        elif what == "l":
            lives[-1].append(SourceLost("gone"))
            lives.append([])
            seq = 0
        lives[-1].append(lambda s=seq: bench.clock.forward(0.1))
        lives[-1].append(bench.frame(seq, 100 + len(lives), size=50 + 12 * gap))
        seq += 1
    lives[-1].append(bench.stop.set)
    bench.run(*lives)
    bench.publish()
    counts = bench.counts()
    spent = sum(n for what, n in counts.items() if what.split(".")[0] in ("gated", "dropped"))
    assert counts.get("captured", 0) == spent + counts.get("published", 0)
    seqs = [r.seq for _, r in bench.out if isinstance(r, FrameChunk)]
    assert seqs == sorted(set(seqs))


def test_sound_is_kept_in_order_and_the_oldest_gives_way() -> None:
    bench = Bench(("room", AUDIO))
    start = bench.clock.now
    chunks: Life = [sound(start + i * SECOND // 10, i) for i in range(MAX_AUDIO_CHUNKS + 3)]
    bench.run([*chunks, bench.stop.set])
    kept = bench.publish()
    assert [r.seq for r in kept] == list(range(3, MAX_AUDIO_CHUNKS + 3))  # type: ignore[attr-defined]
    assert bench.counts("room")["dropped.overrun"] == 3


def test_what_was_promised_while_lost_is_kept() -> None:
    bench = Bench(("desk", FRAMES), ("room", AUDIO))
    start = bench.clock.now
    bench.clock.forward(0.05)
    promised = progress(bench.publish())
    assert [p.upto for p in promised] == [start + ns(0.05)] * 2
    bench.run([sound(start), sound(start + ns(0.1), 1), bench.frame(0, -0.01), bench.stop.set])
    first, second = bench.publish()
    assert isinstance(first, AudioChunk)
    assert (first.start, first.end, len(first.data)) == (start + ns(0.05), start + ns(0.1), 1600)
    assert second.start == start + ns(0.1)  # type: ignore[attr-defined]
    assert bench.counts()["dropped.promised"] == 1
    assert bench.counts("room")["cut.promised"] == 1


def test_half_a_stream_may_be_lost_while_the_other_half_lives() -> None:
    bench = Bench(("desk", FRAMES), ("room", AUDIO))
    start = bench.clock.now
    life: Life = [sound(start), bench.frame(0, 0)]
    for i in range(1, 70):
        life += [
            lambda: bench.clock.forward(0.1),
            sound(start + i * SECOND // 10, i),
            bench.publish,
        ]
    bench.run([*life, bench.stop.set])
    assert bench.state("room") == ("live", "")
    assert bench.state("desk") == ("lost", "nothing came for 5 s")
    told = [r for t, r in bench.out if t == FRAMES and isinstance(r, Progress)]
    assert [p.alive for p in told] == [False, False]


def test_promises_never_go_back() -> None:
    bench = Bench()
    for forward in (0, 2, 0.3, 0.9, 5):
        bench.clock.forward(forward)
        bench.publish()
    uptos = [p.upto for p in progress([r for _, r in bench.out])]
    assert uptos == sorted(uptos)


@given(st.integers(-SECOND, SECOND), st.integers(1, 1700), st.sampled_from([8000, 16_000, 44_100]))
def test_cut_sound_starts_at_the_first_sample_that_was_not_promised_away(
    cut: int, count: int, rate: int
) -> None:
    start = 5 * SECOND
    whole = AudioChunk(site="s", source="r", start=start, end=start + count * SECOND // rate, seq=0,
                       rate=rate, channels=2, data=bytes(range(4)) * count)  # fmt: skip
    cut = max(0, cut)
    rest = cut_before(whole, start + cut)
    skipped = -(-cut * rate // SECOND)
    if skipped >= count:
        assert rest is None
    else:
        assert rest is not None
        assert len(rest.data) == 4 * (count - skipped)
        assert start + cut <= rest.start <= start + cut + SECOND // rate + 1
        assert rest.end == whole.end


def test_the_watch_waits_longer_for_a_slow_source() -> None:
    clock = Clock()
    watch = HeartbeatMonitor(clock, patience=15 * SECOND)
    watch.expect(FRAMES, "office", "slow", ("slow",), 70 * SECOND)
    clock.forward(60)
    assert watch.speak() == []
    clock.forward(11)
    (_, _), (_, lost) = watch.speak()
    assert isinstance(lost, Progress)
    assert lost.reason == "its capture has said nothing for 70 s"


def test_the_watch_speaks_for_a_capture_that_fell_silent_until_it_speaks_again() -> None:
    clock = Clock()
    watch = HeartbeatMonitor(clock, patience=15 * SECOND)
    watch.expect(FRAMES, "office", "desk", ("desk", "reports"))
    assert watch.speak() == []
    clock.forward(16)
    told = watch.speak()
    assert [type(r) for _, r in told] == [Roster, Progress]
    assert isinstance(told[1][1], Progress)
    assert (told[1][0], told[1][1].alive, told[1][1].upto) == (FRAMES, False, clock.now)
    clock.forward(1)
    assert [type(r) for _, r in watch.speak()] == [Progress]
    watch.saw(FRAMES, [Progress(site="office", source="desk", upto=1, alive=False)])
    assert watch.speak() == []


def test_where_a_full_disk_takes_no_frame_the_site_is_told_that_it_is_blind() -> None:
    bench = Bench()
    bench.full, bench.small = True, True
    bench.run([bench.frame(0), bench.stop.set])
    (blind,) = bench.publish()
    assert isinstance(blind, Progress)
    assert (blind.alive, blind.reason) == (False, "no space left on the disk")
    assert blind.upto == bench.clock.now
    assert bench.counts() == {"captured": 1, "dropped.disk-full": 1}


def looks(records: Sequence[Record]) -> list[str]:
    return [record.look for record in records if isinstance(record, FrameChunk)]


def looking(bench: Bench, seq: int, look: str, size: int = 10) -> FrameChunk:
    return msgspec.structs.replace(bench.frame(seq, seq / 5, size), look=look)


def test_a_frame_takes_over_the_look_of_those_that_newer_ones_replaced() -> None:
    bench, told = Bench(), list[Record]()
    bench.run(
        [
            looking(bench, 0, "first"),
            looking(bench, 1, "motion"),
            looking(bench, 2, ""),
            lambda: told.extend(bench.publish()),
            looking(bench, 3, ""),
            lambda: told.extend(bench.publish()),
        ]
    )
    assert looks(told) == ["first", ""]


def test_a_frame_that_is_too_large_leaves_its_look_to_the_next() -> None:
    bench = Bench(max_bytes=CHUNK_OVERHEAD + 20)
    bench.run([looking(bench, 0, "light", size=30), looking(bench, 1, "")])
    assert looks(bench.publish()) == ["light"]


def test_a_frame_that_the_disk_did_not_take_leaves_its_look_to_the_next() -> None:
    bench, told = Bench(), list[Record]()

    def refused() -> None:
        bench.full = True
        bench.publish()
        bench.full = False

    bench.run(
        [
            looking(bench, 0, "motion"),
            refused,
            lambda: bench.clock.forward(1),
            looking(bench, 5, ""),
            lambda: told.extend(bench.publish()),
        ]
    )
    assert looks(told) == ["motion"]
