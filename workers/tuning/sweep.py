"""Judges observations by many settings, and says what each of them is worth."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress as Bar

from workers.config import loader
from workers.replay.inputs import Given, resolve
from workers.stored.left_out import LeftOut, Unusable
from workers.tuning import judging, outcomes
from workers.tuning.observing import SceneModels, wanted_encoders
from workers.tuning.outcomes import Case, Outcome
from workers.tuning.sweep_inputs import ready, truth_of
from workers.tuning.sweep_inputs import verdicts as verdicts_of
from workers.tuning.swept_settings import combinations, settings_of


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of settings, by their paths, and what it is worth.

    `unbeaten`: no other combination is better in one figure and as good in the others. `as_now`:
    the config says the same.
    """

    values: Mapping[str, Any]
    outcome: Outcome
    unbeaten: bool
    as_now: bool


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a sweep; `observations` is the number of records that each setting judged.

    `left_out` are the inputs that could not be used.
    """

    cases: tuple[Case, ...]
    observations: int
    tried: tuple[Tried, ...]
    left_out: tuple[LeftOut, ...] = ()


def sweep(
    path: Path,
    given: Given,
    options: Sequence[str],
    *,
    verdicts: Path | None = None,
    label: str = "",
    processes: int = 0,
    models: SceneModels | None = None,
) -> Swept:
    """Judges the inputs by each combination of the `--set` options, in a process on each core.

    Scenes and media are seen and heard once. `verdicts` is a file of `fusewatch review`. With a
    `label`, its events and alerts alone are measured. `models` see and hear scenes; by default they
    are those of the config. One of several inputs that cannot be used is left out. Raises
    ConfigError and OutsideError.
    """
    base = loader.load(path)
    tried = combinations(base, settings_of(base, options))
    unusable = Unusable()
    inputs = resolve(base, path, given, unusable=unusable)
    # All that can be wrong is said before the long work.
    reviewed = None if verdicts is None else verdicts_of(verdicts)
    truths = [truth_of(one, reviewed) for one in inputs]
    configs = [each.config for each in tried]
    models = models or wanted_encoders(inputs)
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="fusewatch-sweep-") as folder,
        Bar(console=console, transient=True, disable=not sys.stderr.isatty()) as bar,
    ):
        seen = []
        for n, (one, known) in enumerate(zip(inputs, truths, strict=True)):
            task = bar.add_task(one.name, total=None)
            with unusable.trying(one.path, alone=len(inputs) == 1):
                made = ready(
                    base,
                    configs,
                    one,
                    known,
                    Path(folder) / str(n),
                    models=models,
                    heard=lambda done, all_, task=task: bar.update(  # type: ignore[misc]
                        task, completed=done / 1e9, total=all_ / 1e9
                    ),
                )
                seen.append(made)
            bar.update(task, visible=False)
        unusable.check(len(seen))
        jobs = [judging.Job(each.observations, config) for config in configs for each in seen]
        task = bar.add_task("settings", total=len(jobs))
        judged = judging.judge_all(
            jobs, lambda done, _: bar.update(task, completed=done), processes=processes
        )
        found = list(judged)
    measured = [
        outcomes.measured(
            [(each.case, found[at + n]) for n, each in enumerate(seen)],
            label,
        )
        for at in range(0, len(found), len(seen))
    ]
    best = outcomes.unbeaten(measured)
    return Swept(
        cases=tuple(each.case for each in seen),
        observations=sum(each.count for each in seen),
        tried=tuple(
            Tried(
                values=each.values,
                outcome=outcome,
                unbeaten=unbeaten,
                as_now=each.config == base,
            )
            for each, outcome, unbeaten in zip(tried, measured, best, strict=True)
        ),
        left_out=unusable.left_out,
    )
