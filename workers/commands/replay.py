"""The command `replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workers.commands.inputs import takes_inputs
from workers.commands.options import (
    Config,
    Speed,
    choice_option,
    flag,
    text_option,
)
from workers.exit_codes import FOUND, OK

if TYPE_CHECKING:
    from workers.replay.inputs import Given


@takes_inputs(
    "context config out inputs camera microphone start site source since until origin rules state "
    "speed deliver as_json"
)
def replay(
    context: typer.Context,
    config: Config,
    given: Given,
    out: Annotated[
        str, text_option("--out", "OUT", "A .jsonl file, or a folder/ for a file of each input.")
    ],
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
    speed: Speed = None,
    deliver: Annotated[bool, flag("--deliver", "Send the alerts to the webhooks, too.")] = False,
    as_json: Annotated[bool, flag("--json", "Print the summary as JSON.")] = False,
) -> int:
    """Run recordings through the same pipeline, or judge again what was observed.

    The same inputs give the same bytes every time. INPUT: none with --since, for the log or Kafka.
    """
    if not given.paths and given.since is None:
        context.fail("name files, or --since TIME for what the bus of the config has stored")
    from workers.replay.command import Order, replay_command

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
