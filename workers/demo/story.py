"""Collects the story of a played scene: its alerts, and what was seen, heard and said.

The pieces of sound and the observations come from the bus of the replay.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config import rule_kinds
from pipeline.config.schema import Site
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import (
    SECOND,
    Alert,
    AudioChunk,
    Described,
    Detections,
    Record,
    Sound,
    Utterance,
)
from workers.delivery.receiver import Received
from workers.delivery.snapshots import Shot
from workers.replay.scene_file import Scene

AROUND = SECOND  # ns of sound before and after an event that a player plays
MOST_SOUNDS = 12  # players on the page; each is about 100 kB
GAP = SECOND  # ns; shorter pauses between detections do not split a span


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an alert.

    `rules`, `reasons` and `words` are those that no earlier revision of the alert had, `sources`
    the states of sources that changed. `picture` is None where no camera showed anything, `post` is
    None where the webhook did not arrive.
    """

    alert: Alert
    rules: Sequence[str]
    reasons: Sequence[str]
    words: Sequence[str]
    sources: Sequence[str]
    picture: Path | None
    seen: int  # objects with a box in the picture
    post: Received | None


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasted from `start` to `end` (ns); `sound` is a WAV file or empty."""

    source: str
    start: int
    end: int
    text: str
    author: str = ""
    sound: bytes = b""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the demo tells about a scene.

    `left_out` names the models that were absent, and why. `levels` holds the loudness of each
    second by microphone, in dBFS.
    """

    scene: Scene
    site: Site
    chapters: Sequence[Chapter]
    seen: Sequence[Span]
    heard: Sequence[Span]
    said: Sequence[Span]
    reported: Sequence[Span]
    levels: Mapping[str, Sequence[tuple[int, float]]]
    left_out: Mapping[str, str]
    seconds: float
    credits: str = ""

    @property
    def hero(self) -> Chapter | None:
        """The chapter with the picture to show: the last one with a box, else the last of all."""
        shown = [chapter for chapter in self.chapters if chapter.picture is not None]
        return max(shown, key=lambda chapter: (chapter.seen > 0, chapter.alert.time), default=None)


class ChapterReader:
    """Turns alerts into chapters, in the order in which they were told."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence
        self._told: dict[str, set[tuple[int, str]]] = {}

    def chapter(self, alert: Alert, post: Received | None) -> Chapter:
        """The chapter of an alert whose snapshots have been written to the evidence folder."""
        told = self._told.setdefault(alert.id, set())
        presence = [f"{name} {state.value}" for name, state in alert.presence.items()]
        rules, reasons, words, sources = (
            [text for text in texts if (kind, text) not in told]
            for kind, texts in enumerate((alert.rules, alert.reasons, alert.transcript, presence))
        )
        for kind, texts in enumerate((rules, reasons, words, sources)):
            told |= {(kind, text) for text in texts}
        picture, seen = self._picture(alert)
        return Chapter(
            alert=alert,
            rules=rules,
            reasons=reasons,
            words=words,
            sources=sources,
            picture=picture,
            seen=seen,
            post=post,
        )

    def _picture(self, alert: Alert) -> tuple[Path | None, int]:
        """The snapshot of the alert with the most boxes, and their number."""
        manifest = self._evidence / alert.site / f"{alert.id}_{alert.revision}.json"
        if alert.state == "closed" or not alert.evidence or not manifest.is_file():
            return None, 0
        shots = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).snapshots
        taken = [(len(shot.drawn), shot.name) for shot in shots if shot.ok]
        seen, name = max(taken, key=lambda one: one[0], default=(0, ""))
        return (self._evidence / name, seen) if name else (None, 0)


class _Manifest(msgspec.Struct, frozen=True):
    snapshots: tuple[Shot, ...]


def tell(
    scene: Scene,
    site: Site,
    bus: MemoryBus,
    chapters: Sequence[Chapter],
    *,
    left_out: Mapping[str, str],
    seconds: float,
    credits: str,
) -> Story:
    """Collects the story of a scene from the bus that it was played on."""
    records = sorted(
        (record for record in map(codec.decode, bus.values(topics.OBSERVATIONS))
         if isinstance(record, Detections | Sound | Utterance | Described)
         and not (isinstance(record, Sound) and record.early)),
        key=lambda record: (record.start, record.source),
    )  # fmt: skip
    levels: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if isinstance(record, Sound):
            levels.setdefault(record.source, []).append((record.start, record.loudness_db))
    heard = list(_joined(_sounds(site, records)))[:MOST_SOUNDS]
    said = [
        Span(source=r.source, start=r.start, end=r.end, text=r.text)
        for r in records
        if isinstance(r, Utterance)
    ][:MOST_SOUNDS]
    return Story(
        scene=scene,
        site=site,
        chapters=chapters,
        seen=list(_joined(_objects(site, records))),
        heard=[_with_sound(bus, scene, span) for span in heard],
        said=[_with_sound(bus, scene, span) for span in said],
        reported=[
            Span(source=REPORTS_SOURCE, start=r.start, end=r.end, text=r.text, author=r.author)
            for r in records
            if isinstance(r, Described)
        ],
        levels=levels,
        left_out=left_out,
        seconds=seconds,
        credits=credits,
    )


def _sounds(site: Site, records: Iterable[Record]) -> Iterator[Span]:
    """The seconds in which a sound reached the threshold of a rule."""
    wanted: dict[str, float] = {}
    for rule in site.rules:
        if isinstance(rule, rule_kinds.SoundRule):
            for label, threshold in rule.labels.items():
                wanted[label] = min(threshold, wanted.get(label, threshold))
    for record in records:
        if isinstance(record, Sound):
            for label, threshold in wanted.items():
                if record.labels.get(label, 0.0) >= threshold:
                    yield Span(source=record.source, start=record.start, end=record.end, text=label)


def _objects(site: Site, records: Iterable[Record]) -> Iterator[Span]:
    """The frames that show an object of a zone of their camera; a gated one shows what the last
    look showed."""
    last: dict[str, set[str]] = {}
    for record in records:
        camera = site.cameras.get(record.source)
        if not isinstance(record, Detections) or camera is None:
            continue
        wanted = {label for zone in camera.zones.values() for label in zone.objects}
        if not record.gated:
            least = camera.detect.min_score
            last[record.source] = {box.label for box in record.boxes if box.score >= least}
        shown = last.get(record.source, set())
        for label in sorted(shown & wanted):
            yield Span(source=record.source, start=record.start, end=record.end, text=label)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The spans of one source and text joined, where they follow one another within `GAP`."""
    last: dict[tuple[str, str], Span] = {}
    done: list[Span] = []
    for span in spans:
        key = span.source, span.text
        before = last.get(key)
        if before is not None and span.start <= before.end + GAP:
            last[key] = msgspec.structs.replace(before, end=span.end)
            continue
        if before is not None:
            done.append(before)
        last[key] = span
    return sorted([*done, *last.values()], key=lambda span: (span.start, span.source, span.text))


def _with_sound(bus: MemoryBus, scene: Scene, span: Span) -> Span:
    """The span with the sound that was captured from `AROUND` before it to `AROUND` after it."""
    microphone = span.source.partition("/")[0]
    start, end = max(scene.start, span.start - AROUND), min(scene.end, span.end + AROUND)
    values = bus.fetch(topics.AUDIO, f"{scene.site}/{microphone}", start, end)
    chunks = [chunk for chunk in map(codec.decode, values) if isinstance(chunk, AudioChunk)]
    return msgspec.structs.replace(span, sound=wav(chunks, start, end))


def wav(chunks: Sequence[AudioChunk], start: int, end: int) -> bytes:
    """The sound of `[start, end)` in chunks that follow one another, as a WAV file; empty without
    any."""
    if not chunks:
        return b""
    rate, channels = chunks[0].rate, chunks[0].channels
    frame = 2 * channels  # bytes
    first, last = (max(0, round((at - chunks[0].start) * rate / SECOND)) for at in (start, end))
    whole = b"".join(chunk.data for chunk in chunks)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(whole[first * frame : last * frame])
    return file.getvalue()
