"""Reads YAML as plain data, with the line of each value and without YAML's dangerous features.

Supports the core schema of YAML 1.2, read directly from the parser's events: `on`, `no` and `22:00`
are words, a time stamp is text, and tags, anchors and aliases are refused. So no file can run code
or expand in memory, and its size and depth are limited. No message quotes a value.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.problem import Problem, Way
from pipeline.errors import ConfigError
from workers.config.findings import FaultyFile, Lines, faulty, located

MAX_YAML_BYTES = 1_000_000
MAX_DEPTH = 32

CONFIG_HINT = "`fusewatch init` writes a config to start from"

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,2})?")
_KEY = re.compile(r":(\s|\Z)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


def read_yaml(
    path: str | Path, limit: int = MAX_YAML_BYTES, *, hint: str = CONFIG_HINT
) -> tuple[Any, Lines]:
    """Returns the data of a YAML file as dicts, lists, str, int, float, bool and None; and lines.

    `lines` holds the line (from 1) of each key and item by its path. Raises ConfigError for more
    than `limit` bytes, encodings other than UTF-8, anchors, aliases, tags, duplicate keys, several
    documents and more than MAX_DEPTH levels. `hint` says what to do about an empty file.
    """
    reader = _Reader(path)
    text = _text(Path(path), limit)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            reader.on(event)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(path, text, error) from None  # the cause would quote the file
    except yaml.YAMLError:
        sign = _CONTROL.search(text)
        line = text[: sign.start()].count("\n") + 1 if sign else 1
        raise _fault(path, line, "holds a control character; remove it") from None
    if reader.documents == 0 or reader.data is None:
        raise _fault(path, 1, f"is empty; {hint}")
    return reader.data, reader.lines


def yaml_values(text: str) -> list[Any]:
    """Returns the values of `0.3, [person, car], "a text"`, each as in a file.

    Raises ValueError, which quotes nothing.
    """
    reader = _Reader("")
    try:
        for event in yaml.parse(f"[{text}]", Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            reader.on(event)
    except FaultyFile as error:
        raise ValueError(error.findings[0].message) from None
    except yaml.YAMLError:
        reader.data = None
    if not isinstance(reader.data, list):
        msg = "is no list of values like 0.3,0.4; put a text with a comma or a bracket in quotes"
        raise ValueError(msg) from None
    return reader.data


def _fault(path: str | Path, line: int, message: str, way: Way = ()) -> FaultyFile:
    return faulty(located(path, {way: line}, [Problem(way, message)]))


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)  # never more, whatever size the file claims
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
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = f"is {'UTF-16, and ' if wide else ''}not UTF-8; save the file in that encoding"
        raise _fault(path, line, what) from None


def _not_yaml(path: str | Path, text: str, error: yaml.MarkedYAMLError) -> FaultyFile:
    mark = error.problem_mark
    line, column = (mark.line + 1, mark.column) if mark else (1, 0)
    rows = text.splitlines()
    here = rows[line - 1 : line]
    problem = error.problem or ""
    if _tabbed := next((n for n in (line, line - 1) if _indented_by_tab(rows[n - 1 : n])), 0):
        line, problem = _tabbed, "a tab is no indentation in YAML; use spaces"
    elif here and here[0][column : column + 1] == "\t":
        problem = "a tab is no indentation in YAML; use spaces"
    elif "cannot start any token" in problem:
        problem = "starts with a character that has a meaning in YAML; put the text in quotes"
    elif "could not find expected ':'" in problem:
        line, problem = _without_colon(rows, line), "a key needs a colon and a space after it"
    elif "unexpected end of stream" in problem and "quoted" in (error.context or ""):
        line = error.context_mark.line + 1 if error.context_mark else line
        problem = "a quote that begins here has no end"
    elif problem.startswith(("did not find expected", "expected ")):
        begun = error.context_mark.line + 1 if error.context_mark else line
        problem = (
            f"a bracket or comma is missing in the `{{..}}` or `[..]` that begins in line {begun}"
            if "flow" in (error.context or "")
            else "does not fit the lines above: see its indentation, and the quotes above"
        )
    elif "mapping values are not allowed" in problem:
        before = _without_colon(rows, line - 1)
        if 0 < before < line and not _KEY.search(rows[before - 1]):
            line, problem = before, "a key needs a colon and a space after it"
        else:
            problem = "a second `: ` on one line, or a wrong indentation; put the text in quotes"
    else:  # the parser's own words may quote the file
        problem = "is not YAML; see the quotes, brackets and indentation here and above"
    return _fault(path, line, problem)


def _indented_by_tab(row: list[str]) -> bool:
    return bool(row and re.match(r" *\t", row[0]))


def _without_colon(rows: list[str], line: int) -> int:
    """Returns the last line up to `line` that holds something and no key; else `line`."""
    for n in range(min(line, len(rows)), 0, -1):
        row = rows[n - 1].strip()
        if row and not row.startswith("#"):
            if not _KEY.search(row):
                return n
            if n < line:
                break
    return line


class _Reader:
    """Builds plain data from parser events, without recursion or shared objects."""

    def __init__(self, path: str | Path) -> None:
        self.data: Any = None
        self.lines: dict[Way, int] = {}
        self.documents = 0
        self._file = path
        self._open: list[dict[str, Any] | list[Any]] = []
        self._way: list[str | int] = []  # a step for each open container that waits for a value
        self._keyed = False  # the innermost mapping has a key and waits for its value

    def on(self, event: yaml.Event) -> None:
        """Processes one event; raises ConfigError."""
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
            way = (*self._way, event.value)
            raise _fault(self._file, line, f"is given twice; first in line {first}", way)
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
        raise _fault(self._file, line, what)
