"""The command `replay`, and the options that name the inputs of other commands, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers.commands.options import (
    Config,
    Speed,
    choice_option,
    flag,
    path_argument,
    path_option,
    text_option,
    time_option,
)
from workers.exit_codes import FOUND, OK

Paths = Annotated[
    list[Path] | None,
    path_argument("Scene files, media files, recordings, or folders of them.", metavar="INPUT"),
]
Camera = Annotated[
    str | None, text_option("--camera", "NAME", "The camera that sees the picture of a media file.")
]
Microphone = Annotated[
    str | None,
    text_option("--microphone", "NAME", "The microphone that hears the sound of a media file."),
]
Start = Annotated[
    str | None,
    text_option("--start", "TIME", "When a media file begins, like 2026-01-05T22:00:00+01:00."),
]
Sites = Annotated[list[str] | None, text_option("--site", "SITE", "Only this site; repeatable.")]
Sources = Annotated[
    list[str] | None,
    text_option("--source", "NAME", "Only this camera or microphone; repeatable."),
]
Since = Annotated[
    str | None,
    time_option("--since", "Only incidents since then; without inputs, those of the log."),
]
Until = Annotated[str | None, time_option("--until", "... and until then (default: now).")]
StoredState = Annotated[
    Path | None, path_option("--state", "The daemon's state folder, for its log.", "DIR")
]


def replay(
    context: typer.Context,
    config: Config,
    out: Annotated[
        str, text_option("--out", "OUT", "A .jsonl file, or a folder/ for a file of each input.")
    ],
    inputs: Paths = None,
    camera: Camera = None,
    microphone: Microphone = None,
    start: Start = None,
    site: Sites = None,
    source: Sources = None,
    since: Since = None,
    until: Until = None,
    origin: Annotated[
        str | None,
        choice_option(
            "--from",
            ("frames", "observations"),
            "What is judged of stored input: frames, by the models again, or observations.",
        ),
    ] = None,
    rules: Annotated[
        str | None,
        choice_option("--config", ("now", "then"), "By the rules of now (default), or of then."),
    ] = None,
    state: StoredState = None,
    speed: Speed = None,
    deliver: Annotated[bool, flag("--deliver", "Send the alerts to the webhooks, too.")] = False,
    as_json: Annotated[bool, flag("--json", "Print the summary as JSON.")] = False,
) -> int:
    """Run recordings through the same pipeline, or judge again what was observed.

    The same inputs give the same bytes every time. INPUT: none with --since, for the log or Kafka.
    """
    if not inputs and since is None:
        context.fail("name files, or --since TIME for what the bus of the config has stored")
    from workers.replay.command import Order, replay_command
    from workers.replay.inputs import Given

    given = Given(
        paths=inputs or (),
        camera=camera,
        microphone=microphone,
        start=start,
        sites=site or (),
        sources=source or (),
        since=since,
        until=until,
        state=state,
    )
    order = Order(
        given=given,
        out=out,
        origin=origin,
        rules=rules or "now",
        speed=speed,
        deliver=deliver,
        as_json=as_json,
    )
    return OK if replay_command(config, order) else FOUND
