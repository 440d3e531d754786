"""The rows of the time line: what each source saw and heard, and how near each rule came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pipeline.config.schema import Site
from pipeline.judge.refusal import Refusal
from pipeline.judge.refusal_words import clock
from pipeline.sources import REPORTS_SOURCE
from pipeline.tracking.active_track import Point
from pipeline.types import SECOND, Described, Detections, Sound, Utterance, ns
from workers.explain.explained import Explained
from workers.explain.observed import Picture
from workers.explain.refusals import USUAL, by_second
from workers.explain.text import cause_line
from workers.stages.camera_tracks import CameraTracks

LEFT, RIGHT = 190, 1245  # of the time line, in units of its view box: 1280 wide
LOW, PICTURE_HIGH, RULE_HIGH = 30, 58, 56  # heights of rows
TRACK_HIGH, MOST_ROWS = 8, 10  # a bar of a track; rows of bars
MOST_POINTS = 900  # of a row
QUIET_DB, LOUD_DB = -60.0, -10.0  # dBFS: no bar, and a full one


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A bar, in units of the view box; `text` is shown by a pointer."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str
    link: str = ""


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """A small picture."""

    x: float
    y: float
    width: float
    height: float
    picture: Picture
    text: str


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """A second of a rule in which it fired (`fired`) or nearly did (`near`)."""

    x: float
    y: float
    kind: str
    text: str


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One row; `lines` are the scores of a rule, `level` is the y of their threshold."""

    name: str
    about: str
    y: float
    height: float
    marks: Sequence[Mark] = ()
    shots: Sequence[Shot] = ()
    dots: Sequence[Dot] = ()
    lines: Sequence[str] = ()
    level: float | None = None


class Trail(msgspec.Struct, kw_only=True):
    """One track as the tracker gives it again; times in ns."""

    camera: str
    number: int
    label: str
    start: int
    end: int
    best: float
    path: list[Point]

    def told(self, of: Explained) -> str:
        """The track in words."""
        span = f"{clock(self.start, of.zone)} to {clock(self.end, of.zone)}"
        return f"{self.label} {self.number}, at most {self.best:.2f}, {span}"


class Scale(msgspec.Struct, frozen=True):
    """Places times on the time line."""

    start: int
    end: int

    def x(self, time: int) -> float:
        """The place of a time, ns."""
        share = (time - self.start) / (self.end - self.start)
        return round(LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT), 1)

    def shows(self, start: int, end: int) -> bool:
        """Whether a span is on the time line."""
        return start < self.end and end > self.start


def trails(of: Explained) -> list[Trail]:
    """Tracks the objects of every camera again, by the tracker of fusion."""
    site = of.settings
    cameras = {name: camera.detect for name, camera in site.cameras.items()}
    still = site.stationary
    tracks = CameraTracks(cameras, ns(site.windows.horizon), ns(still.after), still.distance)
    found: dict[tuple[str, int], Trail] = {}
    for record in of.observations:
        frame = tracks.see(record) if isinstance(record, Detections) else None
        for track in () if frame is None else frame.tracks:
            known = found.get((record.source, track.id))
            if known is None:
                known = found[record.source, track.id] = Trail(
                    camera=record.source,
                    number=track.id,
                    label=track.label,
                    start=track.first_seen,
                    end=track.last_seen,
                    best=track.score,
                    path=list(track.path),
                )
            elif track.last_seen > known.end:
                known.path.append(track.feet)
            known.end, known.best = track.last_seen, max(known.best, track.score)
    return list(found.values())


class LaneMaker:
    """Makes the rows, each below the one before."""

    def __init__(self, of: Explained, scale: Scale, trails_: Sequence[Trail]) -> None:
        self._of, self._scale, self._trails = of, scale, trails_
        self._y = 0.0

    @property
    def height(self) -> float:
        """The height of all rows so far."""
        return self._y

    def lanes(self) -> Iterator[Lane]:
        """Yields all rows."""
        site = self._of.settings
        for name in site.cameras:
            if self._of.pictures.get(name):
                yield self._pictures(name)
            yield self._tracks(name)
        for name in site.microphones:
            yield self._loudness(name)
        yield from self._words(site)
        yield from self._rules()
        yield self._alerts()

    def _next(self, height: float) -> float:
        y, self._y = self._y, self._y + height
        return y

    def _mark(self, start: int, end: int, y: float, height: float, kind: str, text: str) -> Mark:
        x = self._scale.x(start)
        width = max(round(self._scale.x(end) - x, 1), 2)
        return Mark(x=x, y=y, width=width, height=height, kind=kind, text=text)

    def _pictures(self, camera: str) -> Lane:
        y = self._next(PICTURE_HIGH)
        high = PICTURE_HIGH - 6
        wide = round(high * 16 / 9)
        shots: list[Shot] = []
        for each in self._of.pictures[camera]:
            x = self._scale.x(each.time)
            free = not shots or x >= shots[-1].x + wide
            if self._scale.shows(each.time, each.time + 1) and free and x + wide <= RIGHT + 8:
                text = clock(each.time, self._of.zone)
                shots.append(Shot(x=x, y=y, width=wide, height=high, picture=each, text=text))
        return Lane(name=camera, about="pictures", y=y, height=PICTURE_HIGH, shots=shots)

    def _tracks(self, camera: str) -> Lane:
        of, scale = self._of, self._scale
        mine = [
            one
            for one in self._trails
            if one.camera == camera and scale.shows(one.start, one.end + 1)
        ]
        free: list[int] = []  # by row, when its last bar ended
        placed: list[tuple[int, Trail]] = []
        for one in sorted(mine, key=lambda one: (one.start, one.number)):
            row = next((n for n, end in enumerate(free) if end < one.start), len(free))
            row = min(row, MOST_ROWS - 1)
            free[row : row + 1] = [one.end]
            placed.append((row, one))
        height = max(LOW, TRACK_HIGH * (len(free) or 1) + 8)
        y = self._next(height)
        marks = [
            self._mark(start, end, y, height - 4, kind, text)
            for kind, text, spans in (
                ("gated", "nobody looked: nothing moves", self._gated(camera)),
                ("gone", "lost", self._lost(camera)),
            )
            for start, end in spans
        ]
        for row, one in placed:
            top = y + 2 + row * TRACK_HIGH
            marks.append(
                self._mark(one.start, one.end + 1, top, TRACK_HIGH - 2, "seen", one.told(of))
            )
        return Lane(name=camera, about="tracks", y=y, height=height, marks=marks)

    def _gated(self, camera: str) -> list[tuple[int, int]]:
        spans = [
            (one.start, one.end)
            for one in self._of.observations
            if isinstance(one, Detections) and one.source == camera and one.gated
        ]
        return _joined(spans, SECOND // 4)

    def _lost(self, source: str) -> list[tuple[int, int]]:
        times = sorted(self._of.lost.get(source, ()))
        return _joined([(time, time + SECOND) for time in times], 3 * SECOND)

    def _loudness(self, microphone: str) -> Lane:
        y = self._next(LOW)
        heard = [
            one
            for one in self._of.observations
            if isinstance(one, Sound) and one.source == microphone
            and self._scale.shows(one.start, one.end)
        ]  # fmt: skip
        marks = [
            self._mark(start, end, y, LOW - 4, "gone", "lost")
            for start, end in self._lost(microphone)
        ]
        for one in _thinned(heard):
            share = (one.loudness_db - QUIET_DB) / (LOUD_DB - QUIET_DB)
            high = round(min(max(share, 0.02), 1.0) * (LOW - 6), 1)
            best = max(one.labels.items(), key=lambda item: item[1], default=("", 0.0))
            sounds = f", {best[0]} {best[1]:.2f}" if best[1] >= 0.1 else ""
            text = f"{clock(one.start, self._of.zone)} {one.loudness_db:.0f} dBFS{sounds}"
            text += ", not heard: the usual noise alone" if one.gated else ""
            kind = "gated" if one.gated else "level"
            marks.append(self._mark(one.start, one.end, y + LOW - 4 - high, high, kind, text))
        return Lane(name=microphone, about="loudness", y=y, height=LOW, marks=marks)

    def _words(self, site: Site) -> Iterator[Lane]:
        sources = [(f"{name}/speech", "said") for name in site.microphones]
        for source, kind in [*sources, (REPORTS_SOURCE, "reported")]:
            words = [
                one
                for one in self._of.observations
                if isinstance(one, Utterance | Described) and one.source == source
            ]
            if not words:
                continue
            y = self._next(LOW)
            marks = [
                self._mark(
                    one.start,
                    max(one.end, one.start + SECOND // 2),
                    y + 4,
                    LOW - 10,
                    kind,
                    one.text,
                )
                for one in words
                if self._scale.shows(one.start, one.end)
            ]
            yield Lane(name=source, about="words", y=y, height=LOW, marks=marks)

    def _rules(self) -> Iterator[Lane]:
        of = self._of
        fired: dict[tuple[str, str], dict[int, str]] = {}
        for one in of.anomalies:
            text = f"{clock(one.start, of.zone)} fired: {one.what or one.label} ({one.score:.2f})"
            fired.setdefault((one.rule, one.source), {})[one.start // SECOND] = text
        refused = by_second(of.refusals, of.rules)
        keys = sorted({*fired, *refused}, key=lambda key: (of.rules.index(key[0]), key[1]))
        for rule, source in keys:
            yield self._rule(
                rule, source, fired.get((rule, source), {}), refused.get((rule, source), [])
            )

    def _rule(
        self, rule: str, source: str, fired: Mapping[int, str], refused: Sequence[Refusal]
    ) -> Lane:
        of, scale = self._of, self._scale
        y = self._next(RULE_HIGH)
        top, bottom = y + 12, y + RULE_HIGH - 10
        points: dict[int, tuple[float, Refusal | None]] = {}
        step = max(1, -(-(scale.end - scale.start) // SECOND // MOST_POINTS))
        for one in refused:
            second = one.start // SECOND // step * step
            share = nearness(one)
            if second not in points or share > points[second][0]:
                points[second] = share, one
        for second in fired:
            points[second // step * step] = 1.0, None
        dots, runs = [], list[list[str]]()
        last = None
        for second, (share, refusal) in sorted(points.items()):
            time = second * SECOND + step * SECOND // 2
            if not scale.shows(time, time + 1):
                continue
            place = scale.x(time), round(bottom - share * (bottom - top), 1)
            if last is None or second - last > step:
                runs.append([])
            runs[-1].append(f"{place[0]},{place[1]}")
            last = second
            if refusal is None:
                text = next(t for s, t in fired.items() if s // step * step == second)
                dots.append(Dot(x=place[0], y=place[1], kind="fired", text=text))
            else:
                kind = "near" if refusal.near and refusal.reason not in USUAL else "far"
                text = f"{clock(refusal.start, of.zone)} {cause_line(refusal)}"
                dots.append(Dot(x=place[0], y=place[1], kind=kind, text=text))
        about = "all sources" if source == "window" else source
        lines = [" ".join(run) for run in runs]
        return Lane(
            name=rule, about=about, y=y, height=RULE_HIGH, dots=dots, lines=lines, level=top
        )

    def _alerts(self) -> Lane:
        y = self._next(LOW)
        marks = []
        for alert in self._of.alerts:
            if self._scale.shows(alert.time, alert.time + 1):
                text = (
                    f"{clock(alert.time, self._of.zone)} {alert.state}: {', '.join(alert.labels)}"
                )
                x = self._scale.x(alert.time) - 5
                mark = Mark(x=x, y=y + 4, width=10, height=LOW - 10, kind=alert.state, text=text)
                marks.append(msgspec.structs.replace(mark, link=f"#incident-{alert.id}"))
        return Lane(name="alerts", about="", y=y, height=LOW, marks=marks)


def nearness(refusal: Refusal) -> float:
    """How near a rule came, 0 to less than 1: the score as a part of its threshold. Where something
    else stood in the way, it is 0.9 if that alone did, and else little. What is usual is no miss.
    """
    if refusal.reason in USUAL:
        return 0.05
    if refusal.share < 1:
        return min(refusal.share, 0.97)
    return 0.9 if refusal.near else 0.1


def _joined(spans: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _thinned(heard: Sequence[Sound]) -> Sequence[Sound]:
    """The loudest of each few seconds, where there are very many."""
    step = max(1, -(-len(heard) // MOST_POINTS))
    return [
        max(heard[at : at + step], key=lambda one: one.loudness_db)
        for at in range(0, len(heard), step)
    ]
