"""The sound and the speech stage obey the noise floor that capture recorded."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hearing.transcript import Transcript
from models.hearing.waveform import RATE, Samples
from pipeline.config.fields import SOUNDS
from pipeline.config.schema import Hear
from pipeline.host import Host
from pipeline.ports import Assigned, Stage
from pipeline.types import SECOND, AudioChunk, Progress, Record, Sound, Utterance, ns
from tests.make import audio
from workers.runtime.status import Status
from workers.stages.audio_grid import AudioGrid
from workers.stages.audit import picked
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage

ROOM = ("office", "room")
AT = 1_767_650_400  # s
MARKS = ["", "", "", "", "heartbeat", "sound", "first", "all"]


class Ear:
    """Counts what it hears; its labels tell how loud that is."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, batch: Sequence[Samples]) -> list[Samples]:
        self.heard += len(batch)
        return [np.array([np.abs(samples).max()], np.float32) for samples in batch]

    def labels(self, scores: Samples) -> Mapping[str, float]:
        return dict.fromkeys(SOUNDS, 0.0) | {"gunshot": round(float(scores[0]), 3)}


class Voice:
    """Finds voice in what is louder than 0.1."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, batch: Sequence[Samples]) -> list[Samples]:
        self.heard += len(batch)
        return [(np.abs(one[-32 * 512 :]).reshape(-1, 512).max(1) > 0.1) * 0.9 for one in batch]


def write(batch: Sequence[Samples]) -> list[Transcript]:
    return [Transcript(f"{len(one)} samples", "en", 0.9) for one in batch]


def embed(batch: Sequence[str]) -> list[Samples]:
    return [np.zeros(3, np.float32)] * len(batch)


def sounds_of(ear: Ear, audit: float = 0, status: Status | None = None) -> SoundStage:
    return SoundStage(ear, ear.labels, status, {ROOM: Hear(audit=audit)})


def speech_of(voice: Voice, audit: float = 0, status: Status | None = None) -> SpeechStage:
    return SpeechStage(voice, write, embed, status, {ROOM: Hear(audit=audit)})


def marked(marks: Sequence[str], levels: Sequence[float] = ()) -> list[AudioChunk]:
    """Chunks of half a second with these marks, from AT on."""
    made = []
    for number, mark in enumerate(marks):
        level = levels[number] if number < len(levels) else 0.01
        pcm = np.full(RATE // 2, round(level * 32767), "<i2").tobytes()
        chunk = audio(AT + number / 2, pcm, seq=number)
        made.append(msgspec.structs.replace(chunk, listen=mark))
    return made


def through(stage: Stage, records: Sequence[Record]) -> list[Record]:
    state = stage.open({})
    return [made for record in records for made in state.on(record, None)]


def sounds(records: Sequence[Record]) -> list[Sound]:
    return [record for record in records if isinstance(record, Sound)]


def still(marks: Sequence[str]) -> list[bool]:
    """By second, whether it is gated."""
    return [s.gated for s in sounds(through(sounds_of(Ear()), marked(marks)))]


def test_a_second_of_usual_noise_is_not_heard_and_says_how_loud_it_was() -> None:
    ear = Ear()
    out = through(sounds_of(ear), marked(["sound", "sound", *[""] * 6]))
    assert ear.heard == 2  # the second of the sound, and the one whose context holds it
    first, second, third, _ = sounds(out)
    assert (first.gated, second.gated, third.gated) == (False, False, True)
    assert third.labels == dict.fromkeys(SOUNDS, 0.0)
    assert (third.loudness_db, third.floor_db) == (second.loudness_db, second.floor_db)
    assert (third.embedding, third.clipped) == (b"", 0.0)
    assert [p.upto // SECOND - AT for p in out if isinstance(p, Progress)] == [0, 1, 2, 3, 4]


def test_what_wants_a_listen_opens_its_second_and_the_next() -> None:
    marks = [*[""] * 4, "", "sound", *[""] * 4]
    assert still(marks) == [False, True, False, False, True]


def test_a_heartbeat_opens_its_own_second_alone() -> None:
    marks = [*[""] * 4, "heartbeat", "heartbeat", *[""] * 4]
    assert still(marks) == [False, True, False, True, True]


def test_old_chunks_and_unknown_marks_are_heard() -> None:
    assert still(["all"] * 6) == [False] * 3
    assert still(["", "", "", "", "of tomorrow", ""]) == [False, True, False]
    assert audio(1).listen == "all"  # what an old record is decoded to


def test_a_hole_opens_the_gate() -> None:
    chunks = marked([""] * 10)
    del chunks[5]
    assert [s.gated for s in sounds(through(sounds_of(Ear()), chunks))] == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_audited_seconds_are_heard_and_misses_counted() -> None:
    ear, status = Ear(), Status()
    levels = [*[0.01] * 6, 0.6, 0.6, *[0.01] * 4]
    out = sounds(through(sounds_of(ear, 1.0, status), marked([""] * 12, levels)))
    assert [s.gated for s in out] == [False] * 6
    assert ear.heard == 6
    counts = status.snapshot().counts["office"]["room"]
    assert counts["seconds.heard"] == 6
    assert (counts["audited"], counts["audited.missed"]) == (5, 2)  # YAMNet hears it twice


def test_one_second_in_a_hundred_is_audited_by_both_stages() -> None:
    marks = [""] * 1200
    status = Status()
    told = sounds(through(sounds_of(Ear(), 0.01, status), marked(marks)))
    through(speech_of(Voice(), 0.01, status), marked(marks))
    wanted = [s.start for s in told[1:] if picked(*ROOM, s.start, 0.01)]
    assert [s.start for s in told[1:] if not s.gated] == wanted
    assert 1 <= len(wanted) <= 20
    counts = status.snapshot().counts["office"]
    assert counts["room"]["audited"] == counts["room/speech"]["audited"] == len(wanted)
    assert counts["room"]["seconds.gated"] == counts["room/speech"]["seconds.gated"]


def test_gated_seconds_hold_no_voice_and_end_an_utterance() -> None:
    voice = Voice()
    levels = [0.01, 0.01, 0.5, 0.5, *[0.01] * 8]
    marks = ["first", "first", "sound", "sound", *[""] * 8]
    (said,) = [r for r in through(speech_of(voice), marked(marks, levels))
               if isinstance(r, Utterance)]  # fmt: skip
    assert voice.heard == 3
    heard_all = through(speech_of(Voice()), marked(["all"] * 12, levels))
    assert [said] == [r for r in heard_all if isinstance(r, Utterance)]


def test_an_utterance_begins_in_the_gated_second_before_it() -> None:
    levels = [*[0.01] * 6, 0.5, 0.5, *[0.01] * 6]
    marks = [*[""] * 6, "sound", "sound", *[""] * 6]
    (said,) = [r for r in through(speech_of(Voice()), marked(marks, levels))
               if isinstance(r, Utterance)]  # fmt: skip
    assert said.start == ns(AT + 2.7)


def test_voice_in_an_audited_second_is_a_miss() -> None:
    status = Status()
    levels = [*[0.01] * 4, 0.5, 0.5, *[0.01] * 4]
    through(speech_of(Voice(), 1.0, status), marked([""] * 10, levels))
    counts = status.snapshot().counts["office"]["room/speech"]
    assert (counts["audited"], counts["audited.missed"]) == (4, 1)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(MARKS), min_size=2, max_size=24), st.data())
@pytest.mark.parametrize("kind", ["sound", "speech"])
def test_a_restart_anywhere_gates_the_same_seconds(
    kind: str, marks: list[str], data: st.DataObject
) -> None:
    levels = data.draw(st.lists(st.sampled_from([0.01, 0.5]), max_size=24))
    records = marked(marks, levels)

    def stage() -> Stage:
        return sounds_of(Ear(), 0.3) if kind == "sound" else speech_of(Voice(), 0.3)

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


@given(st.lists(st.integers(1, 5 * RATE - 1), max_size=20, unique=True))
def test_whatever_the_chunks_are_a_sound_is_never_gated(cuts: list[int]) -> None:
    """A chunk that wants a listen opens each second that it reaches into, and the next."""
    edges = [0, *sorted(cuts), 5 * RATE]
    chunks = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        chunk = audio(AT + low / RATE, bytes(2 * (high - low)), seq=number)
        chunk = msgspec.structs.replace(
            chunk, start=AT * SECOND + low * SECOND // RATE, end=AT * SECOND + high * SECOND // RATE
        )
        mark = "sound" if low <= 2 * RATE + 99 < high else ""
        chunks.append(msgspec.structs.replace(chunk, listen=mark))
    grid = AudioGrid()
    seconds = {s.index - AT: s.still for chunk in chunks for s in grid.push(chunk)}
    assert not seconds[0]
    assert not seconds[2]
    assert not seconds[3]
