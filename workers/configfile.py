"""Config files: YAML to the types of `pipeline.config`, every fault named by file, line and path.

The YAML is the core schema of YAML 1.2, read from the parser's events by hand: `on`, `no` and
`22:00` are words, a time stamp is text, and no tag, anchor or alias is obeyed. So nothing that a
file says can run code or grow in memory, and its size and depth are bounded before it is read.

No message quotes a value, since a value may be a secret; keys are quoted only when they are words.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from pipeline.checks import nearest, problems
from pipeline.config import Config, Problem
from pipeline.errors import ConfigError
from workers import addresses, guard
from workers.secrets import checkable

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_TOLD = 50  # problems listed in one error; the rest is counted

Way = tuple[str | int, ...]  # to a value, e.g. ("sites", "lobby", "rules", 0)
Lines = Mapping[Way, int]
T = TypeVar("T")

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,2})?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_ONE_OF = re.compile(r"\^\((\w+(?:\|\w+)*)\)\\Z")
_MISSING = object()


def load(path: str | Path, env: Mapping[str, str] = os.environ) -> Config:
    """The config in `path`; raises ConfigError that lists every problem with its line.

    `env` is only looked at to check source addresses whose variables happen to be set; a variable
    that is not set is no problem until somebody needs its value (`workers.secrets`).
    """
    data, lines = read_yaml(path)
    config, found = convert(data, Config)
    if config is not None:
        found = [*problems(config), *_addresses(config, env, Path(path).parent)]
    if config is None or found:
        raise fault(path, lines, found)
    return config


def read_yaml(path: str | Path, limit: int = MAX_BYTES) -> tuple[Any, Lines]:
    """What a YAML file says, as dicts, lists, str, int, float, bool and None; and where.

    `lines` holds the line (from 1) of each key and item by its path.
    Refuses more than `limit` bytes, other encodings than UTF-8, anchors, aliases, tags, duplicate
    keys, several documents and more than MAX_DEPTH levels, each by a ConfigError.
    """
    reader = _Reader(path)
    text = _text(Path(path), limit)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            reader.on(event)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(path, error) from None  # the cause would quote the file
    except yaml.YAMLError:
        msg = f"{path}: holds control characters, which YAML does not allow; remove them"
        raise ConfigError(msg) from None
    if reader.documents == 0 or reader.data is None:
        msg = f"{path}: is empty; `fusewatch init` writes a config to start from"
        raise ConfigError(msg)
    return reader.data, reader.lines


def convert(data: Any, wanted: type[T]) -> tuple[T | None, list[Problem]]:
    """`data` as the Struct `wanted`, or None and every problem of its shape."""
    found: list[Problem] = []
    value = _convert(data, wanted, (), found)
    return (None if found else value), found


def fault(path: str | Path, lines: Lines, found: list[Problem]) -> ConfigError:
    """One error for all that was found, a line each: `file:line: path: what is wrong`."""
    rows = sorted((_line(lines, problem.path), str(problem)) for problem in found)
    told = [f"{path}:{line}: {text}" for line, text in rows[:MAX_TOLD]]
    if len(rows) > MAX_TOLD:
        told.append(f"{path}: and {len(rows) - MAX_TOLD} more problems")
    return ConfigError("\n".join(told))


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)  # never more, whatever the size says
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    if len(raw) > limit:
        msg = f"{path}: is larger than {limit} bytes, so it is not a file for Fusewatch"
        raise ConfigError(msg)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"{path}:{line}: is not UTF-8; save the file in that encoding"
        raise ConfigError(msg) from None


def _not_yaml(path: str | Path, error: yaml.MarkedYAMLError) -> ConfigError:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    problem = error.problem or "is not YAML"
    if "\\t" in problem or "tab" in problem:
        problem = "a tab is no indentation in YAML; use spaces"
    elif "cannot start any token" in problem:
        problem = "starts with a character that has a meaning in YAML; put the text in quotes"
    elif "could not find expected ':'" in problem:
        problem = "a key needs a colon and a space after it"
    elif "did not find expected" in problem:
        problem = "a bracket, quote or dash does not match what is before it; see the indentation"
    elif "mapping values are not allowed" in problem:
        problem = "a second `: ` on one line, or a wrong indentation; put the text in quotes"
    else:  # the parser's own words may quote a tag, a directive or an escape of the file
        problem = "is not YAML here: " + re.sub(r"'.*'", "...", problem)
    return ConfigError(f"{path}:{line}: {problem}")


class _Reader:
    """Builds plain data from parser events, with no recursion and nothing shared."""

    def __init__(self, path: str | Path) -> None:
        self.data: Any = None
        self.lines: dict[Way, int] = {}
        self.documents = 0
        self._file = path
        self._open: list[dict[str, Any] | list[Any]] = []
        self._way: list[str | int] = []  # a step for each open container that waits for a value
        self._keyed = False  # the innermost mapping has a key and waits for its value

    def on(self, event: yaml.Event) -> None:
        """Take one event; raises ConfigError."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self._refuse(line, "a second document begins; one file is one document")
            case yaml.AliasEvent():
                self._refuse(line, "an alias (*name) is not allowed; write the value out")
            case yaml.NodeEvent():
                self._node(event, line)
            case yaml.CollectionEndEvent():
                self._open.pop()
                if self._way:
                    self._way.pop()
                self._keyed = False

    def _node(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self._refuse(line, "an anchor (&name) is not allowed; write the value out")
        if event.tag is not None:
            self._refuse(line, "a tag (!name) is not allowed; remove it")
        inside = self._open[-1] if self._open else None
        if isinstance(inside, dict) and not self._keyed:
            self._key(event, inside, line)
            return
        if isinstance(inside, list):
            self._way.append(len(inside))
        way = tuple(self._way)
        self.lines.setdefault(way, line)
        value = self._value(event)
        if isinstance(inside, dict):
            inside[str(way[-1])] = value
        elif isinstance(inside, list):
            inside.append(value)
        else:
            self.data = value
        if isinstance(value, (dict, list)):
            self._open.append(value)
            if len(self._open) > MAX_DEPTH:
                self._refuse(line, f"is nested more than {MAX_DEPTH} levels deep")
        elif self._way:
            self._way.pop()
        self._keyed = False

    def _key(self, event: Any, inside: dict[str, Any], line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(line, "a key must be a word")
        if event.value in inside:
            first = self.lines[(*self._way, event.value)]
            self._refuse(
                line, f"{Problem((event.value,), 'is')} given twice; first in line {first}"
            )
        self._way.append(event.value)
        self.lines[tuple(self._way)] = line
        self._keyed = True

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        text = event.value
        if event.style:  # quoted or a block: text, whatever it looks like
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _refuse(self, line: int, what: str) -> None:
        msg = f"{self._file}:{line}: {what}"
        raise ConfigError(msg)


def _convert(data: Any, wanted: Any, way: Way, found: list[Problem]) -> Any:
    """`data` as the annotation `wanted`; adds to `found`, and then the value means nothing."""
    origin = get_origin(wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _struct(data, (wanted,), way, found)
    if origin in (Union, types.UnionType):
        return _union(data, get_args(wanted), way, found)
    if origin is tuple:
        return _tuple(data, get_args(wanted)[0], way, found)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(data, get_args(wanted), way, found)
    return _leaf(data, wanted, way, found)


def _tuple(data: Any, item: Any, way: Way, found: list[Problem]) -> Any:
    if not isinstance(data, list):
        return _wrong(data, "a list, `[...]`", way, found)
    return tuple(_convert(each, item, (*way, i), found) for i, each in enumerate(data))


def _mapping(data: Any, kinds: Any, way: Way, found: list[Problem]) -> Any:
    if not isinstance(data, dict):
        return _wrong(data, "a mapping, `name: ...`", way, found)
    key, item = kinds
    return {
        _leaf(name, key, (*way, name), found): _convert(each, item, (*way, name), found)
        for name, each in data.items()
    }


def _union(data: Any, options: tuple[Any, ...], way: Way, found: list[Problem]) -> Any:
    structs = tuple(o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct))
    if structs:
        return _struct(data, structs, way, found)
    if data is None and type(None) in options:
        return None
    shapes: dict[type, type] = {list: tuple, dict: Mapping}
    for option in options:
        shape = get_origin(option) or option
        fits = shapes.get(type(data), type(data))
        if isinstance(shape, type) and issubclass(shape, fits):
            return _convert(data, option, way, found)
    return _convert(data, options[0], way, found)


def _struct(data: Any, options: tuple[Any, ...], way: Way, found: list[Problem]) -> Any:
    """A Struct; of several, the one whose tag `data` names."""
    if not isinstance(data, dict):
        return _wrong(data, "a mapping, `name: ...`", way, found)
    chosen = _tagged(data, options, way, found)
    if chosen is None:
        return None
    tag = chosen.__struct_config__.tag_field
    fields = {field.name: field for field in msgspec.structs.fields(chosen)}
    values = {}
    for name, each in data.items():
        if name in fields:
            values[name] = _convert(each, fields[name].type, (*way, name), found)
        elif name != tag:
            missing = [field for field in fields if field not in data]
            known = ", ".join(sorted(fields))
            hint = nearest(name, missing) or f"; known here: {known}"
            found.append(Problem((*way, name), f"is not a setting{hint}"))
    for field in fields.values():
        if field.required and field.name not in data:
            found.append(Problem((*way, field.name), "is missing"))
    return None if found else chosen(**values)


def _tagged(data: Any, options: tuple[Any, ...], way: Way, found: list[Problem]) -> Any:
    field = options[0].__struct_config__.tag_field
    if field is None:
        return options[0]
    tags = {option.__struct_config__.tag: option for option in options}
    given = data.get(field, _MISSING)
    if given is _MISSING and len(options) == 1:
        return options[0]
    if isinstance(given, str) and given in tags:
        return tags[given]
    what = "is missing" if given is _MISSING else "is not known"
    hint = nearest(given, tags) if isinstance(given, str) else ""
    found.append(Problem((*way, field), f"{what}{hint}; one of: {', '.join(tags)}"))
    return None


def _leaf(data: Any, wanted: Any, way: Way, found: list[Problem]) -> Any:
    try:
        return msgspec.convert(data, wanted)
    except msgspec.ValidationError as error:
        base = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
        if not isinstance(data, (int, float) if base is float else base):
            return _wrong(
                data,
                {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[
                    base
                ],
                way,
                found,
            )
        found.append(Problem(way, _explain(data, wanted, str(error))))
    return None


def _explain(data: Any, wanted: Any, text: str) -> str:
    for meta in get_args(wanted)[1:]:
        one_of = _ONE_OF.fullmatch(meta.pattern or "")
        if one_of:
            words = one_of[1].split("|")
            return f"must be one of: {', '.join(words)}{nearest(data, words)}"
        if meta.description:
            return f"must be {meta.description}"
        low, high = meta.ge if meta.ge is not None else meta.gt, meta.le
        above = "at least" if meta.ge is not None else "more than"
        if low is not None and high is not None:
            return f"must be {above} {low:g} and at most {high:g}"
    return text


def _wrong(data: Any, wanted: str, way: Way, found: list[Problem]) -> None:
    given = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }[type(data)]
    hint = "; put it in quotes" if wanted == "text" and isinstance(data, (int, float)) else ""
    found.append(Problem(way, f"must be {wanted}, and is {given}{hint}"))


def _line(lines: Lines, way: Way) -> int:
    while way and way not in lines:
        way = way[:-1]
    return lines.get(way, 1)


def _addresses(config: Config, env: Mapping[str, str], base: Path) -> Iterator[Problem]:
    """What is wrong with addresses, as far as their variables are set; no name server is asked."""
    for name, site in config.sites.items():
        for kind, sources in (("camera", site.cameras), ("microphone", site.microphones)):
            for of, settings in sources.items():
                way: Way = ("sites", name, f"{kind}s", of, "source")
                try:
                    source = checkable(settings.source, env)
                    if source is not None:
                        addresses.parse(source, kind, base)
                except ConfigError as error:
                    yield Problem(way, str(error))
    for i, webhook in enumerate(config.webhooks):
        try:
            url = checkable(webhook.url, env)
            if isinstance(url, str):
                guard.target(msgspec.structs.replace(webhook, url=url))
        except ConfigError as error:
            yield Problem(("webhooks", i, "url"), str(error))
