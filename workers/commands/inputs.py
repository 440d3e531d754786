"""The options that name the inputs of `replay`, `explain`, `sweep` and `observations`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from workers.commands.options import path_argument, path_option, text_option, time_option

Since = Annotated[
    str | None,
    time_option("--since", "Only incidents since then; without inputs, those of the log."),
]
OPTIONS = {
    "inputs": Annotated[
        list[Path] | None,
        path_argument("Scene files, media files, recordings, or folders of them.", metavar="INPUT"),
    ],
    "camera": Annotated[
        str | None,
        text_option("--camera", "NAME", "The camera that sees the picture of a media file."),
    ],
    "microphone": Annotated[
        str | None,
        text_option("--microphone", "NAME", "The microphone that hears the sound of a media file."),
    ],
    "start": Annotated[
        str | None,
        text_option("--start", "TIME", "When a media file begins, like 2026-01-05T22:00:00+01:00."),
    ],
    "site": Annotated[
        list[str] | None, text_option("--site", "SITE", "Only this site; repeatable.")
    ],
    "source": Annotated[
        list[str] | None,
        text_option("--source", "NAME", "Only this camera or microphone; repeatable."),
    ],
    "since": Since,
    "until": Annotated[str | None, time_option("--until", "... and until then (default: now).")],
    "state": Annotated[
        Path | None, path_option("--state", "The daemon's state folder, for its log.", "DIR")
    ],
}


def takes_inputs(
    order: str, since: Any = Since
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Gives a command the options that name inputs, and makes its argument `given` of them.

    `order` has the names of all arguments of the command, in the order of its help. `since` is
    another text of `--since`.
    """
    shared = {**OPTIONS, "since": since}

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        own = inspect.signature(function, locals={"Given": object}, eval_str=True).parameters

        def parameter(name: str) -> inspect.Parameter:
            if name in own:
                return own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
            return inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=shared[name]
            )

        @functools.wraps(function)
        def command(**words: Any) -> int:
            from workers.replay.inputs import Given

            given = Given(
                paths=words.pop("inputs") or (),
                camera=words.pop("camera"),
                microphone=words.pop("microphone"),
                start=words.pop("start"),
                sites=words.pop("site") or (),
                sources=words.pop("source") or (),
                since=words.pop("since"),
                until=words.pop("until"),
                state=words.pop("state"),
            )
            return function(given=given, **words)

        parameters = [parameter(name) for name in order.split()]
        assert set(order.split()) == {*own, *shared} - {"given"}  # noqa: S101
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            parameters, return_annotation=int
        )
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate
