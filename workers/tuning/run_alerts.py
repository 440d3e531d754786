"""The alerts of a run: of a recording, as they were sent or judged again, or of a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.errors import ConfigError, DecodeError
from pipeline.types import Alert, event_start
from workers.config import loader
from workers.delivery.cloudevent import event_bytes
from workers.recordings.recording import Recording, open_recording
from workers.replay.again import FRAMES, Way
from workers.replay.diff import Incident, flat, incidents
from workers.replay.inputs import RECORDINGS, Given, SceneInput, resolve
from workers.replay.scene_replay import ReplayOptions, replay
from workers.replay.stored_replay import replay_stored
from workers.runtime.printable import printable
from workers.stored.chunks import Observed
from workers.stored.wanted_encoders import WantedEncoders
from workers.tuning.alert_files import read_alerts

log = logging.getLogger("fusewatch")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The alerts of one run, and what they are called; the name is empty where there is no file.

    `unseen` are the frames, (site, start in ns), that live models had no time to look at, where
    they are looked at now.
    """

    name: str
    incidents: Sequence[Incident] = ()
    unseen: Sequence[tuple[str, int]] = ()


def is_recording(path: Path) -> bool:
    """Whether a path is a recording: a file, or a folder of its files."""
    if path.is_dir():
        return any(path.glob(f"*{RECORDINGS}"))
    return path.suffix.lower() == RECORDINGS


def run_of(path: Path) -> Run:
    """Returns the alerts in a file, or those that a recording holds; raises as both do."""
    if not is_recording(path):
        return Run(name=str(path), incidents=read_alerts(path))
    recording = open_recording(path)
    found = incidents(_as_sent(_held(recording)))
    _warn(path, map(str, recording.losses))
    return Run(name=f"{path} (as recorded)", incidents=found)


def judged_run(
    path: Path, config: Path, *, origin: str, rules: str, models: WantedEncoders | None = None
) -> Run:
    """Returns the alerts of a recording, scene or media file, judged now by a config.

    `origin` and `rules` are as in `replay`; `models` are those of the config by default. Raises
    ConfigError and OutsideError.
    """
    settings = loader.load(config)
    alerts: list[Alert] = []
    for one in resolve(settings, config, Given(paths=[path]), rules=rules):
        if isinstance(one, SceneInput):
            encoders = models or WantedEncoders(
                cameras=bool(one.scene.cameras), microphones=bool(one.scene.microphones)
            )
            study = ReplayOptions(keep=one.selected.kept)
            alerts += replay(settings, one.scene, encoders.for_scenes(settings), study=study).alerts
        else:
            way = Way(origin=origin, selected=one.selected)
            again = replay_stored(settings, one, models or WantedEncoders(), way, rules=rules)
            alerts += again.alerts
            _warn(path, again.losses)
            _warn(path, [] if again.frames is None else again.frames.lines())
    seen_now = origin == FRAMES and is_recording(path)
    return Run(
        name=f"{path} (judged by {config})",
        incidents=incidents(_as_sent(alerts)),
        unseen=list(_unseen(open_recording(path))) if seen_now else (),
    )


def _unseen(recording: Recording) -> Iterator[tuple[str, int]]:
    start, end = recording.span
    observed = Observed.between(recording, start, end + 1)
    for entry in recording.appended(topics.FRAMES):
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            continue
        if observed.passed_over(record):
            yield record.site, event_start(record)


def _held(recording: Recording) -> Iterator[Alert]:
    """The alerts of a recording, without those of its run-up."""
    since = recording.about.since
    for entry in recording.appended(topics.ALERTS):
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            continue
        if isinstance(record, Alert) and (since is None or record.time >= since):
            yield record


def _as_sent(alerts: Iterator[Alert] | Sequence[Alert]) -> Iterator[dict[str, object]]:
    """The documents that subscribers get, cut as they are."""
    for alert in alerts:
        try:
            document = event_bytes(alert)
        except ValueError as error:
            msg = f"alert {alert.id}: {error}"
            raise ConfigError(msg) from error
        yield dict(flat(msgspec.json.decode(document)))


def _warn(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    for line in lines:
        log.warning("%s", printable(f"{path}: {line.strip()}"))
