"""Says what was seen, heard and said: one line, or one JSON object, for each observation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config.schema import Config
from pipeline.types import (
    SECOND,
    Described,
    Detections,
    Mode,
    Progress,
    Record,
    Roster,
    Sound,
    Utterance,
    event_start,
    rfc3339,
)
from workers.runtime.printable import printable

LEAST_SOUND = 0.05  # a probability from which a line names a kind of sound
KINDS = ("seen", "heard", "said", "reported", "mode", "lost", "back")

Told = Mapping[str, object]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What one record says: its kind, its words for a person, and its values for a program.

    `empty`: nothing was found, as in a frame without objects.
    """

    kind: str
    words: str
    told: Told
    start: int  # ns
    site: str
    source: str
    empty: bool = False


class Reading:
    """Turns the records of `observations.v1` into what they say, in the order of the log."""

    def __init__(self) -> None:
        self._lost: set[tuple[str, str]] = set()

    def read(self, record: Record) -> Iterator[Observed]:
        """Yields what a record says; a source that is lost or back again is told once."""
        yield from self._presence(record)
        match record:
            case Detections():
                yield _seen(record)
            case Sound():
                yield _heard(record)
            case Utterance():
                words = f'"{record.text}" ({record.language}, {record.confidence:.2f})'
                yield _observed(record, "said", words, _fields(record, ("source", "site")))
            case Described():
                words = f'{record.author}: "{record.text}"' if record.author else f'"{record.text}"'
                yield _observed(record, "reported", words, _fields(record, ("source", "site")))
            case Mode():
                yield _mode(record)

    def _presence(self, record: Record) -> Iterator[Observed]:
        key = record.site, record.source
        if isinstance(record, Progress) and not record.alive:
            if key not in self._lost:
                self._lost.add(key)
                yield _observed(record, "lost", record.reason, {"reason": record.reason})
        elif key in self._lost and not isinstance(record, Mode | Roster):
            self._lost.discard(key)
            yield _observed(record, "back", "", {})


def _observed(
    record: Record, kind: str, words: str, told: Told, *, empty: bool = False
) -> Observed:
    return Observed(
        kind=kind,
        words=words,
        told=told,
        start=event_start(record),
        site=record.site,
        source=record.source,
        empty=empty,
    )


def _fields(record: Record, without: Collection[str]) -> Told:
    """The values of a record for JSON, without its embedding."""
    left_out = {"type", "start", "embedding", "boxes", *without}
    plain = msgspec.to_builtins(record, builtin_types=(bytes,))
    told = {name: value for name, value in plain.items() if name not in left_out}
    return told | ({"end": rfc3339(told["end"])} if "end" in told else {})


def _seen(record: Detections) -> Observed:
    boxes = sorted(record.boxes, key=lambda box: -box.score)
    words = ", ".join(
        f"{box.label} {box.score:.3g} at {box.x1:g},{box.y1:g} to {box.x2:g},{box.y2:g}"
        for box in boxes
    )
    objects = [
        {
            "label": box.label,
            "score": box.score,
            "box": [box.x1, box.y1, box.x2, box.y2],
            "pose": bool(box.keypoints),
        }
        for box in boxes
    ]
    nothing = "nothing moves" if record.gated else "nothing"
    told = {**_fields(record, ("source", "site")), "objects": objects}
    return _observed(record, "seen", words or nothing, told, empty=not boxes)


def _heard(record: Sound) -> Observed:
    labels = sorted(record.labels.items(), key=lambda item: -item[1])
    loud = f"{record.loudness_db:.0f} dB"
    named = ", ".join(f"{name} {score:.3g}" for name, score in labels if score >= LEAST_SOUND)
    usual = "the usual noise" if record.gated else "nothing known"
    words = f"{named or usual}, {loud}" + (" (early)" if record.early else "")
    told = _fields(record, ("source", "site"))
    return _observed(record, "heard", words, told, empty=not named or record.early)


def _mode(record: Mode) -> Observed:
    rule = f"rule {record.rule} " if record.rule else ""
    by = f" by {record.by}" if record.by else ""
    told: dict[str, object] = {"mode": record.mode, "rule": record.rule, "by": record.by}
    told["until"] = None if record.until is None else rfc3339(record.until)
    until = "" if record.until is None else f" until {told['until']}"
    again = record.said != record.start  # the source says it again while it holds
    return _observed(record, "mode", f"{rule}{record.mode}{by}{until}", told, empty=again)


class Writing:
    """Writes what was observed as lines for a person, or as JSON lines.

    Times of lines are those of the site's time zone, or UTC.
    """

    def __init__(
        self, settings: Config, write: Callable[[str], object], *, utc: bool, as_json: bool
    ) -> None:
        self._write, self._json = write, as_json
        self._zones = {} if utc else {n: ZoneInfo(s.timezone) for n, s in settings.sites.items()}
        names = [
            f"{name}/{source}"
            for name, site in settings.sites.items()
            for source in (*site.cameras, *(f"{room}/speech" for room in site.microphones))
        ]
        self._width = max(map(len, names), default=0)

    def write(self, one: Observed) -> None:
        """Writes one observation."""
        if self._json:
            row: dict[str, object] = {"time": rfc3339(one.start), "site": one.site}
            row |= {"source": one.source, "kind": one.kind, **one.told}
            self._write(msgspec.json.encode(row).decode() + "\n")
            return
        place = printable(f"{one.site}/{one.source}").ljust(self._width)
        time = local_time(one.start, self._zones.get(one.site))
        self._write(f"{time}  {place}  {one.kind:8}  {printable(one.words)}".rstrip() + "\n")


def local_time(time: int, zone: ZoneInfo | None) -> str:
    """A time (ns UTC) as RFC 3339 to the millisecond, in a zone; None is UTC."""
    moment = datetime.fromtimestamp(time // SECOND, zone or UTC)
    text = moment.replace(microsecond=time % SECOND // 1_000_000 * 1000).isoformat(
        timespec="milliseconds"
    )
    return text.replace("+00:00", "Z")
