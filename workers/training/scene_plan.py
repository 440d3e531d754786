"""Plans the scenes: deals their properties from a shuffled deck, so that the shares always hold.

Pure: the same arguments give the same slots. `scene_mixer.py` fills the scenes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from models.fusion.labels import LABELS, SPLITS
from pipeline.errors import ConfigError
from workers.training.clip_manifest import Clip, Manifest, Spans

INTRUSION = "intrusion"
SHARE_OF_PAIRS = 0.5  # planned share of anomalies that show in two modalities
PROMISED = 1 / 3  # guaranteed share of them
SHARE_OF_TWO = 0.25  # share of the scenes with an anomaly that have two
ROOM_FOR_ANOMALY = 12  # s; least time per anomaly in a scene with two
MIN_INTRUSION = 3.0  # s; shortest appearance of an intruder
EMPTY_MARGIN = 1.0  # s around an appearance that do not count as empty
SHARES = {"dead": 0.1, "black": 0.1, "dark": 0.1}
NOISE = {"low": 0.15, "high": 0.35, "": 0.5}  # shares by signal-to-noise ratio; "": no noise

T = TypeVar("T")


class Film(msgspec.Struct, frozen=True, kw_only=True):
    """A site's video over a scene: when a person is visible (s), and when certainly nobody is."""

    site: str
    clip: Clip
    loop: bool
    visible: Spans
    empty: Spans


class PlannedAnomaly(msgspec.Struct, frozen=True, kw_only=True):
    """A planned anomaly: within [start, end) of the scene, in these modalities."""

    label: str
    shows: tuple[str, ...]
    start: float
    end: float


class PlannedScene(msgspec.Struct, frozen=True, kw_only=True):
    """A planned scene."""

    number: int
    split: str
    film: Film
    closed: bool
    dead: bool
    black: bool
    dark: bool
    noise: str
    quiet: bool
    parts: tuple[PlannedAnomaly, ...]


class SceneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `compose`."""

    scenes: int
    seed: int
    duration: float = 30.0  # s
    anomalies: float = 0.5
    splits: tuple[float, ...] = (60.0, 15.0, 25.0)  # train, val, test
    quiet: bool = False


def shuffled_by_share(rng: np.random.Generator, count: int, shares: Mapping[T, float]) -> list[T]:
    """Deals `count` cards by their shares (largest remainder first), shuffled."""
    total = sum(shares.values())
    exact = {card: count * share / total for card, share in shares.items()}
    each = {card: math.floor(number + 1e-9) for card, number in exact.items()}
    by_rest = sorted(exact, key=lambda card: each[card] - exact[card])
    for card in by_rest[: count - sum(each.values())]:
        each[card] += 1
    cards = [card for card, number in each.items() for _ in range(number)]
    return [cards[i] for i in rng.permutation(len(cards))]


def slots(order: SceneSpec, manifest: Manifest, films: Sequence[Film]) -> list[PlannedScene]:
    """Returns every scene's slot, by number; raises ConfigError for a manifest that lacks clips."""
    rng = np.random.default_rng([order.seed])
    shares = dict(zip(SPLITS, order.splits, strict=True))
    names = shuffled_by_share(rng, order.scenes, {"test": 1.0} if order.quiet else shares)
    made = [
        slot
        for split in SPLITS
        for slot in _split(
            order, manifest, films, split, [i for i, s in enumerate(names) if s == split], rng
        )
    ]
    return sorted(made, key=lambda slot: slot.number)


def _split(
    order: SceneSpec,
    manifest: Manifest,
    films: Sequence[Film],
    split: str,
    numbers: Sequence[int],
    rng: np.random.Generator,
) -> list[PlannedScene]:
    count = len(numbers)
    if not count:
        return []
    mine = [film for film in films if film.clip.split in (split, "")]
    _fillable(manifest, mine, split, quiet=order.quiet)
    anomalous = 0.0 if order.quiet else order.anomalies
    yes = {
        name: shuffled_by_share(rng, count, {True: share, False: 1 - share})
        for name, share in {**SHARES, "closed": 0.5, "anomalous": anomalous}.items()
    }
    twice = iter(
        shuffled_by_share(rng, sum(yes["anomalous"]), {2: SHARE_OF_TWO, 1: 1 - SHARE_OF_TWO})
    )
    sites = shuffled_by_share(rng, count, dict.fromkeys(range(len(mine)), 1.0))
    noise = shuffled_by_share(rng, count, NOISE)
    empty = [
        PlannedScene(
            number=numbers[i],
            split=split,
            film=mine[sites[i]],
            closed=yes["closed"][i],
            dead=yes["dead"][i] and not order.quiet,
            black=yes["black"][i],
            dark=yes["dark"][i],
            noise=noise[i],
            quiet=order.quiet,
            parts=(),
        )
        for i in range(count)
    ]
    wanted = [
        (slot, start, end)
        for slot, anomalous in zip(empty, yes["anomalous"], strict=True)
        if anomalous
        for start, end in _rooms(order.duration, next(twice))
    ]
    parts = _parts(wanted, manifest, split, rng)
    return [
        msgspec.structs.replace(slot, parts=tuple(parts.get(slot.number, ()))) for slot in empty
    ]


def _rooms(duration: float, count: int) -> Iterator[tuple[float, float]]:
    """Yields the time spans of a scene's anomalies, one after the other."""
    count = count if duration >= count * ROOM_FOR_ANOMALY else 1
    for i in range(count):
        yield i * duration / count, (i + 1) * duration / count


def _parts(
    wanted: Sequence[tuple[PlannedScene, float, float]],
    manifest: Manifest,
    split: str,
    rng: np.random.Generator,
) -> dict[int, list[PlannedAnomaly]]:
    """Returns parts by scene number; the rarest kind first, pairs until their quota is met."""
    heard = {clip.label for clip in manifest.of(split, "sound", "speech")} - {""}
    told = {clip.label for clip in manifest.of(split, "report")} - {""}
    used: Counter[tuple[str, str, bool]] = Counter()
    labels: Counter[str] = Counter()
    parts: dict[int, list[PlannedAnomaly]] = {}
    pairs = math.ceil(SHARE_OF_PAIRS * len(wanted))
    for place in rng.permutation(len(wanted)):
        slot, start, end = wanted[place]
        taken = {part.label for part in parts.get(slot.number, [])}
        ways = {
            label: shows
            for label in LABELS
            if label not in taken
            and (shows := _shows(label, slot, (start, end), heard=heard, told=told))
        }
        double = {label: shows for label, shows in ways.items() if len(shows) > 1}
        if not ways:
            continue
        pair = pairs > 0 and bool(double)
        kinds = [(label, shows[0], pair) for label, shows in (double if pair else ways).items()]
        count = {kind: 2 * used[kind] + labels[kind[0]] for kind in kinds}
        tied = [kind for kind in kinds if count[kind] == min(count.values())]
        kind = tied[int(rng.integers(len(tied)))]
        label = kind[0]
        shows = ways[label]
        if pair:
            pairs -= 1
        elif len(shows) > 1:  # only sound or picture, sometimes only the words
            shows = shows[1:] if rng.random() < 0.15 else shows[:1]
        used[kind] += 1
        labels[label] += 1
        parts.setdefault(slot.number, []).append(
            PlannedAnomaly(label=label, shows=shows, start=start, end=end)
        )
    return {number: sorted(all_, key=lambda part: part.start) for number, all_ in parts.items()}


def _shows(
    label: str, slot: PlannedScene, room: tuple[float, float], *, heard: set[str], told: set[str]
) -> tuple[str, ...]:
    """Returns all modalities in which an anomaly of `label` can show in that span of the scene."""
    shows: list[str] = []
    if label == INTRUSION and slot.closed and appearances(slot.film, room):
        shows.append("vision")
    elif label in heard and not slot.dead:
        shows.append("sound")
    if label in told:
        shows.append("report")
    return tuple(shows)


def appearances(film: Film, room: tuple[float, float]) -> list[tuple[float, float]]:
    """Returns when a person is visible for long enough within `room`."""
    cut = [(max(a, room[0]), min(b, room[1])) for a, b in film.visible]
    return [(a, b) for a, b in cut if b - a >= MIN_INTRUSION]


def _fillable(manifest: Manifest, films: Sequence[Film], split: str, *, quiet: bool) -> None:
    """Raises ConfigError for a split that lacks clips for its scenes."""
    sounds = manifest.of(split, "sound", "speech")
    reports = manifest.of(split, "report")
    lacks = [
        what
        for what, there in (
            ("video", bool(films)),
            ("ordinary sound", any(not clip.label for clip in sounds)),
            ("ordinary report", any(not clip.label for clip in reports)),
            ("sound with a label", quiet or any(clip.label for clip in sounds)),
            ("report with a label", quiet or any(clip.label for clip in reports)),
        )
        if not there
    ]
    if lacks:
        what = "; ".join(f"has no {each}" for each in lacks)
        msg = f"{manifest.file}: the split `{split}` {what}"
        raise ConfigError(msg)
