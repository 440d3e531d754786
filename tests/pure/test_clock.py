"""The time of captured frames and samples: forward, near the clock, and never overlapping."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.types import SECOND, AudioChunk, ns
from workers.capture.clock import (
    MAX_DRIFT,
    MAX_WAITED_JUMP,
    FrameRateLimiter,
    PlaybackPacer,
    StreamClock,
    UtcClock,
)
from workers.media.pcm import MAX_SLIP, Chunks, from_s16, to_s16

MS = SECOND // 1000


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


def test_the_clock_follows_the_wall_forward_and_never_back() -> None:
    wall, monotonic = [50 * SECOND], [5 * SECOND]
    clock = UtcClock(lambda: wall[0], lambda: monotonic[0])
    assert clock() == 50 * SECOND
    monotonic[0] += SECOND  # the wall clock stood still for a second: drift
    assert clock() == 51 * SECOND
    wall[0] = 10**18
    assert clock() == 10**18
    wall[0] = 0
    monotonic[0] += 1
    assert clock() == 10**18 + 1


def test_a_clock_with_a_floor_begins_there_and_goes_on_until_the_wall_has_caught_up() -> None:
    wall, monotonic = [50 * SECOND], [5 * SECOND]
    clock = UtcClock(lambda: wall[0], lambda: monotonic[0], floor=1000 * SECOND)
    assert (clock(), clock.ahead) == (1000 * SECOND, 950 * SECOND)
    for _ in range(950):
        wall[0] += SECOND
        monotonic[0] += SECOND
    assert (clock(), clock.ahead) == (1950 * SECOND, 950 * SECOND)
    wall[0] = 2000 * SECOND
    assert (clock(), clock.ahead) == (2000 * SECOND, 0)
    assert UtcClock(lambda: wall[0], lambda: monotonic[0], floor=7).ahead == 0


def test_frames_are_as_far_apart_as_the_stream_says_whatever_the_network_does() -> None:
    clock = Clock()
    times = StreamClock(clock)
    starts = []
    for position, delay in ((0, 0), (100, 30), (200, 0), (300, 70), (400, 10)):
        clock.now = 1000 * SECOND + (position + delay) * MS
        starts.append(times.at(position * MS))
    assert [b - a for a, b in itertools.pairwise(starts)] == [100 * MS] * 4


def test_a_burst_at_the_start_does_not_put_frames_into_the_future_nor_behind() -> None:
    clock = Clock()
    times = StreamClock(clock)
    for position in range(0, 2000, 100):  # two seconds at once
        assert times.at(position * MS) <= clock.now + 20
    clock.now += 100 * MS
    assert times.at(2000 * MS) == clock.now


def test_a_stream_that_stood_still_begins_anew_and_so_does_one_whose_time_goes_back() -> None:
    clock = Clock()
    times = StreamClock(clock)
    times.at(0)
    clock.now += 5 * SECOND
    assert times.at(100 * MS) == clock.now
    clock.now += 100 * MS
    assert times.at(50 * MS) == clock.now


def test_picture_and_sound_of_one_stream_share_its_anchor() -> None:
    clock = Clock()
    times = StreamClock(clock)
    assert times.at(100 * MS, "sound") == clock.now
    clock.now += 30 * MS
    assert times.at(90 * MS, "picture") == clock.now - 40 * MS


@given(st.lists(st.tuples(st.integers(-(10**12), 10**12) | st.none(), st.integers(0, 3 * SECOND))))
def test_times_always_go_forward_and_stay_near_the_clock(
    steps: list[tuple[int | None, int]],
) -> None:
    clock = Clock()
    times = StreamClock(clock)
    last = -1
    for i, (position, passed) in enumerate(steps):
        clock.now += passed
        start = times.at(position)
        assert start > last
        assert clock.now - MAX_DRIFT <= start <= clock.now + i
        last = start


@given(st.integers(1, 60), st.integers(1, 120), st.integers(0, 2**32))
def test_as_many_frames_are_wanted_as_asked_for(fps: int, camera: int, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.1, 0.1, camera * 20) / camera
    starts = [ns(i / camera + 1 + j) for i, j in enumerate(jitter)]
    pace = FrameRateLimiter(fps)
    wanted = sum(pace.wants(start) for start in starts)
    assert wanted <= 20 * min(fps, camera) + 2
    if camera >= fps:
        assert wanted >= 20 * fps * 0.8 - 2


def blocks(chunks: Chunks, rate: int, ends: list[int], size: int) -> list[AudioChunk]:
    made = (chunks.push(np.full(size, 0.25, np.float32), end) for end in ends)
    return [chunk for chunk in made if chunk is not None]


def test_sound_goes_on_where_it_ended_although_blocks_come_late() -> None:
    begin = 1000 * SECOND
    ends = [begin + (i + 1) * 100 * MS + (i % 7) * 60 * MS for i in range(60)]
    made = blocks(Chunks("s", "r", 48_000), 48_000, ends, 4800)
    assert made[0].start == begin
    assert all(a.end == b.start for a, b in itertools.pairwise(made))
    assert abs(made[-1].end - begin - 6 * SECOND) < 50 * MS  # what the resampler still holds


def test_lost_samples_leave_a_gap_and_extra_samples_are_left_out() -> None:
    begin = 1000 * SECOND
    late = [begin + (i + 1) * 100 * MS + (i > 9) * 700 * MS for i in range(60)]
    made = blocks(Chunks("s", "r", 16_000), 16_000, late, 1600)
    gaps = [b.start - a.end for a, b in itertools.pairwise(made)]
    assert [gap for gap in gaps if gap] == [700 * MS]
    chunks = Chunks("s", "r", 16_000)
    fast = [begin + (i + 1) * 50 * MS for i in range(100)]  # twice as many as there should be
    made = blocks(chunks, 16_000, fast, 1600)
    assert chunks.ahead >= 45
    assert made[-1].end <= fast[-1] + MAX_SLIP + 100 * MS
    assert all(b.start >= a.end for a, b in itertools.pairwise(made))


@given(
    st.lists(st.integers(0, 4 * SECOND), min_size=1, max_size=80), st.sampled_from([8000, 44_100])
)
def test_chunks_never_overlap_and_hold_as_many_samples_as_they_last(
    passed: list[int], rate: int
) -> None:
    ends = list(itertools.accumulate(passed, initial=1000 * SECOND))
    made = blocks(Chunks("s", "r", rate), rate, ends, rate // 10)
    assert all(b.start >= a.end for a, b in itertools.pairwise(made))
    for chunk in made:
        lasts = len(chunk.data) // 2 * SECOND / 16_000
        assert abs(chunk.end - chunk.start - lasts) <= 2
        assert chunk.end <= ends[-1] + MAX_SLIP + SECOND


def test_channels_are_averaged_and_s16_is_kept() -> None:
    pair = np.array([[1000, 3000], [-32768, -32768]], "<i2").tobytes()
    assert list(from_s16(pair, 2) * 2**15) == [2000, -32768]
    every = np.arange(-(2**15), 2**15).astype("<i2").tobytes()
    assert to_s16(from_s16(every, 1)) == every


@given(st.lists(st.tuples(st.sampled_from(["picture", "sound"]), st.integers(-(10**12), 10**12))))
def test_a_recording_is_held_to_its_speed_and_never_for_longer_than_a_jump(
    frames: list[tuple[str, int]],
) -> None:
    clock, last = Clock(), dict[str, int]()
    speed = PlaybackPacer(clock, lambda seconds: setattr(clock, "now", clock.now + ns(seconds)))
    for track, position in frames:
        before = clock.now
        speed.hold(position, track)
        assert 0 <= clock.now - before <= MAX_WAITED_JUMP
        assert clock.now == before or position > last.get(track, position - 1), "it went back"
        last[track] = position


def test_a_recording_waits_for_what_is_ahead_and_not_for_what_jumped() -> None:
    clock = Clock()
    speed = PlaybackPacer(clock, lambda seconds: setattr(clock, "now", clock.now + ns(seconds)))
    begin = clock.now
    waits = []
    for at in (5, 6, 66, 200, 201, 3, 4):
        speed.hold(at * SECOND)
        waits.append((clock.now - begin) // SECOND)
    assert waits == [0, 1, 61, 61, 62, 62, 63]
