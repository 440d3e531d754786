"""The settings that a sweep tries: `--set PATH=VALUE,VALUE`, and the config of each combination.

A path names a setting as the config does. A step into a list is the name of the rule, or the place
in brackets: `sites.office.rules.zone-floor.min_score` or `sites.office.rules[0].min_score`. Each
config is checked as the file is.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.config.checks import problems
from pipeline.config.problem import Problem, Way, nearest
from pipeline.config.rule_kinds import rule_names
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from workers.config.loader import convert
from workers.config.yaml_reader import yaml_values

MAX_COMBINATIONS = 10_000
# What judges stored observations. Everything else decides what is observed, or does not judge.
JUDGING = ("rules", "fusion", "windows", "incidents", "stationary", "modes", "timezone")
PLACES = ("zones", "lines")  # of a camera
LIMITS = ("min_score", "min_height")  # of a camera's `detect`, applied where objects are tracked

_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")
_WHOLE_PATH = re.compile(r"[^.\[\]=]+(\.[^.\[\]=]+|\[\d{1,6}\])*")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One `--set`: the option as it was written, the way to the setting, and its values."""

    path: str
    way: Way
    values: tuple[Any, ...]


class Combination(msgspec.Struct, frozen=True, kw_only=True):
    """One value for each `--set`, and the config with them."""

    values: Mapping[str, Any]  # by the path of the option
    config: Config


def settings_of(base: Config, options: Sequence[str]) -> list[Setting]:
    """Returns what the options name; raises ConfigError, which names the option."""
    found = [_setting(base, option) for option in options]
    ways = [setting.way for setting in found]
    for setting in found:
        if ways.count(setting.way) > 1:
            msg = f"--set {setting.path}: is given twice; write all values behind one"
            raise ConfigError(msg)
    count = math.prod(len(setting.values) for setting in found)
    if count > MAX_COMBINATIONS:
        msg = f"--set: {count} combinations; at most {MAX_COMBINATIONS} are tried, leave some out"
        raise ConfigError(msg)
    return found


def combinations(base: Config, settings: Sequence[Setting]) -> list[Combination]:
    """Returns every combination of the values, in the order of the options.

    Raises ConfigError for a value that the check of the config refuses, and for values that do not
    go together.
    """
    for setting in settings:
        for value in setting.values:
            _checked(base, [(setting, value)])
    return [
        Combination(
            values={setting.path: value for setting, value in zip(settings, chosen, strict=True)},
            config=_checked(base, list(zip(settings, chosen, strict=True))),
        )
        for chosen in itertools.product(*(setting.values for setting in settings))
    ]


def _setting(base: Config, option: str) -> Setting:
    path, equals, text = option.partition("=")
    path = path.strip()
    if not equals or not _WHOLE_PATH.fullmatch(path):
        msg = (
            f"--set {option[:80]!a}: PATH=VALUE,VALUE, please, like "
            "sites.office.rules.zone-floor.min_score=0.3,0.4,0.5"
        )
        raise ConfigError(msg)
    try:
        values = yaml_values(text)
    except ValueError as error:
        msg = f"--set {path}: {error}"
        raise ConfigError(msg) from error
    if not values:
        msg = f"--set {path}: has no value"
        raise ConfigError(msg)
    words = [word(value) for value in values]
    if twice := [each for each in words if words.count(each) > 1]:
        msg = f"--set {path}: has {twice[0][:80]!a} twice"
        raise ConfigError(msg)
    steps = [int(n) if n else word for word, n in _STEP.findall(path)]
    return Setting(path=path, way=_way(base, path, steps), values=tuple(values))


def _way(base: Config, path: str, steps: Sequence[str | int]) -> Way:
    """The way to a setting, with places in lists; raises ConfigError for one that is not there."""
    way: list[str | int] = []
    here: Any = plain(base)
    for step in steps:
        if isinstance(here, list):
            way.append(_place(base, path, way, here, step))
        elif isinstance(step, int) or not isinstance(here, dict):
            msg = f"--set {path}: {_shown(way)} is no list"
            if not isinstance(here, dict):
                msg = f"--set {path}: {_shown(way)} is a value, and has no setting {step!a}"
            raise ConfigError(msg)
        else:
            way.append(step)
        last = way[-1]
        if isinstance(here, dict) and last not in here:
            break  # a new key of a mapping, or no setting: the check of the config says which
        here = here[last]
    way += steps[len(way) :]
    if (why := _refused(way)) is not None:
        msg = f"--set {path}: {why}"
        raise ConfigError(msg)
    return tuple(way)


def _place(
    base: Config, path: str, way: Sequence[str | int], there: list[Any], step: str | int
) -> int:
    match way:
        case ("sites", str(site), "rules"):
            names: Sequence[str] = rule_names(base.sites[site].rules)
        case _:
            names = ()
    if isinstance(step, int):
        if step < len(there):
            return step
        msg = f"--set {path}: {_shown(way)} has {len(there)} items, counted from 0"
        raise ConfigError(msg)
    if step in names:
        return names.index(step)
    known = f"; there is {', '.join(names)}" if names else ""
    what = "rule" if names else "item"
    msg = f"--set {path}: {_shown(way)} has no {what} {step!a}{nearest(step, names) or known}"
    raise ConfigError(msg)


def _refused(way: Sequence[str | int]) -> str | None:
    """Why a setting cannot be tried on stored observations; None: it can, or does not exist."""
    match way:
        case ("sites", _, kind, *_) if kind in JUDGING:
            return None
        case ("sites", _, "cameras", _, "detect", name, *_) if name in LIMITS:
            return None
        case ("sites", _, "cameras", _, name, *_) if name in PLACES:
            return None
    return (
        "does not judge what was observed, so a sweep cannot try it; it can try "
        f"{', '.join(JUDGING)} of a site, and {', '.join(PLACES)} and detect.min_score of a camera"
    )


def _checked(base: Config, chosen: Sequence[tuple[Setting, Any]]) -> Config:
    """The config with these values; raises ConfigError that names the options."""
    data = plain(base)
    for setting, value in chosen:
        _put(data, setting.way, value)
    config, found = convert(data, Config)
    if config is not None:
        found = [*problems(config)]
    if config is None or found:
        options = " ".join(f"--set {setting.path}={word(value)}" for setting, value in chosen)
        raise ConfigError("\n".join(f"{options}: {each}" for each in found))
    return config


def _put(data: Any, way: Way, value: Any) -> None:
    here = data
    for step in way[:-1]:
        if isinstance(here, dict) and step not in here:
            here[step] = {}
        here = here[step]
        if not isinstance(here, dict | list):
            return
    here[way[-1]] = value


def plain(config: Config) -> Any:
    """Returns a config as the data of a file that sets everything but what is null."""
    return _without_null(msgspec.json.decode(msgspec.json.encode(config)))


def _without_null(data: Any) -> Any:
    match data:
        case dict():
            return {name: _without_null(value) for name, value in data.items() if value is not None}
        case list():
            return [_without_null(value) for value in data]
    return data


def word(value: Any) -> str:
    """A value as it is written behind `--set`."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _shown(way: Iterable[str | int]) -> str:
    return Problem(tuple(way), "").where or "the config"
