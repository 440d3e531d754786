"""The sound stage: audio in, one Sound a second out, whatever is captured, lost or restarted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hearing.sound import SoundHead, Yamnet
from models.hearing.waveform import RATE
from models.training.sound_clips import read
from pipeline.codec import decode, encode
from pipeline.config.fields import SOUNDS
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import FOREVER, AudioChunk, DeadLetter, Progress, Record, Roster, Sound, ns
from tests.make import audio, progress, roster
from workers.runtime.status import Status
from workers.stages.sound import SoundStage


class Loudest:
    """A model of one number: the loudest sample it was given. Deaf to nothing."""

    def __call__(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.array([np.abs(samples).max()], np.float32) for samples in batch]


def bang(scores: np.ndarray) -> Mapping[str, float]:
    return {"gunshot": round(float(scores[0]), 3)}


def stage(status: Status | None = None) -> SoundStage:
    return SoundStage(Loudest(), bang, status)


def loud(seconds: float, level: float = 0.5) -> bytes:
    return np.full(round(seconds * RATE), level * 32768).astype("<i2").tobytes()


def told(records: Sequence[Record], heard: SoundStage | None = None) -> list[Record]:
    state = (heard or stage()).open({})
    return [out for record in records for out in state.on(record, None)]


def progresses(records: Sequence[Record]) -> list[tuple[float, bool]]:
    return [(r.upto / 1e9, r.alive) for r in records if isinstance(r, Progress)]


def test_each_second_gives_a_sound_and_a_promise() -> None:
    out = told([audio(10 + n / 4, loud(0.25), seq=n) for n in range(8)])
    names = [type(record).__name__ for record in out]
    assert names == ["Progress", "Sound", "Progress", "Sound", "Progress"]
    first = out[1]
    assert isinstance(first, Sound)
    assert (first.source, first.start, first.end) == ("room", ns(10), ns(11))
    assert first.labels == {"gunshot": 0.5}
    assert first.loudness_db == pytest.approx(-6.0, abs=0.1)
    assert np.frombuffer(first.embedding, "<f2") == pytest.approx([0.5])
    assert (first.clipped, first.floor_db) == (0.0, pytest.approx(-6.02, abs=0.01))
    assert progresses(out) == [(10, True), (11, True), (12, True)]


def test_the_quality_of_a_second_is_of_that_second_alone() -> None:
    (first, _, second, _) = told([audio(10, loud(1, 0.9999)), audio(11, loud(1, 0.01))])
    assert isinstance(first, Sound)
    assert isinstance(second, Sound)
    assert decode(encode(first)) == first  # numbers of NumPy have no encoding
    assert (first.clipped, first.floor_db) == (1.0, pytest.approx(0, abs=0.01))
    assert (second.clipped, second.floor_db) == (0.0, pytest.approx(-40, abs=0.05))


def test_a_silent_second_has_no_label_but_is_told() -> None:
    (first, _, second, _) = told([audio(10, loud(1)), audio(11, seconds=1)])
    assert isinstance(first, Sound)
    assert isinstance(second, Sound)
    assert first.labels == {"gunshot": 0.5}
    assert second.labels == {"gunshot": 0.0}  # the model heard the bang again, the second did not
    assert second.loudness_db == -120


def test_nothing_is_told_of_what_was_not_captured() -> None:
    out = told([audio(10, loud(1)), progress(14, source="room")])
    assert [r.start for r in out if isinstance(r, Sound)] == [ns(10)]
    assert progresses(out) == [(11, True), (14, True)]


def test_a_lost_source_is_passed_on_each_time_and_never_goes_back() -> None:
    lost = [
        progress(upto, source="room", alive=False, reason="unplugged") for upto in (10.7, 11.7, 9)
    ]
    out = told([audio(10, loud(0.5)), *lost])
    assert progresses(out) == [(10, True), (10, False), (11, False), (11, False)]
    assert [r.start for r in out if isinstance(r, Sound)] == [ns(10)]  # what there was of it
    assert {r.reason for r in out if isinstance(r, Progress) and not r.alive} == {"unplugged"}


def test_a_finite_source_ends_with_its_last_second_told() -> None:
    out = told([audio(10, loud(1.25)), progress(40, source="room")])
    assert [r.start for r in out if isinstance(r, Sound)] == [ns(10), ns(11)]
    assert progresses(out)[-1] == (40, True)


def test_a_roster_passes_as_it_is_and_forgets_who_is_gone() -> None:
    state = stage().open({})
    state.on(audio(10, loud(1)), None)
    assert state.floor("office") == ns(9)
    same = roster("desk", "room", start=20)
    assert state.on(same, None) == [same]
    assert state.floor("office") == ns(9)
    state.on(roster("desk", start=30), None)
    assert state.floor("office") == FOREVER


def test_a_broken_chunk_is_counted_and_told_and_stops_nothing() -> None:
    status = Status()
    broken = audio(10.5, loud(0.5))
    broken = msgspec.structs.replace(broken, data=broken.data[:-1], seq=7)
    rewound = audio(-5, loud(0.5))
    chunks = [audio(10, loud(0.5)), broken, rewound, audio(10.5, loud(0.5))]
    out = told(chunks, stage(status))
    letters = [record for record in out if isinstance(record, DeadLetter)]
    assert [letter.reason[:30] for letter in letters] == [
        "audio chunk 7 cannot be heard:",
        "audio chunk 0 cannot be heard:",
    ]
    assert [record.start for record in out if isinstance(record, Sound)] == [ns(10)]
    counts = status.snapshot().counts["office"]["room"]
    assert (counts["processed"], counts["dropped.unusable"]) == (2, 2)


def test_a_repeated_chunk_is_counted_and_changes_nothing() -> None:
    status = Status()
    chunks = [audio(10 + n / 2, loud(0.5, 0.1 * n)) for n in range(4)]
    twice = [chunk for chunk in chunks for _ in range(2)]
    assert told(twice, stage(status)) == told(chunks)
    assert status.snapshot().counts["office"]["room"]["repeated.samples"] == 2 * RATE


def test_microphones_and_sites_do_not_mix() -> None:
    def one(site: str, source: str, level: float) -> list[AudioChunk]:
        return [audio(10 + n, loud(1, level), site=site, source=source) for n in range(3)]

    each = [one("office", "room", 0.1), one("office", "hall", 0.2), one("shop", "room", 0.3)]
    mixed = told([chunk for at in zip(*each, strict=True) for chunk in at])
    for alone in each:
        key = alone[0].site, alone[0].source
        assert [r for r in mixed if (r.site, r.source) == key] == told(alone)


STEP = st.tuples(
    st.sampled_from([("office", "room"), ("office", "hall"), ("shop", "room")]),
    st.sampled_from(["chunk", "chunk", "chunk", "gap", "again", "lost", "promise"]),
    st.floats(0.05, 1.7),
)


def story(steps: Sequence[tuple[tuple[str, str], str, float]]) -> list[Record]:
    """What a capture might say, with rosters; every microphone has a time of its own."""
    now: dict[tuple[str, str], float] = {}
    records: list[Record] = []
    for number, (who, what, seconds) in enumerate(steps):
        site, source = who
        at = now.get(who, 1000.0)
        if who not in now:
            records.append(roster("room", "hall", start=at, site=site, source=source))
        pcm = loud(seconds, 0.01 + number % 50 / 60)
        match what:
            case "chunk":
                records.append(audio(at, pcm, site=site, source=source))
            case "again":
                records.append(audio(at - seconds, pcm, site=site, source=source))
            case "gap":
                pass
            case _:
                alive = what == "promise"
                upto = at + seconds
                records.append(progress(upto, site=site, source=source, alive=alive, reason="cut"))
        now[who] = at if what == "again" else at + seconds
    return records


@settings(max_examples=60)
@given(st.lists(STEP, min_size=1, max_size=40), st.data())
def test_a_restart_anywhere_says_what_an_undisturbed_run_says(
    steps: list[tuple[tuple[str, str], str, float]], data: st.DataObject
) -> None:
    records = story(steps)
    steady = Host(stage(), Assigned(0, 0, b""))
    killed = data.draw(st.integers(0, len(records)))
    for offset, record in enumerate(records[:killed]):
        steady.feed(offset, record, None)
    restarted = Host(stage(), Assigned(0, steady.safe, steady.note))
    for offset in range(steady.safe, killed):
        assert restarted.feed(offset, records[offset], None) == []
    for offset in range(killed, len(records)):
        expected = steady.feed(offset, records[offset], None)
        assert restarted.feed(offset, records[offset], None) == expected


@settings(max_examples=30)
@given(st.lists(st.integers(1, 80_000), max_size=8, unique=True))
def test_the_size_of_chunks_changes_no_sound(cuts: list[int]) -> None:
    noise = np.random.default_rng(2).normal(0, 16_000, 80_000)
    pcm = np.clip(noise, -32768, 32767).astype("<i2").tobytes()
    edges = [0, *sorted(cuts), 80_000]
    chunks = [
        audio(1000 + low / RATE, pcm[2 * low : 2 * high])
        for low, high in itertools.pairwise(edges)
        if low < high
    ]
    sounds = [record for record in told(chunks) if isinstance(record, Sound)]
    assert sounds == [r for r in told([audio(1000, pcm)]) if isinstance(r, Sound)]
    assert all(0.01 < sound.clipped < 0.1 for sound in sounds)


@pytest.fixture(scope="module")
def real(weights: Path) -> SoundStage:
    return SoundStage(Yamnet(weights / "yamnet"), SoundHead.shipped())


@pytest.mark.parametrize(
    ("clip", "label"),
    [
        ("cc0_events/sounds_rifle_fire_01.ogg", "gunshot"),
        ("cc0_events/sounds_explosion_01.ogg", "explosion"),
        ("cc0_events/sounds_node_dug_glass.2.ogg", "glass"),
        ("screams/man_3.ogg", "scream"),
        ("sesa_train/siren_012.flac", "siren"),
        ("cc0_events/rain.wav", None),
        ("cc0_events/sounds_dog_bark.ogg", None),
        ("cc0_events/sounds_church_bells_01.ogg", None),
        ("cc0_events/typing.wav", None),
        ("cc0_events/sounds_thunder_01.ogg", None),
        ("../speech/jfk.flac", None),
    ],
)
def test_real_clips_raise_their_label_and_no_other(
    real: SoundStage, media: Path, clip: str, label: str | None
) -> None:
    """The head was fitted to these clips: the wiring is shown (docs/explanations/sound.md)."""
    samples = np.concatenate([np.zeros(6_000), read(media / "audio" / clip), np.zeros(RATE)])
    pcm = np.round(samples * 32767).astype("<i2").tobytes()
    out = told([audio(5, pcm), progress(60, source="room")], real)
    sounds = [record for record in out if isinstance(record, Sound)]
    assert all(tuple(sound.labels) == SOUNDS for sound in sounds)
    raised = {name for sound in sounds for name, p in sound.labels.items() if p >= 0.5}
    assert raised == ({label} if label else set())
    assert isinstance(told([roster()], real)[0], Roster)
