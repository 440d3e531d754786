"""`fusewatch compose`: makes labelled scene files from a folder of clips.

The scenes are composed, not recorded: say so with every figure that comes from them. The same
media, manifest, seed and arguments give the same bytes. `scene_plan.py` selects the content,
`scene_mixer.py` places it, `scene_writer.py` writes it.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count, pairwise
from pathlib import Path

import numpy as np

from models.fusion.labels import SPLITS
from models.hearing.waveform import RATE, Samples
from pipeline.errors import ConfigError
from workers.media import recordings
from workers.training import scene_writer
from workers.training.clip_manifest import BUILT_IN, Clip, Manifest, Spans, manifest_path, read
from workers.training.scene_mixer import ClipLevels, SceneRow, mixed
from workers.training.scene_plan import EMPTY_MARGIN, PROMISED, Film, SceneSpec, slots
from workers.training.scene_writer import Composed

MAX_SCENES = 100_000  # scenes
MIN_DURATION, MAX_DURATION = 10.0, 3600.0  # s of a scene
MAX_LISTENED = 60  # s of a clip that are measured
LOUDNESS_FRAME = RATE // 20  # samples, 50 ms
HEARD_WITHIN_DB = 20.0  # dB; a clip is audible down to this much below its loudest 50 ms
SITE_OF_FILM = {"office_a": "office", "Retail02_short": "retail", "vtest_first25s": "plaza"}


def compose(  # noqa: PLR0913
    media: Path,
    out: Path,
    *,
    scenes: int,
    seed: int,
    manifest: Path | None = None,
    duration: float = 30.0,
    anomalies: float = 0.5,
    splits: Sequence[float] = (60, 15, 25),
    quiet: bool = False,
) -> Composed:
    """Writes `scenes` labelled scenes of the clips in `media` to the folder `out`.

    `splits` are the shares of train, val and test; `quiet` makes only normal scenes, of held-out
    (test) clips. Raises ConfigError for wrong arguments, a faulty manifest, or an `out` with files
    that `compose` did not write.
    """
    order = _checked(
        SceneSpec(
            scenes=scenes,
            seed=seed,
            duration=duration,
            anomalies=0.0 if quiet else anomalies,
            splits=tuple(map(float, splits)),
            quiet=quiet,
        )
    )
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / "compose.json").is_file())
    ):
        msg = f"{out}: is not empty and not made by compose; choose another folder"
        raise ConfigError(msg)
    clips = read(manifest_path(media, manifest), media)
    films = _films(clips, order.duration)
    heard = functools.cache(lambda clip: _heard(clips.media / clip.path, clip))
    made = [
        mixed(slot, order.duration, clips, heard, np.random.default_rng([seed, slot.number]))
        for slot in slots(order, clips, films)
    ]
    told = _told(order, clips, [each.row for each in made])
    scene_writer.write(out, clips.media, [film.site for film in films], made, told)
    return told


def _checked(order: SceneSpec) -> SceneSpec:
    for wrong, what in (
        (not 1 <= order.scenes <= MAX_SCENES, f"--scenes must be 1 to {MAX_SCENES}"),
        (not 0 <= order.seed < 2**63, "--seed must be a whole number from 0 on"),
        (
            not MIN_DURATION <= order.duration <= MAX_DURATION,
            f"--duration must be {MIN_DURATION:g} to {MAX_DURATION:g} s",
        ),
        (not 0 <= order.anomalies <= 1, "--anomalies must be a share from 0 to 1"),
        (
            len(order.splits) != len(SPLITS)
            or not all(0 <= share < math.inf for share in order.splits)
            or sum(order.splits) <= 0,
            "--splits must be three shares of train, val and test: 60/15/25",
        ),
    ):
        if wrong:
            raise ConfigError(what)
    return order


def _films(clips: Manifest, duration: float) -> list[Film]:
    films: list[Film] = []
    for clip in clips.clips:
        if clip.kind != "video":
            continue
        lasts = float(recordings.video_length(clips.media / clip.path, whole=True))
        rounds = range(math.ceil(duration / lasts))
        visible = [
            (round(a + i * lasts, 3), round(min(b, lasts) + i * lasts, 3))
            for i in rounds
            for a, b in ([(0.0, lasts)] if clip.always else clip.visible)
            if a < lasts
        ]
        films.append(
            Film(
                site=_site(clip, {film.site for film in films}),
                clip=clip,
                loop=lasts < duration,
                visible=_within(_merged(visible), duration),
                empty=_within(_gaps(visible, duration), duration),
            )
        )
    return films


def _site(clip: Clip, taken: set[str]) -> str:
    stem = Path(clip.path).stem
    name = (
        SITE_OF_FILM.get(stem)
        or re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:32]
        or "site"
    )
    names = chain([name], (f"{name}-{i}" for i in count(2)))
    return next(each for each in names if each not in taken)


def _merged(spans: Sequence[tuple[float, float]]) -> Spans:
    """Returns spans in order; spans that touch are joined."""
    merged: list[tuple[float, float]] = []
    for a, b in spans:
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], b)
        else:
            merged.append((a, b))
    return tuple(merged)


def _gaps(spans: Sequence[tuple[float, float]], duration: float) -> Spans:
    """Returns when certainly nobody is in view: well before, between and after appearances."""
    ends = [-EMPTY_MARGIN, *(moment for span in spans for moment in span), duration + EMPTY_MARGIN]
    return tuple((a + EMPTY_MARGIN, b - EMPTY_MARGIN) for a, b in [*pairwise(ends)][::2])


def _within(spans: Spans, duration: float) -> Spans:
    cut = ((max(a, 0.0), min(b, duration)) for a, b in spans)
    return tuple((a, b) for a, b in cut if b > a)


def _heard(path: Path, clip: Clip) -> ClipLevels:
    """Returns the clip's length, and where 50 ms of it are within 20 dB of the loudest."""
    blocks: list[Samples] = []
    for block in recordings.sound(path, lambda *_: None):
        blocks.append(block)
        if sum(map(len, blocks)) > MAX_LISTENED * RATE:
            break
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    padded = np.pad(samples, (0, -len(samples) % LOUDNESS_FRAME)).reshape(-1, LOUDNESS_FRAME)
    power = np.mean(padded.astype(np.float64) ** 2, axis=1)
    if not len(power) or power.max() < 1e-12:
        msg = f"{path}: is silent"
        raise ConfigError(msg)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-HEARD_WITHIN_DB / 10))
    first, last = int(loud[0]), int(loud[-1]) + 1
    length = len(samples) / RATE
    return ClipLevels(
        length=length,
        start=first * LOUDNESS_FRAME / RATE,
        end=min(last * LOUDNESS_FRAME / RATE, length),
        level=round(float(10 * np.log10(power[first:last].mean())), 2),
    )


def _told(order: SceneSpec, clips: Manifest, rows: Sequence[SceneRow]) -> Composed:
    """Returns what was made; raises ConfigError if a promised share was not reached."""
    anomalies = [anomaly for row in rows for anomaly in row.anomalies]
    distractors = [distractor for row in rows for distractor in row.distractors]
    two = sum(len(anomaly.modalities) > 1 for anomaly in anomalies) / max(1, len(anomalies))
    one = sum(len(each.modalities) == 1 for each in distractors) / max(1, len(distractors))
    if (anomalies and two < PROMISED) or one < PROMISED:
        msg = (
            f"{two:.0%} of the anomalies show in two modalities, {one:.0%} of the distractors in "
            "one; a third is promised of each: give the splits more labels that have both sounds "
            "and reports, or make more scenes"
        )
        raise ConfigError(msg)
    return Composed(
        seed=order.seed,
        arguments={
            "scenes": order.scenes,
            "duration": order.duration,
            "anomalies": order.anomalies,
            "splits": list(order.splits),
            "quiet": order.quiet,
        },
        manifest="built-in" if clips.file == BUILT_IN else clips.file.name,
        manifest_sha256=clips.sha256,
        splits=_counted([row.split for row in rows]),
        sites=_counted([row.site for row in rows]),
        scenes_with_anomalies=sum(bool(row.anomalies) for row in rows),
        anomalies=_counted([anomaly.label for anomaly in anomalies]),
        modalities=_counted(["+".join(anomaly.modalities) for anomaly in anomalies]),
        distractors=len(distractors),
        anomalies_in_two_modalities=round(two, 4),
        distractors_in_one_modality=round(one, 4),
        seconds=order.scenes * order.duration,
    )


def _counted(words: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def summary(told: Composed) -> list[str]:
    """Returns a summary in a few lines for a person."""
    scenes = sum(told.splits.values())
    lines = [
        f"{scenes} scenes, {told.seconds / 60:g} min, seed {told.seed}: {_listed(told.splits)}",
        f"sites: {_listed(told.sites)}",
        f"{told.distractors} distractors, {told.distractors_in_one_modality:.0%} of them in one "
        "modality",
    ]
    if told.anomalies:
        lines += [
            f"{told.scenes_with_anomalies} scenes have anomalies: {_listed(told.anomalies)}",
            f"they show in: {_listed(told.modalities)}; "
            f"{told.anomalies_in_two_modalities:.0%} in two modalities",
        ]
    return lines


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "none"
