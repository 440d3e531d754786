"""Loads config files: YAML to the types of `pipeline.config`, faults with file, line and path.

All faults are listed at once. Faults of shape come first, because references can be checked only in
a complete config. No message quotes a value, since it may be a secret; keys are quoted when they
are words.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from pipeline.config import checks
from pipeline.config.fields import CHOICE_SYNONYMS
from pipeline.config.problem import Problem, Way, nearest
from pipeline.config.schema import Config, Fusion, KafkaBus, LocalBus, addresses
from pipeline.errors import ConfigError
from workers.config import adapters, source_address, ssrf_guard
from workers.config.cautions import cautions, costs
from workers.config.findings import NOTE, WARNING, ConfigFinding, Lines, faulty, located
from workers.config.missing import downloads, missing
from workers.config.secrets import checkable
from workers.config.system_files import system_file
from workers.config.yaml_reader import read_yaml

__all__ = ["convert", "examine", "fault", "load", "read_yaml"]

SHORT: Mapping[type, str] = {Fusion: "head"}  # the field that a single word sets: `fusion: rules`

T = TypeVar("T")

_ONE_OF = re.compile(r"\^\(([\w|-]+)\)\\Z")
_NUMBER = re.compile(r"[-+]?\d")
_MISSING = object()


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What a config file holds and what is wrong with it.

    `config` is None if its shape is wrong. `whole` is false if sources with a wrong shape were left
    out of it.
    """

    config: Config | None
    problems: tuple[ConfigFinding, ...] = ()
    warnings: tuple[ConfigFinding, ...] = ()  # with the notes
    whole: bool = True

    def settings(self) -> Config:
        """Returns the config; raises ConfigError that lists every problem with its line."""
        if self.config is None or self.problems:
            raise faulty(self.problems)
        return self.config


def load(path: str | Path, env: Mapping[str, str] = os.environ) -> Config:
    """Loads the config in `path`; raises ConfigError that lists every problem with its line.

    `env` is used only to check source addresses whose variables are set; an unset variable is no
    problem until its value is needed (`workers.config.secrets`).
    """
    return examine(path, env, warn=False).settings()


def examine(
    path: str | Path,
    env: Mapping[str, str] = os.environ,
    *,
    warn: bool = True,
    salvage: bool = False,
) -> Examination:
    """Reads the config in `path` and finds its problems, and with `warn` what is missing here.

    With `salvage`, cameras and microphones whose shape is wrong are left out, so that the others
    can be used. Raises ConfigError for a file that cannot be read or is not YAML.
    """
    data, lines = read_yaml(path)
    config, found = convert(data, Config)
    whole = config is not None
    if config is None and salvage:
        config = _salvaged(data, found)
    base, warnings = Path(path).parent, []
    if config is not None:
        found += [*checks.problems(config), *adapters.problems(config.models)] if whole else []
        found += _addresses(config, env, base)
    if config is not None and warn:
        warned = (*missing(config, env, base), *cautions(config))
        warnings = located(path, lines, warned, WARNING)
        warnings += located(path, lines, (*downloads(config, env), *costs(config)), NOTE)
    return Examination(
        config=config,
        problems=tuple(located(path, lines, found)),
        warnings=tuple(warnings),
        whole=whole,
    )


def _salvaged(data: Any, found: list[Problem]) -> Config | None:
    """Returns the config without the sources that have problems; None if others have some."""
    for problem in found:
        match problem.path:
            case ("sites", site, "cameras" | "microphones" as kind, name, *_):
                data["sites"][site][kind].pop(name, None)
            case _:
                return None
    return convert(data, Config)[0]


def convert(data: Any, wanted: type[T]) -> tuple[T | None, list[Problem]]:
    """Converts `data` to the Struct `wanted`; returns None and every problem of shape otherwise."""
    found: list[Problem] = []
    value = _convert(data, wanted, (), found)
    return (None if found else value), found


def fault(path: str | Path, lines: Lines, found: list[Problem]) -> ConfigError:
    """Returns one error for all problems, one line each: `file:line: path: what is wrong`."""
    return faulty(located(path, lines, found))


def _convert(data: Any, wanted: Any, way: Way, found: list[Problem]) -> Any:
    """Converts `data` to the annotation `wanted`; the result is void if it adds to `found`."""
    origin = get_origin(wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        if isinstance(data, str) and wanted in SHORT:
            data = {SHORT[wanted]: data}
        return _struct(data, (wanted,), way, found)
    if origin in (Union, types.UnionType):
        return _union(data, get_args(wanted), way, found)
    if origin is tuple:
        return _tuple(data, get_args(wanted)[0], way, found)
    if origin is Annotated and get_origin(get_args(wanted)[0]) is tuple:  # of one item at least
        if data == []:
            found.append(Problem(way, "is empty"))
        return _convert(data, get_args(wanted)[0], way, found)
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
    """Converts to a Struct; if there are several, to the one whose tag `data` names."""
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
    found.append(Problem((*way, field), f"{what}{hint or '; one of: ' + ', '.join(tags)}"))
    return None


def _leaf(data: Any, wanted: Any, way: Way, found: list[Problem]) -> Any:
    try:
        return msgspec.convert(data, wanted)
    except msgspec.ValidationError as error:
        base = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
        if not isinstance(data, base) and not (base is float and type(data) is int):
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
            others = {word: of for word, of in CHOICE_SYNONYMS.items() if of in words}
            return f"must be one of: {', '.join(words)}{nearest(data, words, others)}"
        if meta.description:
            return f"must be {meta.description}"
        low, high = meta.ge if meta.ge is not None else meta.gt, meta.le
        above = "at least" if meta.ge is not None else "more than"
        if low is not None and high is not None:
            return f"must be {above} {_plain(low)} and at most {_plain(high)}"
    return text


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


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
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    hint = "; put it in quotes" if wanted == "text" and number else ""
    if wanted == "text" and isinstance(data, bool):
        hint = "; write the word, or put it in quotes"
    if wanted in ("a number", "a whole number") and isinstance(data, str) and _NUMBER.match(data):
        hint = "; write the number alone, without quotes and unit"
    found.append(Problem(way, f"must be {wanted}, and is {given}{hint}"))


def _addresses(config: Config, env: Mapping[str, str], base: Path) -> Iterator[Problem]:
    """Yields problems of addresses, as far as their variables are set; asks no name server."""
    for name, site in config.sites.items():
        for kind, sources in (("camera", site.cameras), ("microphone", site.microphones)):
            for of, settings in sources.items():
                for at, given in addresses(settings).items():
                    try:
                        source = checkable(given, env) if given else None
                        if source is not None:
                            source_address.parse(source, kind, base)
                    except ConfigError as error:
                        yield Problem(("sites", name, f"{kind}s", of, *at), str(error))
    for i, webhook in enumerate(config.webhooks):
        try:
            url = checkable(webhook.url, env)
            if isinstance(url, str):
                ssrf_guard.target(msgspec.structs.replace(webhook, url=url))
        except ConfigError as error:
            yield Problem(("webhooks", i, "url"), str(error))
    for i, file in enumerate(config.jsonl):
        if system_file(Path(file.path), handed_over=True):
            what = "is, or leads to, a system file; name a file of your own"
            yield Problem(("jsonl", i, "path"), what)
    yield from _variables(config.bus, env)


def _variables(bus: LocalBus | KafkaBus, env: Mapping[str, str]) -> Iterator[Problem]:
    """Yields problems of `${` in the settings of a bus that starts no variable."""
    if not isinstance(bus, KafkaBus):
        return
    for of, part in (("tls", bus.tls), ("sasl", bus.sasl)):
        for name in part.__struct_fields__ if part is not None else ():
            try:
                checkable(getattr(part, name), env)
            except ConfigError as error:
                yield Problem(("bus", of, name), str(error))
