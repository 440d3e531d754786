"""What the commands share: groups of the help, kinds of options, and how wrong use is told."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import ArgumentInfo, OptionInfo

from workers.exit_codes import WRONG
from workers.runtime import stderr_log
from workers.runtime.printable import printable

if TYPE_CHECKING:
    from typer import TyperException
    from typer._click import Context, HelpFormatter, Parameter

TIMES = "TIME is 10m, 2h or 3d ago, or like 2026-01-05T22:00:00Z."
SLOWEST = 0.01  # times real time that a scene may be played


class Panel(StrEnum):
    """The groups of `fusewatch --help`, in the order of the help."""

    DAILY = "Daily use"
    RECORDINGS = "Recordings"
    SUBSCRIBERS = "Subscribers"
    LEARNING = "Learning"
    KAFKA = "Kafka"


class _ByParser:
    """Converts a parameter's words by its own parser, as Typer does through pydantic.

    Loading pydantic would cost every command 80 ms, and every worker 15 MB for as long as it runs.
    """

    def coerce(self, value: Any, param: TyperOption | TyperArgument, ctx: Context) -> Any:
        several = param.multiple or param.nargs == -1
        parse = param.type_descriptor.parameter_info.parser
        if value is None or parse is None:
            return () if value is None and several else value
        return [parse(word) for word in value] if several else parse(value)


BY_PARSER = _ByParser()


def _prepare(params: Sequence[Parameter]) -> None:
    for param in params:
        # This name is not public. Where Typer does not read it, commands start slower, that is all.
        setattr(param, "_runtime_param", BY_PARSER)  # noqa: B010


class Command(TyperCommand):
    """A command; its usage names the options that it must have, and its help no types of Python."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        pieces = [
            f"{param.opts[0]} {param.metavar}"
            for param in self.params
            if isinstance(param, TyperOption) and param.required
        ]
        pieces.append("[OPTIONS]")
        for param in self.params:
            if isinstance(param, TyperArgument):
                name = param.display_name_raw + ("..." if param.nargs == -1 else "")
                pieces.append(name if param.required else f"[{name}]")
        return pieces

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        arguments, options = [], []
        for param in self.get_params(ctx):
            name, help_ = param.get_help_record(ctx) or ("", "")
            if isinstance(param, TyperArgument):
                arguments.append((param.display_name_raw, help_.removesuffix("  [required]")))
            else:
                options.append((name, help_))
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        _prepare(self.get_params(ctx))
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise


class CommandGroup(TyperGroup):
    """A word with commands below it; its help lists them under their panels.

    Typer itself shows panels by Rich only, and Rich takes longer to load than the rest of a help.
    """

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        _prepare(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands of each panel; those without one stand under `Commands`."""
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in Panel}
        for name, each in self.commands.items():
            panel = getattr(each, "rich_help_panel", None) or "Commands"
            first_line = (each.help or "").partition("\n")[0]
            panels.setdefault(panel, []).append((name, first_line))
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def command_group(help_: str) -> typer.Typer:
    """A new group of commands; its help and its errors are plain text.

    Tracebacks stay those of Python: Typer's show local variables, and one may hold a secret.
    """
    return typer.Typer(
        cls=CommandGroup,
        help=help_,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


Function = TypeVar("Function", bound=Callable[..., int])


def command(
    group: typer.Typer, name: str, panel: Panel | None = None
) -> Callable[[Function], Function]:
    """Declare a command: its options are the function's arguments, its help the docstring."""
    return group.command(name, cls=Command, rich_help_panel=panel)


def _text(word: str) -> str:
    """An option in place of a value means that the value was forgotten."""
    if word.startswith("--") or word == "-h":
        msg = f"{word!r} is an option, and a value is missing before it"
        raise typer.BadParameter(msg)
    return word


def _path(word: str) -> Path:
    return Path(_text(word))


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        msg = f"{word!r} is no whole number"
        raise typer.BadParameter(msg) from None


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        msg = f"{word!r} is no number"
        raise typer.BadParameter(msg) from None


def _choice(word: str, words: Sequence[str]) -> str:
    if word not in words:
        near = get_close_matches(word, words, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        msg = f"{word!r} is none of {', '.join(words)}{hint}"
        raise typer.BadParameter(msg)
    return word


# Each kind has a `parser`, which takes a word as it is. Typer's own paths and texts refuse bytes
# that are no UTF-8 and files that cannot be read; our commands do, and say what to do about it.


def text_option(name: str, metavar: str, help_: str) -> OptionInfo:
    """An option with a text."""
    made: OptionInfo = typer.Option(name, parser=_text, metavar=metavar, help=help_)
    return made


def time_option(name: str, help_: str) -> OptionInfo:
    """An option with a time: a span before now, or RFC 3339."""
    return text_option(name, "TIME", f"{help_} {TIMES}")


def path_option(name: str, help_: str, metavar: str = "FILE") -> OptionInfo:
    """An option with a path."""
    made: OptionInfo = typer.Option(name, parser=_path, metavar=metavar, help=help_)
    return made


def whole_option(name: str, metavar: str, help_: str) -> OptionInfo:
    """An option with a whole number."""
    made: OptionInfo = typer.Option(name, parser=_whole, metavar=metavar, help=help_)
    return made


def number_option(name: str, metavar: str, help_: str) -> OptionInfo:
    """An option with a number."""
    made: OptionInfo = typer.Option(name, parser=_number, metavar=metavar, help=help_)
    return made


def choice_option(name: str, words: Sequence[str], help_: str) -> OptionInfo:
    """An option with one of some words; a shell completes them."""
    made: OptionInfo = typer.Option(
        name,
        parser=partial(_choice, words=words),
        autocompletion=lambda: words,
        metavar="|".join(words),
        help=help_,
    )
    return made


def flag(name: str, help_: str) -> OptionInfo:
    """An option without a value."""
    made: OptionInfo = typer.Option(name, help=help_)
    return made


def text_argument(help_: str, metavar: str | None = None) -> ArgumentInfo:
    """A positional argument: a text."""
    made: ArgumentInfo = typer.Argument(parser=str, metavar=metavar, help=help_)
    return made


def path_argument(help_: str, metavar: str | None = None) -> ArgumentInfo:
    """A path that its position tells."""
    made: ArgumentInfo = typer.Argument(parser=Path, metavar=metavar, help=help_)
    return made


def choice_argument(metavar: str, words: Sequence[str]) -> ArgumentInfo:
    """One of some words, told by its position; a shell completes them."""
    made: ArgumentInfo = typer.Argument(
        metavar=metavar,
        parser=partial(_choice, words=words),
        autocompletion=lambda: words,
        help=f"{', '.join(words)}.",
    )
    return made


Config = Annotated[Path, path_argument("The config.")]
State = Annotated[
    Path | None, path_option("--state", "State folder, instead of the config's.", "DIR")
]
Json = Annotated[bool, flag("--json", "Print JSON.")]


def _speed(word: str) -> float | None:
    if word == "max":
        return None
    try:
        speed = float(word)
    except ValueError:
        speed = math.nan
    if not SLOWEST <= speed < math.inf:
        msg = f"max, or a factor from {SLOWEST:g} on (1 is real time)"
        raise typer.BadParameter(msg)
    return speed


Speed = Annotated[
    float | None,
    typer.Option(
        "--speed",
        parser=_speed,
        metavar="SPEED",
        help="The speed of a scene: max (default), or 1 for real time.",
    ),
]


def misused(error: TyperException) -> int:
    """Say in one line what is wrong with the command line, and how it is meant."""
    message = error.format_message().rstrip(".")
    line = f"{message[:1].lower()}{message[1:]}"
    context: Context | None = getattr(error, "ctx", None)
    if context is not None:
        pieces = " ".join(context.command.collect_usage_pieces(context))
        line += f" (usage: {context.command_path} {pieces}; --help says more)"
    complain(" ".join(line.split()))
    return WRONG


def complain(message: str) -> None:
    """Say on stderr why the command ends: as a JSON line where all lines are, else as text."""
    if stderr_log.is_json():
        logging.getLogger("fusewatch").critical("%s", message)
    else:
        print(f"fusewatch: {printable(message, newlines=True)}", file=sys.stderr)
