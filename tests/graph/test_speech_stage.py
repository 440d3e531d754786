"""The speech stage: utterances and promises, whatever the chunks and wherever it was restarted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hearing.transcript import Samples, Transcript
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import (
    FOREVER,
    SECOND,
    AudioChunk,
    Progress,
    Record,
    Roster,
    Utterance,
    ns,
)
from workers.media.pcm import RATE
from workers.runtime.status import Status
from workers.stages.speech import SpeechStage

START = 1_767_650_400  # s; 2026-01-05T22:00:00Z
SILENT, MAYBE, VOICED = 0.0, 0.25, 0.9


def voice(batch: Sequence[Samples]) -> list[Samples]:
    """How loud each 32 ms is, from the end, taken for how like speech it is; more after silence."""
    found = []
    for one in batch:
        level = np.abs(one[-32 * 512 :].reshape(-1, 512)).max(1).round(2)
        silence = np.abs(one[:RATE]).max() < 0.1
        found.append(level + np.float32(0.1 if silence else 0) * (level > 0.1))
    return found


def write(batch: Sequence[Samples]) -> list[Transcript]:
    """A text that is different for each waveform."""
    return [Transcript(f"{len(one)} {zlib.crc32(one.tobytes())}", "en", 0.9) for one in batch]


def embed(batch: Sequence[str]) -> list[Samples]:
    return [np.full(3, len(text), np.float32) for text in batch]


def stage(status: Status | None = None) -> SpeechStage:
    return SpeechStage(voice, write, embed, status)


def pcm(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) parts as s16le samples, no two stretches of which are equal."""
    level = np.concatenate([np.full(round(s * RATE), level) for s, level in parts])
    wobble = 1 - np.random.default_rng(1).random(len(level)) / 100
    return (level * wobble * 32767).astype("<i2")


def chunks(
    samples: np.ndarray,
    sizes: Sequence[int] = (RATE // 10,),
    *,
    at: float = 0,
    site: str = "office",
    source: str = "room",
) -> Iterator[AudioChunk]:
    """The samples in chunks of these sizes, again and again; `at` seconds after START."""
    begin, seq = 0, 0
    while begin < len(samples):
        data = samples[begin : begin + sizes[seq % len(sizes)]]
        start = ns(START + at) + begin * SECOND // RATE
        yield AudioChunk(
            site=site,
            source=source,
            start=start,
            end=ns(START + at) + (begin + len(data)) * SECOND // RATE,
            seq=seq,
            rate=RATE,
            channels=1,
            data=data.tobytes(),
        )
        begin, seq = begin + len(data), seq + 1


def promise(
    at: float, *, alive: bool = True, reason: str = "", site: str = "office", source: str = "room"
) -> Progress:
    return Progress(site=site, source=source, upto=ns(START + at), alive=alive, reason=reason)


def run(records: Sequence[Record]) -> list[Record]:
    state = stage().open({})
    return [made for record in records for made in state.on(record, None)]


def utterances(records: Sequence[Record]) -> list[Utterance]:
    return [record for record in records if isinstance(record, Utterance)]


def times(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Starts and ends of the utterances, in seconds after START, to the hundredth."""
    return [
        (round(u.start / 1e9 - START, 2), round(u.end / 1e9 - START, 2))
        for u in utterances(records)
    ]


def test_what_is_said_becomes_an_utterance_of_the_microphones_speech() -> None:
    samples = pcm((1, SILENT), (1, VOICED), (2, SILENT))
    (found,) = utterances(run([*chunks(samples)]))
    assert (found.site, found.source, found.language) == ("office", "room/speech", "en")
    assert found.confidence == 0.9
    assert times([found]) == [(0.7, 2.31)]  # frames of 32 ms, counted from the second's end
    assert len(found.embedding) == 6
    low, high = ((t - START * SECOND) * RATE // SECOND for t in (found.start, found.end))
    assert found.text == write([samples[low:high].astype(np.float32) / 32768])[0].text


def test_progress_is_held_back_to_the_open_utterance() -> None:
    out = run([*chunks(pcm((3, SILENT), (3, VOICED), (2, SILENT)))])
    promised = [round(p.upto / 1e9 - START, 2) for p in out if isinstance(p, Progress)]
    assert promised == [0, 0.7, 1.7, 2.7, 6.7, 7.7]
    assert all(p.source == "room/speech" for p in out if isinstance(p, Progress))


def test_progress_never_promises_away_an_utterance() -> None:
    out = run([*chunks(pcm((1, VOICED), (2, SILENT), (12, VOICED), (2, SILENT)))])
    promised = 0
    for record in out:
        if isinstance(record, Progress):
            assert record.upto >= promised
            promised = record.upto
        elif isinstance(record, Utterance):
            assert record.start >= promised
            assert record.end - record.start <= ns(5)
    assert len(utterances(out)) >= 4


def test_a_roster_passes_and_ends_a_microphone_that_left() -> None:
    state = stage().open({})
    for chunk in chunks(pcm((2, VOICED))):
        state.on(chunk, None)
    assert state.floor("office") < FOREVER
    roster = Roster(site="office", source="desk", sources=("desk", "reports"), start=START * SECOND)
    assert state.on(roster, None) == [roster]
    assert state.floor("office") == FOREVER


def test_a_lost_microphone_ends_its_utterance_and_is_told_as_lost() -> None:
    out = run([*chunks(pcm((2.5, VOICED))), *(promise(t, alive=False) for t in (2.5, 3.5, 4.5))])
    assert times(out) == [(0, 2.82)]  # what was not captured of a second is silence
    last = out[-1]
    assert isinstance(last, Progress)
    assert (last.upto, last.alive) == (ns(START + 4), False)


def test_a_loss_is_repeated_with_its_reason() -> None:
    out = run([promise(t, alive=False, reason="unplugged") for t in (1.0, 2.0, 2.0)])
    assert [(p.upto, p.alive, p.reason) for p in out if isinstance(p, Progress)] == [
        (ns(START + t), False, "unplugged") for t in (1, 2, 2)
    ]


def test_after_the_end_everything_is_promised() -> None:
    out = run([*chunks(pcm((2, VOICED))), promise(30)])
    assert out[-1] == promise(30, source="room/speech")


def test_a_microphone_that_was_away_is_heard_again_from_its_return_on() -> None:
    first = chunks(pcm((1, VOICED)))
    second = chunks(pcm((1, VOICED), (2, SILENT)), at=7200)
    out = run([*first, promise(7200, alive=False), *second])
    assert times(out) == [(0, 1), (7200, 7201.31)]


def test_a_chunk_that_is_no_sound_is_counted_and_changes_nothing() -> None:
    status = Status()
    state = stage(status).open({})
    good = next(chunks(pcm((1.5, VOICED)), (24_000,)))
    state.on(good, None)
    broken = AudioChunk(
        site="office",
        source="room",
        start=good.end,
        end=good.end + 1,
        seq=1,
        rate=0,
        channels=1,
        data=b"x",
    )
    assert state.on(broken, None) == []
    assert status.counted("office", "room/speech", "dropped.unusable") == 1


def test_what_was_not_understood_gives_no_record() -> None:
    status = Status()
    deaf = SpeechStage(voice, lambda batch: [Transcript("", "en", 0.0)] * len(batch), embed, status)
    state = deaf.open({})
    for chunk in chunks(pcm((1, VOICED), (2, SILENT))):
        assert not utterances(state.on(chunk, None))
    assert status.counted("office", "room/speech", "not_understood") == 1


levels = st.sampled_from([SILENT, MAYBE, 0.35, VOICED])
parts = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.8, 2.0, 6.0]), levels), min_size=2, max_size=9
)


def sizes(least: int) -> st.SearchStrategy[list[int]]:
    """Samples of each chunk in turn."""
    return st.lists(st.integers(least, 30_000), min_size=1, max_size=4)


@given(parts, sizes(200))
def test_chunk_sizes_do_not_matter(spoken: list[tuple[float, float]], cut: list[int]) -> None:
    samples, end = pcm(*spoken), promise(60)
    whole = run([*chunks(samples, (RATE,)), end])
    assert utterances(run([*chunks(samples, cut), end])) == utterances(whole)


@given(parts, parts, parts, sizes(1600), st.data())  # a microphone's are of 100 ms and more
def test_a_restart_says_what_was_not_yet_said(
    one: list[tuple[float, float]],
    two: list[tuple[float, float]],
    three: list[tuple[float, float]],
    cut: list[int],
    data: st.DataObject,
) -> None:
    records = sorted(
        [
            *chunks(pcm(*one), cut),
            *chunks(pcm(*two), cut, source="hall", at=data.draw(st.sampled_from([0, 0.7, 9]))),
            *chunks(pcm(*three), cut, site="shop"),
        ],
        key=lambda chunk: chunk.end,
    )
    lost = [promise(t, alive=t > 63, source=s) for t in (61, 62, 70) for s in ("room", "hall")]
    log: list[Record] = [*records, *lost]
    undisturbed = run(log)
    host = Host(stage(), Assigned(0, 0, b""))
    said: list[Record] = []
    at = 0
    for stop in sorted(data.draw(st.lists(st.integers(1, len(log)), max_size=3))):
        while at < stop:
            said += host.feed(at, log[at], None)
            at += 1
        host = Host(stage(), Assigned(0, host.safe, host.note))
        for offset in range(host.safe, at):
            assert host.feed(offset, log[offset], None) == []
    while at < len(log):
        said += host.feed(at, log[at], None)
        at += 1
    assert said == undisturbed


@pytest.mark.parametrize(
    ("spoken", "least"),
    [
        ([(0.7, VOICED), (0.1, 0.4), (0.5, 0.6), (0.2, MAYBE)] * 20, 7),  # a monologue
        ([(1, VOICED), (12, MAYBE)], 1),  # a murmur, which is speech only after silence
    ],
)
def test_a_restart_at_any_moment_changes_nothing(
    spoken: list[tuple[float, float]], least: int
) -> None:
    log: list[Record] = [*chunks(pcm((1.2, SILENT), *spoken, (2, SILENT)), (RATE // 2,))]
    undisturbed = run(log)
    assert len(utterances(undisturbed)) >= least
    for stop in range(1, len(log)):
        host = Host(stage(), Assigned(0, 0, b""))
        said = [made for at in range(stop) for made in host.feed(at, log[at], None)]
        again = Host(stage(), Assigned(0, host.safe, host.note))
        for at in range(host.safe, len(log)):
            said += again.feed(at, log[at], None)
        assert said == undisturbed


@pytest.fixture(scope="module")
def real(weights: Path) -> SpeechStage:
    from models.hearing.speech import FasterWhisper
    from models.hearing.voice_activity import VoiceActivity
    from models.language.text import TextEncoder

    return SpeechStage(
        VoiceActivity(),
        FasterWhisper(weights / "faster-whisper-tiny.en", threads=2),
        TextEncoder(weights / "all-MiniLM-L6-v2-int8", threads=2),
    )


def test_real_speech_is_the_same_after_a_restart_and_in_other_chunks(
    real: SpeechStage, media: Path
) -> None:
    from faster_whisper import decode_audio

    samples = (decode_audio(str(media / "speech/jfk.flac")) * 32767).astype("<i2")
    log = [*chunks(samples, (4000,), at=0.3), promise(30)]
    state = real.open({})
    whole = [made for record in log for made in state.on(record, None)]
    text = " ".join(u.text for u in utterances(whole)).lower()
    assert "fellow americans" in text
    assert "what you can do for your country" in text

    host = Host(real, Assigned(0, 0, b""))
    stop = 28  # 7 s: in the middle of a sentence
    said = [made for at in range(stop) for made in host.feed(at, log[at], None)]
    again = Host(real, Assigned(0, host.safe, host.note))
    assert 0 < host.safe < stop
    for at in range(host.safe, len(log)):
        said += again.feed(at, log[at], None)
    assert said == whole

    other = real.open({})
    cut = [*chunks(samples, (1111, 30_000), at=0.3), promise(30)]
    assert utterances([made for r in cut for made in other.on(r, None)]) == utterances(whole)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_where_nobody_speaks_nothing_is_written(real: SpeechStage, media: Path, every: int) -> None:
    from faster_whisper import decode_audio

    clips = sorted((media / "audio/cc0_events").glob("*.[ow]*"))
    clips += sorted((media / "audio/screams").glob("*.ogg"))
    clips += sorted((media / "audio/sesa_train").glob("*.flac"))[::24]
    assert len(clips) > 60
    invented = {}
    for clip in clips[::every]:
        samples = (decode_audio(str(clip))[: 10 * RATE] * 32767).astype("<i2")
        state = real.open({})
        made = [
            made for record in [*chunks(samples), promise(30)] for made in state.on(record, None)
        ]
        if utterances(made):
            invented[clip.name] = [utterance.text for utterance in utterances(made)]
    assert invented == {}
