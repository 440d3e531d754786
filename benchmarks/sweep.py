"""Measures `fusewatch sweep`: eight settings over one hour of observations.

    python -m benchmarks.sweep [--minutes 60] [--settings 8] [--profile]

The hour is made of the stored observations of recorded office scenes (real models on clips, see
`tests/golden/stored.py`), one after another with their times moved, in the log of a daemon. So the
rules, the tracker, the learned head and alerting do what they do live. The rival is what one does
without a sweep: `fusewatch replay --since` once for each setting; one such run is measured.
`--profile` prints where one setting spends its time.

CPU seconds are those of this process and its children. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.types import (
    SECOND,
    Mode,
    Progress,
    Record,
    Roster,
    SiteConfig,
    event_start,
    rfc3339,
)
from tests.golden import stored
from workers.bus.publish import publish_all
from workers.bus.site_configs import judging
from workers.cli import main as fusewatch
from workers.replay.inputs import Given, StoredInput, resolve
from workers.stages.encoders import Encoders, load_encoders
from workers.stages.site_plan import load_heads
from workers.tuning import judging as tuning
from workers.tuning.stored_entries import EntryFile
from workers.tuning.sweep import sweep

SCENES = ("office-after-hours", "office-break-in")  # of one site, so that the hour is one site's
CONFIG = stored.ROOT / "deploy/examples/office.yaml"
BEGIN = 1_767_650_400 * SECOND  # 2026-01-05T22:00:00Z
SETTING = "sites.office.rules.zone-floor.min_score"
AIM = 60  # s on two cores, for eight settings over one hour
MOVED = {Progress: ("upto",), Roster: ("start",), Mode: ("start", "until", "said")}


def hour(length: int) -> Iterator[Record]:
    """The records of `length` ns: the scenes one after another, without the end of each."""
    scenes = [list(records(name)) for name in SCENES]
    at = BEGIN
    while True:
        for scene in scenes:
            start = min(event_start(record) for record in scene if not isinstance(record, Progress))
            last = max(
                event_start(record) for record in scene if not isinstance(record, Progress | Roster)
            )
            spans = (last - start) // SECOND * SECOND + SECOND
            for record in scene:
                if event_start(record) > start + spans:
                    continue  # a promise beyond the end of the scene
                moved = _moved(record, at - start)
                if event_start(moved) < BEGIN + length:
                    yield moved
            at += spans
            if at >= BEGIN + length:
                return


def records(scene: str) -> Iterator[Record]:
    """The stored observations of a scene."""
    yield from (codec.decode(value) for _, value, _ in stored.read(scene).entries)


def _moved(record: Record, by: int) -> Record:
    names = MOVED.get(type(record), ("start", "end"))
    times = {name: getattr(record, name) for name in names}
    moved = {name: time + by for name, time in times.items() if time is not None}
    return msgspec.structs.replace(record, **moved)


def write(folder: Path, length: int) -> int:
    """Writes the log of a daemon; returns the number of records."""
    settings = stored.loader.load(CONFIG)
    configs: list[SiteConfig] = judging(settings, load_heads(settings), BEGIN, recorded=True)
    with closing(LocalLog(folder / "log", clock=time.time_ns)) as bus:
        publish_all(bus, topics.CONFIGS, configs)
        made = list(hour(length))
        for at in range(0, len(made), 5000):
            publish_all(bus, topics.OBSERVATIONS, made[at : at + 5000])
    return len(made)


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(folder: Path, length: int, settings: int, processes: int) -> dict[str, object]:
    """One sweep over the log."""
    given = _given(folder, length)
    values = ",".join(f"{0.6 + 0.05 * n:.2f}" for n in range(settings))
    began, used = time.monotonic(), cpu()
    swept = sweep(CONFIG, given, [f"{SETTING}={values}"], processes=processes)
    took, used = time.monotonic() - began, cpu() - used
    hours = length / SECOND / 3600
    return {
        "what": "sweep",
        "processes": processes or os.cpu_count(),
        "settings": settings,
        "hours": hours,
        "records": swept.observations,
        "incidents": [each.outcome.incidents for each in swept.tried],
        "seconds": round(took, 2),
        "cpu_seconds": round(used, 2),
        "cpu_seconds_a_setting_and_hour": round(used / settings / hours, 2),
        "times_real_time_a_setting": round(settings * length / SECOND / took, 1),
        "aim_seconds": AIM,
    }


def rival(folder: Path, length: int, settings: int) -> dict[str, object]:
    """One `fusewatch replay --since`, of which a person needs one for each setting."""
    given = _given(folder, length)
    words = ["replay", str(CONFIG), "--since", str(given.since), "--until", str(given.until)]
    words += ["--state", str(folder), "--out", str(folder / "out.jsonl"), "--json"]
    began, used = time.monotonic(), cpu()
    with redirect_stdout(io.StringIO()):
        code = fusewatch(words)
    took, used = time.monotonic() - began, cpu() - used
    return {
        "what": "replay --since, one setting",
        "code": code,
        "seconds": round(took, 2),
        "cpu_seconds": round(used, 2),
        "seconds_of_all_settings": round(took * settings, 2),
        "cpu_seconds_of_all_settings": round(used * settings, 2),
    }


def profile(folder: Path, length: int) -> str:
    """Where one setting spends its CPU time, in this process."""
    settings = stored.loader.load(CONFIG)
    (one,) = resolve(settings, CONFIG, _given(folder, length))
    assert isinstance(one, StoredInput)
    file = folder / "profiled.entries"
    with closing(EntryFile(file)) as out, one.opened() as log:
        for entry in log.appended(topics.OBSERVATIONS):
            out.write(entry)
    observations = tuning.Observations(
        file=str(file), since=BEGIN, until=BEGIN + length, recorded=True
    )
    encoders: Encoders = load_encoders(settings.models, recorded=True, stages=("fusion",))
    job = tuning.Job(observations, settings)
    tuning.judge(job, encoders)  # of several settings, the first one fills what is remembered
    watch = cProfile.Profile(time.process_time)  # CPU time: other work on the machine is not in it
    watch.enable()
    tuning.judge(job, encoders)
    watch.disable()
    text = io.StringIO()
    stats = pstats.Stats(watch, stream=text).sort_stats("tottime")
    stats.print_stats(35)
    stats.sort_stats("cumulative").print_stats(45)
    return text.getvalue()


def _given(folder: Path, length: int) -> Given:
    return Given(since=rfc3339(BEGIN), until=rfc3339(BEGIN + length), state=folder)


def main() -> int:
    """Prints the measurements; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--settings", type=int, default=8)
    parser.add_argument("--processes", type=int, default=0, help="default: one a core")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    length = round(options.minutes * 60) * SECOND
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, length)
        if options.profile:
            print(profile(folder, length))
            return 0
        print(json.dumps(measured(folder, length, options.settings, options.processes)))
        print(json.dumps(rival(folder, length, options.settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
