"""The features of a window for a fusion head: one vector per modality, with presence and quality.

The daemon and the training data use the same code (`workers/training/feature_extraction.py` replays
scenes through the same stage). Vision has only counts, speeds, zones and quality: no picture and no
embedding of one, so a head cannot learn what a room looks like. Every number is rounded to float16,
as in the data files, so a head gets exactly the numbers in the daemon that it was trained on.

What behaviours see needs poses, and many cameras have none. `known` says whether a person of the
window has one; without it all numbers of behaviours are 0, and a head does as if they were not
there.

`SCHEMA` names the layout; a head trained on another layout is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.fusion.behaviour_features import BEHAVIOURS, behaviours
from models.fusion.labels import MODALITIES
from models.fusion.query import FrameSummary, HeadQuery, Object
from models.hearing.waveform import QUIET_DB
from models.hearing.yamnet_features import CLASSES
from models.hearing.yamnet_features import features as log_odds
from pipeline.behaviour.evidence import Evidence
from pipeline.config.rule_kinds import WORD_MODALITIES
from pipeline.judge.rules import VISION, RuleFinding, TrackedFrame
from pipeline.sources import REPORTS_SOURCE, is_speech_source
from pipeline.tracking.track import Track
from pipeline.types import (
    SECOND,
    Described,
    Detections,
    Observation,
    Presence,
    Sound,
    Utterance,
    Window,
)
from pipeline.zones import Polygon, feet

TEXT_SIZE = 384  # numbers of a sentence embedding (all-MiniLM-L6-v2)
STATES = (Presence.PRESENT, Presence.SILENT, Presence.LOST)
SPEED_OVER = SECOND // 2  # ns; a speed is measured over this part of a path
_GROUPS = {
    "person": "person",
    **dict.fromkeys(("bicycle", "car", "motorcycle", "bus", "truck", "train", "boat"), "vehicle"),
    **dict.fromkeys(("bird", "cat", "dog", "horse", "sheep", "cow", "bear"), "animal"),
    **dict.fromkeys(("backpack", "handbag", "suitcase"), "bag"),
}
GROUPS = ("person", "vehicle", "animal", "bag", "other")

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vision": (
            *(f"most.{group}" for group in GROUPS),  # log1p of the most in one frame
            *(f"mean.{group}" for group in GROUPS),  # log1p of the mean over frames
            "speed.most",  # log1p of heights of the object a second
            "speed.mean",
            "motion",  # log1p of 100 * sum over objects of area * speed^2, mean over frames
            "zone.most",  # log1p of the most objects in zones, in one frame
            "zone.mean",
            "forbidden.most",  # the highest score of a vision rule's finding: 0 outside schedules
            "forbidden.share",  # of the window's seconds
            "still.share",  # of the objects
            "luma.mean",  # 0 to 1; -1 where it was not measured
            "luma.least",
            "sharpness.mean",
            "frames",  # log1p of frames a second
            "stale",  # s since the newest frame's end, over the window's length
            *(f"behaviour.{name}" for name in BEHAVIOURS),
        ),
        "sound": (
            *(f"yamnet.{number}" for number in range(CLASSES)),  # log odds / 8, highest second
            "loudness.most",  # dBFS / 60
            "loudness.mean",
            "onset",  # largest rise between two seconds of one microphone, dB / 30
            "clipped",  # share of samples, highest second
            "floor",  # dBFS / 60 of the lowest noise floor
            "stale",
        ),
        "speech": (
            *(f"text.{number}" for number in range(TEXT_SIZE)),
            "confidence",
            "count",
            "stale",
        ),
        "report": (*(f"text.{number}" for number in range(TEXT_SIZE)), "count", "stale"),
    }
)
SIZES: Mapping[str, int] = MappingProxyType({m: len(names) for m, names in NAMES.items()})
KNOWN = NAMES["vision"].index("behaviour.known")  # from there on, vision's numbers are behaviours
VERSION = 2  # raise it when the meaning of a feature changes but its name does not
MAX_FLOAT16 = 65504.0  # the largest number of float16


def schema(names: Mapping[str, Sequence[str]], version: int) -> str:
    """Returns the id of a layout, which changes with any name, its position or the version."""
    layout = "\n".join(f"{m}:{','.join(some)}" for m, some in names.items())
    return f"{version}-{hashlib.sha256(layout.encode()).hexdigest()[:12]}"


SCHEMA = schema(NAMES, VERSION)
ANEW = (  # how to come from another layout to this one
    "make its windows anew (`fusewatch features` for scenes, `fusewatch export` for alerts, with "
    "their review) and train on the shipped head (`fusewatch train`), or use `head: shipped`; "
    "`make head` makes the shipped one"
)

Floats = NDArray[np.float32]


class Tokens(msgspec.Struct, frozen=True):
    """A window's features: a vector for each modality that has data, and each modality's state."""

    vectors: Mapping[str, Floats]
    states: Mapping[str, Presence]

    def without(self, *modalities: str) -> Tokens:
        """Returns the same window with these modalities lost."""
        return Tokens(
            {m: vector for m, vector in self.vectors.items() if m not in modalities},
            {m: Presence.LOST if m in modalities else s for m, s in self.states.items()},
        )

    def replaced(self, modality: str, vector: Floats) -> Tokens:
        """Returns the same window with another vector of a modality."""
        return Tokens({**self.vectors, modality: vector}, self.states)


def frame_summary(
    seen: TrackedFrame, zones: Sequence[Polygon], behaviour: Evidence | None = None
) -> FrameSummary:
    """Summarizes a frame's tracks for a head; only objects seen in this frame count.

    In a gated frame these are the objects of the last look, at the same place. `behaviour` is what
    behaviours see in the frame, if the camera has poses.
    """
    return FrameSummary(
        source=seen.source,
        start=seen.start,
        end=seen.end,
        objects=tuple(
            Object(
                group=_GROUPS.get(track.label, "other"),
                speed=_speed(track),
                area=(track.box.x2 - track.box.x1) * (track.box.y2 - track.box.y1),
                in_zone=any(zone.contains(*feet(track.box)) for zone in zones),
                still=track.id in seen.still,
            )
            for track in seen.tracks
            if track.last_seen == seen.start
        ),
        luma=seen.luma,
        sharpness=seen.sharpness,
        behaviour=behaviour,
    )


def _speed(track: Track) -> float:
    """Returns the speed in heights per second over the last half second of the path."""
    here = track.feet
    before = next((p for p in reversed(track.path) if here.time - p.time >= SPEED_OVER), None)
    before = before or track.path[0]
    if before.time >= here.time:
        return 0.0
    gone = math.hypot((here.x - before.x) * track.aspect, here.y - before.y)
    height = max(track.box.y2 - track.box.y1, 1e-3)
    return min(gone / height / ((here.time - before.time) / SECOND), 20.0)


def tokens(question: HeadQuery) -> Tokens:
    """Returns the vectors of a window, float16 values in float32.

    A modality without data has no vector; an embedding of a wrong size or with NaN counts as no
    data.
    """
    window = question.window
    by_kind: dict[type, list[Observation]] = {}
    for observation in window.observations:
        by_kind.setdefault(type(observation), []).append(observation)
    made = {
        "vision": _vision(question, by_kind.get(Detections, [])),
        "sound": _sound(window, by_kind.get(Sound, [])),
        "speech": _speech(window, by_kind.get(Utterance, [])),
        "report": _report(window, by_kind.get(Described, [])),
    }
    vectors = {m: _rounded(vector) for m, vector in made.items() if vector is not None}
    return Tokens(vectors, {m: _state(m, m in vectors, window) for m in MODALITIES})


def arrays(batch: Sequence[Tokens]) -> dict[str, Floats]:
    """Returns a network's inputs: `[n, SIZES[m]]` per modality, zero without data, and `state`.

    `state` is `[n, 4, 3]`: present, silent or lost, one-hot, in the order of MODALITIES.
    """
    out = {m: np.zeros((len(batch), SIZES[m]), np.float32) for m in MODALITIES}
    state = np.zeros((len(batch), len(MODALITIES), len(STATES)), np.float32)
    for row, one in enumerate(batch):
        for column, modality in enumerate(MODALITIES):
            if modality in one.vectors:
                out[modality][row] = one.vectors[modality]
            state[row, column, STATES.index(one.states[modality])] = 1
    return {**out, "state": state}


def _rounded(values: Iterable[float] | Floats) -> Floats:
    # A record may hold any finite number, but the network must not get infinity.
    bounded = np.clip(np.asarray(values, np.float32), -MAX_FLOAT16, MAX_FLOAT16)
    return bounded.astype(np.float16).astype(np.float32)


def _state(modality: str, present: bool, window: Window) -> Presence:
    if present:
        return Presence.PRESENT
    # A modality that is neither speech nor report looks at all other sources.
    known = [
        state
        for source, state in window.presence.items()
        if (
            is_speech_source(source)
            if modality == "speech"
            else source == REPORTS_SOURCE
            if modality == "report"
            else not is_speech_source(source) and source != REPORTS_SOURCE
        )
    ]
    # A present source without words is silent; without any source the modality is lost.
    heard = any(state is not Presence.LOST for state in known)
    return Presence.SILENT if heard and modality in WORD_MODALITIES else Presence.LOST


def _stale(window: Window, observations: Sequence[Observation]) -> float:
    latest = max(observation.end for observation in observations)
    return max(0, window.end - latest) / (window.end - window.start)


def _vision(question: HeadQuery, frames: Sequence[Observation]) -> list[float] | None:
    if not frames:
        return None
    window, sights = question.window, question.sights
    seen = [frame_summary.objects for frame_summary in sights] or [()]
    counts = np.array([[sum(o.group == g for o in objects) for g in GROUPS] for objects in seen])
    speeds = [o.speed for objects in seen for o in objects] or [0.0]
    motion = [sum(100 * o.area * o.speed**2 for o in objects) for objects in seen]
    zoned = [sum(o.in_zone for o in objects) for objects in seen]
    still = [o.still for objects in seen for o in objects] or [False]
    forbidden = [f for f in question.findings if f.modality == VISION]
    seconds = {at for f in forbidden for at in _seconds(f, window)}
    lights = _lights(question, frames)
    lumas = [light.luma for light in lights if light.luma >= 0] or [-1.0]
    sharp = [light.sharpness for light in lights if light.sharpness >= 0] or [-1.0]
    length = (window.end - window.start) / SECOND
    return [
        *np.log1p(counts.max(axis=0)),
        *np.log1p(counts.mean(axis=0)),
        math.log1p(max(speeds)),
        math.log1p(sum(speeds) / len(speeds)),
        math.log1p(sum(motion) / len(motion)),
        math.log1p(max(zoned)),
        math.log1p(sum(zoned) / len(zoned)),
        max((f.score for f in forbidden), default=0.0),
        len(seconds) / max(math.ceil(length), 1),
        sum(still) / len(still),
        sum(lumas) / len(lumas),
        min(lumas),
        sum(sharp) / len(sharp),
        math.log1p(len(frames) / length),
        _stale(window, frames),
        *behaviours(sights),
    ]


def _lights(question: HeadQuery, frames: Sequence[Observation]) -> list[Detections | FrameSummary]:
    """Returns what has the luma and sharpness of each frame; a gated one has those of the last
    look."""
    last = {(sight.source, sight.start): sight for sight in question.sights}
    seen = [frame for frame in frames if isinstance(frame, Detections)]
    return [last.get((f.source, f.start), f) if f.gated else f for f in seen]


def _seconds(finding: RuleFinding, window: Window) -> range:
    first, last = max(finding.start, window.start), min(finding.end, window.end)
    return range((first - window.start) // SECOND, max(last - 1 - window.start, 0) // SECOND + 1)


def _sound(window: Window, heard: Sequence[Observation]) -> Floats | None:
    sounds = [s for s in heard if isinstance(s, Sound)]
    scores = [(s, vector) for s in sounds if (vector := _vector(s.embedding, CLASSES)) is not None]
    if not scores and not any(s.gated and s.labels for s in sounds):
        return None  # a model that is absent gives no labels
    # A second that is almost silent or gated carries no information: its scores are those of
    # silence.
    loud = [vector for s, vector in scores if s.loudness_db >= QUIET_DB]
    highest = np.max(loud, axis=0) if loud else np.zeros(CLASSES, np.float32)
    levels = [s.loudness_db for s in sounds]
    by_room: dict[str, list[Sound]] = {}
    for s in sounds:
        by_room.setdefault(s.source, []).append(s)
    rises = [
        after.loudness_db - before.loudness_db
        for room in by_room.values()
        for before, after in pairwise(room)
    ]
    return np.concatenate(
        [
            log_odds(np.clip(highest, 0, 1)) / 8,
            np.array(
                [
                    max(levels) / 60,
                    sum(levels) / len(levels) / 60,
                    max(0.0, *rises, 0.0) / 30,
                    max(s.clipped for s in sounds),
                    min(s.floor_db for s in sounds) / 60,
                    _stale(window, sounds),
                ],
                np.float32,
            ),
        ]
    )


def _speech(window: Window, said: Sequence[Observation]) -> Floats | None:
    words = [u for u in said if isinstance(u, Utterance)]
    mean = _meaning([u.embedding for u in words])
    if mean is None:
        return None
    sure = max(u.confidence for u in words)
    rest = np.array([sure, math.log1p(len(words)), _stale(window, words)], np.float32)
    return np.concatenate([mean, rest])


def _report(window: Window, told: Sequence[Observation]) -> Floats | None:
    mean = _meaning([d.embedding for d in told if isinstance(d, Described)])
    if mean is None:
        return None
    return np.concatenate([mean, np.array([math.log1p(len(told)), _stale(window, told)])])


def _meaning(embeddings: Sequence[bytes]) -> Floats | None:
    """Returns the mean direction of all sentences, of length 1."""
    vectors = [v for e in embeddings if (v := _vector(e, TEXT_SIZE)) is not None]
    if not vectors:
        return None
    mean = np.mean(vectors, axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length else mean, np.float32)


def _vector(data: bytes, size: int) -> Floats | None:
    if len(data) != 2 * size:
        return None
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    return vector if bool(np.isfinite(vector).all()) else None
