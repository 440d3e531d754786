"""The command `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workers.commands.inputs import takes_inputs
from workers.commands.options import (
    Config,
    Json,
    choice_option,
    path_option,
    text_option,
    time_option,
)
from workers.exit_codes import FOUND, OK

if TYPE_CHECKING:
    from workers.replay.inputs import Given

Since = Annotated[
    str | None,
    time_option("--since", "Only what happened since then; without an input, that of the log."),
]
At = Annotated[
    str | None,
    text_option(
        "--at",
        "TIME",
        "What stood in the way around this moment: 21:58:10 at the site, +12.5 s after the begin, "
        "or like 2026-01-05T22:00:00Z.",
    ),
]


@takes_inputs(
    "context config inputs camera microphone start site source since until rules state at incident "
    "page as_json",
    since=Since,
)
def explain(
    context: typer.Context,
    config: Config,
    given: Given,
    rules: Annotated[
        str | None,
        choice_option("--config", ("now", "then"), "By the rules of now (default), or of then."),
    ] = None,
    at: At = None,
    incident: Annotated[
        str | None,
        text_option("--incident", "ID", "Why this incident came, and why it closed when it did."),
    ] = None,
    page: Annotated[
        Path | None, path_option("--page", "Write a page that needs nothing else, too.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say why an alert came, or did not come: what stood in the way of each rule.

    INPUT is one scene file, media file or recording; none with --since, for the log or Kafka.
    """
    from workers.explain.command import Question, explain_command

    if at is not None and incident is not None:
        context.fail("either --at or --incident")
    question = Question(
        given=given, at=at, incident=incident, rules=rules or "now", page=page, as_json=as_json
    )
    return OK if explain_command(config, question) else FOUND
