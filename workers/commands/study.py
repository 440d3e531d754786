"""The commands that study runs: observations, diff and sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workers.commands.inputs import takes_inputs
from workers.commands.options import (
    Config,
    Json,
    Panel,
    choice_option,
    command,
    command_group,
    flag,
    number_option,
    path_argument,
    path_option,
    text_option,
)
from workers.exit_codes import FOUND, OK

if TYPE_CHECKING:
    from workers.replay.inputs import Given

app = command_group("What was observed, how two runs differ, and what other settings are worth.")

KINDS = ("seen", "heard", "said", "reported", "mode", "lost", "back")


@command(app, "observations", Panel.RECORDINGS)
@takes_inputs(
    "config inputs since until site source kind every utc state camera microphone start as_json"
)
def _observations(
    config: Config,
    given: Given,
    kind: Annotated[
        list[str] | None,
        choice_option("--kind", KINDS, "This kind alone; may be repeated."),
    ] = None,
    every: Annotated[bool, flag("--all", "Also frames and seconds with nothing in them.")] = False,
    utc: Annotated[bool, flag("--utc", "Show UTC, not the time of the site.")] = False,
    as_json: Annotated[bool, flag("--json", "Print JSON lines.")] = False,
) -> int:
    """Show what was seen, heard and said, with scores.

    One line for each observation, in the order in which it was stored.
    """
    from workers.tuning.observations_command import observations_command

    whole = observations_command(
        config, given, kinds=kind or (), empty=every, utc=utc, as_json=as_json
    )
    return OK if whole else FOUND


@command(app, "diff", Panel.RECORDINGS)
def _diff(
    context: typer.Context,
    before: Annotated[
        Path, path_argument("Alerts (.jsonl), a folder of such files, or a recording.", "BEFORE")
    ],
    after: Annotated[
        Path | None, path_argument("The same, of another run; what --config judges.", "AFTER")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        text_option(
            "--ignore",
            "FIELDS",
            "Fields that may differ: scores, times, reasons, revisions, or names of fields.",
        ),
    ] = None,
    score: Annotated[
        float, number_option("--score-tolerance", "NUMBER", "How far apart scores may be.")
    ] = 0.0,
    seconds: Annotated[
        float, number_option("--time-tolerance", "SECONDS", "How far apart times may be.")
    ] = 0.0,
    config: Annotated[
        Path | None,
        path_option("--config", "Judge the recording, scene or media file again by this config."),
    ] = None,
    origin: Annotated[
        str | None,
        choice_option(
            "--from",
            ("frames", "observations"),
            "What --config judges of a recording: frames, by the models again, or observations.",
        ),
    ] = None,
    rules: Annotated[
        str | None,
        choice_option("--rules", ("now", "then"), "Those of --config (default), or of then."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say how the alerts of two runs differ; end with 1 if they do.

    Alerts are matched by id, else by site, label and time. Incidents that became several, or one
    of several, are named. From frames, only what a last revision tells is compared.
    """
    from workers.replay.diff_fields import Allowance
    from workers.tuning.diff_command import Judged, diff_command

    if config is None and (origin or rules):
        context.fail("--from and --rules are for what --config CONFIG judges again")
    allowed = Allowance.of(ignore or (), score, seconds, last=origin == "frames")
    judged = None
    if config is not None:
        judged = Judged(config=config, origin=origin or "observations", rules=rules or "now")
    differs = diff_command(before, after, allowed=allowed, judged=judged, as_json=as_json)
    return FOUND if differs else OK


@command(app, "sweep", Panel.RECORDINGS)
@takes_inputs(
    "config settings inputs since until verdicts label picture site source state camera microphone "
    "start as_json"
)
def _sweep(
    config: Config,
    given: Given,
    settings: Annotated[
        list[str],
        text_option(
            "--set",
            "PATH=VALUES",
            "Values to try, like sites.office.rules.zone-floor.min_score=0.3,0.4,0.5; may be"
            " repeated.",
        ),
    ],
    verdicts: Annotated[
        Path | None,
        path_option("--verdicts", "What people said of alerts: a file of `fusewatch review`."),
    ] = None,
    label: Annotated[
        str, text_option("--label", "LABEL", "Measure events and alerts of this label alone.")
    ] = "",
    picture: Annotated[
        Path | None, path_option("--picture", "An .svg file to draw the trade-off into.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Try settings on what was observed: recall, false alerts an hour, time to the alert.

    Scenes and media are seen and heard once. Then every combination of the values judges what was
    observed. The settings that no other beats are named.
    """
    from workers.tuning.sweep import sweep
    from workers.tuning.sweep_command import check_picture, show

    check_picture(picture)
    swept = sweep(config, given, settings, verdicts=verdicts, label=label)
    show(swept, picture=picture, as_json=as_json)
    return FOUND if swept.left_out else OK
