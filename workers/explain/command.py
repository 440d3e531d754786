"""The command `explain`: why did an alert come, or not come?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from pipeline.bus.private import private_file
from pipeline.config.schema import Config, Site
from pipeline.errors import ConfigError, OutsideError
from pipeline.types import Alert
from workers.config import loader
from workers.config.output_file import check_output
from workers.explain import as_json, page, text
from workers.explain.explained import Explained, explain_scene, explain_stored
from workers.explain.html import PAGE_BEGIN
from workers.explain.moments import at_time, check_clocks, check_time, incident_of
from workers.replay.command import bar
from workers.replay.inputs import Given, Input, SceneInput, resolve
from workers.runtime.printable import printable
from workers.stored.left_out import Unusable
from workers.stored.rules_then import NOW, THEN
from workers.stored.wanted_encoders import WantedEncoders


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; without `at` and `incident`, the whole input is explained."""

    given: Given
    at: str | None = None
    incident: str | None = None
    rules: str = NOW
    page: Path | None = None
    as_json: bool = False


def explain_command(path: Path, question: Question) -> bool:
    """Explains one input by the config at `path`.

    Returns whether all of it could be used. Raises ConfigError and OutsideError.
    """
    settings = loader.load(path)
    unusable = Unusable()
    inputs = resolve(settings, path, question.given, rules=question.rules, unusable=unusable)
    if len(inputs) != 1:
        names = ", ".join(one.path.name for one in inputs[:5])
        msg = f"one input is explained at a time, and there are {len(inputs)}: {names}"
        raise ConfigError(msg)
    if question.page is not None:
        _check_file(question.page)
    if question.rules == THEN and isinstance(inputs[0], SceneInput):
        msg = f"{inputs[0].path}: nothing has judged it before: --config then is for what is stored"
        raise ConfigError(msg)
    if question.at is not None:
        check_time(question.at)
    found = explained(settings, inputs[0], question)
    one, at, revisions = _asked(found, question)
    chosen = found if one is None else [one]
    if question.page is not None:
        _write(question.page, page.rendered(page.view(chosen[0], at, revisions)))
    if question.as_json:
        documents = [as_json.document(each, at=at, revisions=revisions) for each in chosen]
        sys.stdout.write(json.dumps(documents[0] if len(documents) == 1 else documents) + "\n")
        return not unusable.left_out
    for number, each in enumerate(chosen):
        if at is not None:
            lines = text.around(each, at)
        elif revisions:
            lines = text.incident(each, revisions)
        else:
            lines = text.summary(each)
        sys.stdout.write("\n" * (number > 0) + "".join(f"{printable(line)}\n" for line in lines))
    if question.page is not None:
        sys.stdout.write(f"page: {printable(str(question.page))}\n")
    return not unusable.left_out


def explained(settings: Config, one: Input, question: Question) -> list[Explained]:
    """Explains one input: each of its sites."""
    pictures = question.page is not None
    with bar(one.name) as heard:
        if not isinstance(one, SceneInput):
            return explain_stored(
                settings,
                one,
                WantedEncoders().for_observations,
                heard,
                pictures=pictures,
                rules=question.rules,
                check=partial(_check_sites, question),
            )
        has = WantedEncoders(
            cameras=bool(one.scene.cameras), microphones=bool(one.scene.microphones)
        )
        models = has.for_scenes(settings)
        return [explain_scene(settings, one, models, heard, pictures=pictures)]


def _check_sites(question: Question, sites: Mapping[str, Site], start: int) -> None:
    """Raises ConfigError for a question that means one site, where there are several."""
    if question.page is not None and question.incident is None and len(sites) > 1:
        msg = f"a page is of one site: name it by --site; there is {', '.join(sites)}"
        raise ConfigError(msg)
    if question.at is not None:
        check_clocks(question.at, start, {name: site.timezone for name, site in sites.items()})


def _asked(
    found: Sequence[Explained], question: Question
) -> tuple[Explained | None, int | None, Sequence[Alert]]:
    """The site, time and incident that are asked for, as far as they are."""
    if question.incident is not None:
        one, revisions = incident_of(question.incident, found)
        return one, None, revisions
    if question.at is None:
        return None, None, ()
    return None, at_time(question.at, found[0]), ()


def _check_file(file: Path) -> None:
    """Raises what is wrong with the file of the page before anything is played."""
    check_output("--page", file, PAGE_BEGIN, "page of Fusewatch")
    if not file.parent.is_dir():
        msg = f"--page {file}: there is no folder {file.parent}"
        raise ConfigError(msg)


def _write(file: Path, text_: str) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        opened = private_file(part, os.O_WRONLY | os.O_TRUNC)  # it shows people
        with open(opened, "w", encoding="utf-8") as out:
            out.write(text_)
        part.replace(file)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        msg = f"--page {file}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
