"""The ear: any chunks become the same seconds, and a restart two seconds back hears the same."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hearing.waveform import RATE
from pipeline.errors import DecodeError
from pipeline.types import FOREVER, SECOND, AudioChunk, ns
from tests.make import audio
from workers.media.levels import floor, loudness
from workers.stages.audio_grid import AudioGrid, Second

RATES = st.sampled_from([8_000, 16_000, 44_100, 48_000])


def noise(seconds: float, rate: int = RATE, seed: int = 3) -> bytes:
    chance = np.random.default_rng(seed)
    return chance.integers(-9000, 9000, round(seconds * rate)).astype("<i2").tobytes()


def pieces(pcm: bytes, cuts: list[int], *, rate: int = RATE, first: int = 0) -> list[AudioChunk]:
    """`pcm` cut at these samples; sample 0 lies `first` samples after UTC second 1000."""
    edges = [0, *sorted({cut % (len(pcm) // 2) for cut in cuts} - {0}), len(pcm) // 2]
    origin = 1000 * rate + first
    return [
        AudioChunk(
            site="office",
            source="room",
            start=round((origin + low) * SECOND / rate),
            end=round((origin + high) * SECOND / rate),
            seq=number,
            rate=rate,
            channels=1,
            data=pcm[2 * low : 2 * high],
        )
        for number, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def heard(ear: AudioGrid, chunks: list[AudioChunk]) -> list[Second]:
    return [second for chunk in chunks for second in ear.push(chunk)]


def same(ours: list[Second], theirs: list[Second]) -> bool:
    return len(ours) == len(theirs) and all(
        (a.index, a.start, a.heard, a.clipped) == (b.index, b.start, b.heard, b.clipped)
        and np.array_equal(a.samples, b.samples)
        for a, b in zip(ours, theirs, strict=True)
    )


@given(st.lists(st.integers(1, 10**6), max_size=12), RATES, st.integers(0, 7_999))
def test_any_chunks_of_one_recording_give_the_same_seconds(
    cuts: list[int], rate: int, first: int
) -> None:
    pcm = noise(4.5, rate)
    whole, cut = AudioGrid(), AudioGrid()
    a = heard(whole, pieces(pcm, [], rate=rate, first=first))
    b = heard(cut, pieces(pcm, cuts, rate=rate, first=first))
    assert same(a + whole.promise(1010 * SECOND), b + cut.promise(1010 * SECOND))
    assert cut.repeated == 0


LIE = st.sampled_from([0.0, 0.0, 0.09, -0.09])  # seconds by which a chunk's end is wrong
CHUNK = st.tuples(st.floats(0, 9), st.floats(0.1, 2.5), st.sampled_from([16_000, 44_100]), LIE)
PROMISE = st.floats(0, 14)


@given(st.lists(CHUNK | PROMISE, min_size=1, max_size=25), st.data())
def test_a_restart_from_the_floor_goes_on_with_equal_seconds(
    events: list[tuple[float, float, int, float] | float], data: st.DataObject
) -> None:
    """Whatever comes, also gaps, overlaps, rewinds, changes of rate and ends that are wrong."""
    records: list[AudioChunk | int] = []
    for number, event in enumerate(events):
        if isinstance(event, float):
            records.append(ns(1000 + event))
        else:
            start, seconds, rate, lie = event
            true = audio(1000 + start, noise(seconds, rate, seed=number), rate=rate)
            records.append(msgspec.structs.replace(true, end=true.end + ns(lie)))

    def feed(ear: AudioGrid, record: AudioChunk | int) -> list[Second]:
        return ear.promise(record) if isinstance(record, int) else ear.push(record)

    killed = data.draw(st.integers(0, len(records)))
    steady, restarted = AudioGrid(), AudioGrid()
    for record in records[:killed]:
        feed(steady, record)
    for record in records[:killed]:
        if (record if isinstance(record, int) else record.end) > steady.floor:
            feed(restarted, record)
    if steady.floor < FOREVER:
        assert restarted.upto == steady.upto
    for record in [*records[killed:], ns(1020)]:
        assert same(feed(steady, record), feed(restarted, record))


def test_a_second_has_two_seconds_before_it() -> None:
    samples = np.arange(3 * RATE) % 20_000
    seconds = heard(AudioGrid(), [audio(5, samples.astype("<i2").tobytes())])
    assert [second.index for second in seconds] == [5, 6, 7]
    np.testing.assert_array_equal(seconds[-1].samples, (samples / 32768).astype(np.float32))
    np.testing.assert_array_equal(seconds[-1].own, seconds[-1].samples[-RATE:])
    assert not seconds[0].samples[: 2 * RATE].any()


def test_a_gap_is_silence_and_a_long_one_costs_nothing() -> None:
    ear = AudioGrid()
    ear.push(audio(10, noise(0.5)))
    seconds = ear.push(audio(1_000_000, noise(1.5)))
    assert [(second.index, second.heard) for second in seconds] == [
        (10, True),
        (11, False),
        (12, False),
        (1_000_000, True),
    ]
    assert not seconds[0].own[RATE // 2 :].any()


def test_a_repeated_chunk_adds_nothing_and_is_counted() -> None:
    ear = AudioGrid()
    chunk = audio(10, noise(0.5))
    ear.push(chunk)
    assert ear.push(chunk) == []
    assert ear.repeated == RATE // 2


def test_of_an_overlapping_chunk_only_the_new_part_is_used() -> None:
    pcm = noise(1.0)
    whole, twice = AudioGrid(), AudioGrid()
    twice.push(audio(10, pcm[: 2 * 10_000]))
    assert same(twice.push(audio(10.5, pcm[2 * 8_000 :])), whole.push(audio(10, pcm)))
    assert twice.repeated == 2_000


def test_what_lasts_longer_than_its_chunk_says_is_cut_there() -> None:
    """A restart from second 12 on would not be given this chunk, so nothing of it may last."""
    ear = AudioGrid()
    long = msgspec.structs.replace(audio(10, noise(2.09)), end=ns(12))
    assert [second.index for second in ear.push(long)] == [10, 11]
    assert [second.index for second in ear.promise(ns(14))] == [12, 13]
    assert ear.floor == ns(12)
    assert ear.promise(ns(15)) == []


def test_a_promise_completes_the_second_it_passes() -> None:
    ear = AudioGrid()
    ear.push(audio(10, noise(0.3)))
    assert ear.promise(ns(10.9)) == []
    assert [second.index for second in ear.promise(ns(11))] == [10]
    assert ear.upto == ns(11)


def test_a_promise_before_all_sound_completes_nothing() -> None:
    ear = AudioGrid()
    assert ear.floor == FOREVER
    assert ear.promise(ns(500.5)) == []
    assert ear.upto == ns(500)


def test_channels_are_averaged() -> None:
    stereo = np.stack([np.full(RATE, 8192), np.full(RATE, -4096)], axis=1).astype("<i2")
    chunk = msgspec.structs.replace(
        audio(3, seconds=1), channels=2, data=stereo.tobytes(), end=ns(4)
    )
    assert AudioGrid().push(chunk)[0].own == pytest.approx(2048 / 32768)


def test_a_tone_of_another_rate_keeps_its_pitch_and_level() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * 44_100) / 44_100) * 16_384
    second = heard(AudioGrid(), [audio(5, tone.astype("<i2").tobytes(), rate=44_100)])[-1]
    spectrum = np.abs(np.fft.rfft(second.own))
    assert spectrum.argmax() == 440
    assert loudness(second.own) == pytest.approx(-9.0, abs=0.1)


def test_loudness_is_rms_of_full_scale() -> None:
    assert loudness(np.ones(100, np.float32)) == 0
    assert loudness(np.full(100, 0.1, np.float32)) == -20
    assert loudness(np.zeros(100, np.float32)) == -120


def test_the_floor_is_what_is_left_between_what_happens() -> None:
    hiss = np.random.default_rng(5).normal(0, 0.001, RATE).astype(np.float32)
    talked = hiss.copy()
    talked[: RATE * 85 // 100] += 0.3
    assert floor(hiss) == pytest.approx(-60, abs=1)
    assert floor(talked) == pytest.approx(-60, abs=1)
    assert loudness(talked) > -15


def test_silence_has_the_lowest_floor() -> None:
    assert floor(np.zeros(RATE, np.float32)) == -120


def tone(level: float, rate: int) -> bytes:
    """A second of 440 Hz, cut off at full scale."""
    wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * level * 32768
    return np.clip(wave, -32768, 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_what_is_cut_off_is_counted_before_it_is_resampled(rate: int) -> None:
    (second,) = heard(AudioGrid(), [audio(5, tone(2.0, rate), rate=rate)])
    assert second.clipped == pytest.approx(2 / 3, abs=0.005)  # |sin| > 1/2
    (second,) = heard(AudioGrid(), [audio(5, tone(0.99, rate), rate=rate)])
    assert second.clipped == 0


def test_what_is_not_captured_is_not_clipped() -> None:
    ear = AudioGrid()
    ear.push(audio(5, tone(2.0, RATE)[: RATE // 2]))
    (second,) = ear.promise(ns(6))
    assert second.clipped == pytest.approx(1 / 6, abs=0.005)


@given(st.lists(st.integers(1, 10**6), max_size=12), RATES)
def test_any_chunks_of_a_sound_cut_off_are_cut_off_as_much(cuts: list[int], rate: int) -> None:
    pcm = tone(3.0, rate) + tone(0.5, rate) + tone(1.1, rate)
    whole = heard(AudioGrid(), pieces(pcm, [], rate=rate))
    assert same(heard(AudioGrid(), pieces(pcm, cuts, rate=rate)), whole)
    assert [second.clipped > 0 for second in whole] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start": -SECOND, "end": 0}, "no time"),
        ({"end": 0}, "no time"),
        ({"start": 2**63 - 2 * SECOND, "end": 2**63 - SECOND}, "no time"),
        ({"data": b"\0" * 31_999}, "31999 bytes"),
        ({"data": b""}, "0 bytes"),
        ({"rate": 0}, "at 0 Hz"),
        ({"rate": 10**9}, "at 1000000000 Hz"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 3}, "multiple of 6"),
        ({"data": bytes(320_000)}, "its samples last"),
    ],
)
def test_what_is_no_sound_is_refused_and_changes_nothing(
    change: dict[str, int | bytes], reason: str
) -> None:
    ear = AudioGrid()
    ear.push(audio(10, noise(0.5)))
    bad = msgspec.structs.replace(audio(10.5, noise(1.0)), **change)
    with pytest.raises(DecodeError, match=reason):
        ear.push(bad)
    clean = AudioGrid()
    clean.push(audio(10, noise(0.5)))
    assert same(ear.push(audio(10.5, noise(1))), clean.push(audio(10.5, noise(1))))
