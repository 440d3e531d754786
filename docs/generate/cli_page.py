"""The page docs/reference/cli.md, made of the commands' own help."""

from __future__ import annotations

from collections.abc import Iterator

from typer import Context
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from docs.generate.fields import NOTE, comments_of, sentence, table, wrapped
from workers import exit_codes
from workers.cli import app
from workers.commands.options import Panel

HEAD = """\
# Command line reference

Every command of `fusewatch`, with its arguments, options, defaults and exit codes. The commands stand in the groups of
`fusewatch --help`. `fusewatch COMMAND --help` prints the same about one command.

`fusewatch --version` prints the version. `fusewatch --install-completion` teaches bash, zsh or fish to complete
commands and options.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, _codes()]
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    context = Context(group, info_name="fusewatch")
    for panel in Panel:
        parts.append(f"## {panel.value}\n")
        for name, each in group.commands.items():
            if getattr(each, "rich_help_panel", None) == panel:
                parts += _commands(name, each, context)
    return "\n".join([*parts, NOTE.format("workers/cli.py and workers/commands/*.py")])


def commands() -> list[str]:
    """The names of all commands: `run`, `weights list`, ..."""
    return [line[5:-1] for line in page().splitlines() if line.startswith("### `")]


def _codes() -> str:
    told = comments_of(exit_codes.__file__)
    codes = {name: getattr(exit_codes, name) for name in told}
    rows = [
        (str(code), sentence(told[name]))
        for name, code in sorted(codes.items(), key=lambda c: c[1])
    ]
    return "## Exit codes\n\n" + table(("code", "meaning"), rows)


def _commands(name: str, made: object, above: Context) -> Iterator[str]:
    if isinstance(made, TyperGroup):
        context = Context(made, parent=above, info_name=name)
        for word, each in made.commands.items():
            yield from _commands(word, each, context)
        return
    assert isinstance(made, TyperCommand)
    context = Context(made, parent=above, info_name=name)
    pieces = " ".join(made.collect_usage_pieces(context))
    path = context.command_path
    parts = [f"### `{path.removeprefix('fusewatch ')}`\n"]
    text = "\n\n".join(" ".join(p.split()) for p in (made.help or "").split("\n\n"))
    parts.append(wrapped(text) + "\n")
    parts.append(f"    {path} {pieces}\n")
    if rows := [_row(param) for param in made.params]:
        parts.append(table(("argument or option", "default", "meaning"), rows))
    yield "\n".join(parts)


def _row(param: object) -> tuple[str, str, str]:
    assert isinstance(param, (TyperArgument, TyperOption))
    about = param.help or ""
    if isinstance(param, TyperArgument):
        name = param.display_name_raw + ("..." if param.nargs == -1 else "")
    else:
        name = " ".join([param.opts[0], *([] if param.is_flag else [str(param.metavar)])])
    return f"`{name}`", "required" if param.required else _default(param.default), about


def _default(value: object) -> str:
    if value is None or value in ("", False, (), []):
        return "none" if value is not False else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
