"""What the source says of the fields of a msgspec Struct: comments, types and defaults, as words.

The comment of a field stands on its line, or on the lines right above it. It may begin with a unit
and a semicolon: `# px; longest side`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as types

UNITS = ("frames/s", "heights", "bytes", "dBFS", "px", "ns", "Hz", "s")
SEVERITIES = "^(low|medium|high|critical)"
WIDEST_CELL = 160  # characters


class FieldDoc(NamedTuple):
    """One field: its name, type, unit, default (None: required) and what it is."""

    name: str
    type: str
    unit: str
    default: str | None
    about: str


@functools.cache
def _source(path: Path) -> tuple[ast.Module, Mapping[int, str], Sequence[str]]:
    """The tree, the comments by line, and the lines of a file."""
    with tokenize.open(path) as file:
        lines = file.readlines()
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(iter(lines).__next__)
        if token.type == tokenize.COMMENT and "type: ignore" not in token.string
    }
    return ast.parse("".join(lines)), comments, lines


def comments_of(path: str) -> Mapping[str, str]:
    """Name -> its comment, for the constants of a module."""
    tree, told, _ = _source(Path(path))
    return {
        node.targets[0].id: told[node.lineno]
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.lineno in told
    }


@functools.cache
def comments(cls: type) -> Mapping[str, str]:
    """Field -> its comment, for the fields that the class itself has."""
    tree, told, lines = _source(Path(inspect.getfile(cls)))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
    found = {}
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        words = [told[node.end_lineno or 0]] if node.end_lineno in told else []
        above = node.lineno - 1
        while above in told and lines[above - 1].lstrip().startswith("#"):
            words.insert(0, told[above])
            above -= 1
        found[node.target.id] = " ".join(words)
    return found


def comment(cls: type, name: str) -> str:
    """The comment of a field, of the class or of one that it inherits from."""
    for each in cls.__mro__:
        if msgspec.Struct in each.__mro__[1:] and (said := comments(each).get(name)):
            return said
    return ""


def about(cls: type) -> str:
    """The docstring of a class, as one paragraph a blank line."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.getdoc(cls).split("\n\n"))


def fields(cls: type) -> list[FieldDoc]:
    """The fields of a struct, in order."""
    made = types.type_info(cls)
    docs = []
    for field in made.fields:
        text = comment(cls, field.name)
        unit, _, rest = text.partition("; ")
        if unit not in UNITS:
            unit, rest = (text, "") if text in UNITS else ("", text)
        docs.append(
            FieldDoc(field.encode_name, kind(field.type), unit, default(field), sentence(rest))
        )
    return docs


def sentence(text: str) -> str:
    """Text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def default(field: types.Field) -> str | None:
    """The default of a field as a config would write it; None: the field is required."""
    value = field.default
    if value is msgspec.NODEFAULT:
        factory = field.default_factory
        value = msgspec.NODEFAULT if factory is msgspec.NODEFAULT else factory()
    if value is msgspec.NODEFAULT:
        return None if field.required else "left out"
    if isinstance(value, msgspec.Struct):
        given = {
            f.name: getattr(value, f.name) for f in msgspec.structs.fields(value) if f.required
        }
        return f"`{{{', '.join(f'{k}: {v}' for k, v in given.items())}}}`" if given else "its own"
    return shown(value)


def shown(value: Any) -> str:
    """A default value, in the form of YAML."""
    if value is None or value in ("", b"", (), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def kind(made: types.Type) -> str:  # noqa: PLR0911, PLR0912 - a case each
    """A type and its range, in words."""
    match made:
        case types.Metadata() if (made.extra_json_schema or {}).get("format") == "date-time":
            return "time"
        case types.Metadata():
            return kind(made.type)
        case types.LiteralType():
            return " or ".join(f"`{value}`" for value in made.values)
        case types.IntType() | types.FloatType():
            return ", ".join([_NUMBER[type(made)], *_range(made)])
        case types.StrType() if (made.pattern or "").startswith(SEVERITIES):
            return "low, medium, high or critical"
        case types.StrType() if (made.pattern or "").startswith("^("):
            words = made.pattern[2:].split(")")[0].split("|")
            return " or ".join(words) if words[0].isalpha() or "-" in words[0] else "name"
        case types.StrType():
            return "name" if (made.pattern or "").startswith("^[a-z0-9]") else "text"
        case types.VarTupleType() | types.ListType():
            return f"list of {kind(made.item_type)}"
        case types.TupleType():
            return f"{len(made.item_types)} of {kind(made.item_types[0])}"
        case types.DictType():
            return f"mapping of {kind(made.key_type)} to {kind(made.value_type)}"
        case types.StructType():
            return _struct(made.cls)
        case types.EnumType():
            return ", ".join(each.value for each in made.cls)
        case types.UnionType():
            return _union(made)
        case _:
            return _PLAIN[type(made)]


_NUMBER = {types.IntType: "whole number", types.FloatType: "number"}
_PLAIN = {types.BoolType: "true or false", types.NoneType: "none", types.BytesType: "bytes"}


def _struct(cls: type) -> str:
    return f"[{cls.__name__}](#{cls.__name__.lower()})"


def _union(made: types.UnionType) -> str:
    parts = [part for part in made.types if not isinstance(part, types.NoneType)]
    if all(isinstance(part, types.StructType) for part in parts) and len(parts) > 3:
        return "[rule](#rules)"
    return " or ".join(kind(part) for part in parts)


def _range(made: types.IntType | types.FloatType) -> list[str]:
    words = []
    if made.gt is not None:
        words.append(f"more than {_number(made.gt)}")
    if made.ge is not None and made.ge == made.le:
        return [f"{_number(made.ge)} only"]
    if made.ge is not None and made.le is not None and made.le < 1e12:
        words.append(f"{_number(made.ge)} to {_number(made.le)}")
    elif made.le is not None and made.le < 1e12:
        words.append(f"at most {_number(made.le)}")
    return words


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; raises ValueError for a cell that is too wide for a reader."""
    wide = [cell for row in rows for cell in row if len(cell) > WIDEST_CELL]
    if wide:
        msg = f"a cell of {len(wide[0])} characters, where {WIDEST_CELL} are the most: {wide[0]}"
        raise ValueError(msg)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def wrapped(text: str, width: int = 118) -> str:
    """Text with line breaks; code between back-ticks may be broken too, as Markdown allows."""
    fill = functools.partial(
        textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False
    )
    return "\n\n".join(fill(part) for part in text.split("\n\n"))


NOTE = "<!-- Made by `make reference` from {}: change that, not this page. -->\n"
