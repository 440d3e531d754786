"""Reads the inputs of a sweep once: what was observed, for how long, and what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, DecodeError
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, Observation, event_start
from workers.bus.history import History
from workers.bus.site_configs import in_force, read_configs
from workers.replay.inputs import Input, SceneInput, StoredInput
from workers.replay.observation_replay import span
from workers.replay.scene_file import read_scene
from workers.stages.encoders import Encoders
from workers.stored.selection import Selection
from workers.training import review
from workers.training.ground_truth import truth
from workers.tuning.judging import Observations
from workers.tuning.observing import SceneModels, observe, warn_of_losses
from workers.tuning.outcomes import Case, Event, Truth
from workers.tuning.stored_entries import EntryFile

BIN = 10 * SECOND  # ns; a span without any observation is not counted as watched

Heard = Callable[[int, int], None]  # ns of event time: done, and all


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """An input that can be judged; `count` is its number of records."""

    observations: Observations
    case: Case
    count: int


def truth_of(one: Input, reviewed: Truth | None) -> Truth | None:
    """Returns what is known of an input: the truth of its scene, else verdicts, else nothing.

    Raises ConfigError as `ground_truth.truth` does.
    """
    if isinstance(one, SceneInput) and _has_truth(one.path):
        spans = truth(one.scene)
        return Truth(events=tuple(Event(one.scene.site, *each) for each in spans))
    return reviewed


def _has_truth(path: Path) -> bool:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False  # a media file
    data, _ = read_scene(path)
    return isinstance(data, dict) and "truth" in data


def verdicts(file: Path) -> Truth:
    """Returns what people said of alerts (`fusewatch review`); raises ConfigError."""
    said = [alert for alert in review.alerts(file) if alert.verdict is not None]
    if not said:
        msg = f"--verdicts {file}: no alert is reviewed; `fusewatch review {file}` lists them"
        raise ConfigError(msg)

    def event(alert: review.Reviewed) -> Event:
        label = alert.label.partition(",")[0]
        return Event(alert.site, _ns(alert.start), _ns(alert.end), label)

    return Truth(
        events=tuple(event(alert) for alert in said if alert.verdict),
        wrong=tuple(event(alert) for alert in said if not alert.verdict),
    )


def _ns(time: str) -> int:
    return round(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp()) * SECOND


def ready(
    base: Config,
    configs: Sequence[Config],
    one: Input,
    known: Truth | None,
    file: Path,
    *,
    models: SceneModels,
    heard: Heard,
) -> Ready:
    """Writes what was observed into `file`. Scenes are seen and heard with the config `base`.

    `configs` will judge it; `models` are for scenes. Raises OutsideError and ConfigError.
    """
    with closing(EntryFile(file)) as out:
        if isinstance(one, StoredInput):
            return _stored(configs, one, known, out)
        return _scene(base, one, known, out, models.for_scenes(base), heard)


def _scene(
    base: Config,
    one: SceneInput,
    known: Truth | None,
    out: EntryFile,
    encoders: Encoders,
    heard: Heard,
) -> Ready:
    scene = one.scene
    observe(base, one, encoders, out.write, heard)
    start, end = one.selected.since or 0, one.selected.until or FOREVER
    since, until = max(scene.start, start), min(scene.end, end)
    if since >= until:
        msg = f"{one.path}: nothing of it lies between --since and --until"
        raise ConfigError(msg)
    return Ready(
        observations=Observations(file=str(out.path), since=since, until=until, recorded=True),
        case=Case(name=str(one.path), length=until - since, truth=_within(known, since, until)),
        count=out.count,
    )


def _stored(
    configs: Sequence[Config], one: StoredInput, known: Truth | None, out: EntryFile
) -> Ready:
    watched: set[int] = set()
    with one.opened() as stored:
        judged = one.span(stored)
        since, until = judged.since, judged.until
        for entry in _entries(stored, configs, since, until):
            kept = _kept(entry, one.selected)
            if kept is None:
                continue
            out.write(kept)
            time = _observed_at(kept)
            if time is not None and since <= time < until:
                watched.add(time // BIN)
        recorded = _recorded(stored, configs[0], since, until)
        warn_of_losses(one.path, stored)
    if not watched:
        msg = f"{one.path}: nothing that was observed then is stored"
        raise ConfigError(msg)
    return Ready(
        observations=Observations(
            file=str(out.path),
            since=since,
            until=until,
            recorded=recorded,
            sites=one.selected.sites,
        ),
        case=Case(
            name=str(one.path),
            length=len(watched) * BIN,
            truth=_within(known, since, until),
        ),
        count=out.count,
    )


def _entries(stored: History, configs: Sequence[Config], since: int, until: int) -> Iterator[Entry]:
    spans = [span(config, since, until) for config in configs]
    begin, end = min(begin for begin, _ in spans), max(end for _, end in spans)
    return stored.between(topics.OBSERVATIONS, begin, end)


def _recorded(stored: History, config: Config, since: int, until: int) -> bool:
    """Whether scenes were observed, in which no source is lost by its silence."""
    then = list(read_configs(entry.value for entry in stored.appended(topics.CONFIGS)))
    return any(
        each.recorded for site in config.sites for each in in_force(then, site, since, until)
    )


def _kept(entry: Entry, chosen: Selection) -> Entry | None:
    """What a selection of sources leaves of an entry; bytes that are no record stay."""
    if not chosen.sources or entry.fault:
        return entry
    try:
        record = codec.decode(entry.value)
    except DecodeError:
        return entry
    kept = chosen.kept(record)
    if kept is None or kept is record:
        return None if kept is None else entry
    return msgspec.structs.replace(entry, value=codec.encode(kept))


def _observed_at(entry: Entry) -> int | None:
    """When something was observed, ns; None for other entries."""
    try:
        record = codec.decode(entry.value)
    except DecodeError:
        return None
    return event_start(record) if isinstance(record, Observation) else None


def _within(known: Truth | None, since: int, until: int) -> Truth | None:
    """What is known of a span."""
    if known is None:
        return None
    events = tuple(each for each in known.events if each.start < until and each.end > since)
    wrong = known.wrong
    if wrong is not None:
        wrong = tuple(each for each in wrong if each.start < until and each.end > since)
        if not events and not wrong:
            return None
    return Truth(events=events, wrong=wrong)
