"""The commands from a new config to a first report: init, check, doctor, report, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from workers.commands.options import (
    Config,
    Json,
    State,
    choice_argument,
    flag,
    path_argument,
    path_option,
    text_argument,
    text_option,
)
from workers.exit_codes import FOUND, OK
from workers.schemas.shipped import SCHEMAS, shipped


def init(
    config: Annotated[Path, path_argument("The file to write.")] = Path("fusewatch.yaml"),
    camera: Annotated[
        str | None,
        text_option("--camera", "ADDRESS", "A camera: rtsp://.., http://.., device:0 or a file."),
    ] = None,
    record: Annotated[
        str | None,
        text_option("--record", "ADDRESS", "The large stream of the camera, if it has two."),
    ] = None,
    microphone: Annotated[
        str | None,
        text_option("--microphone", "ADDRESS", "A microphone: device:default, or a stream."),
    ] = None,
    site: Annotated[str | None, text_option("--site", "NAME", "The site (default: home).")] = None,
    timezone: Annotated[
        str | None,
        text_option("--timezone", "ZONE", "Like Europe/Berlin (default: this machine's)."),
    ] = None,
    webhook: Annotated[
        str | None, text_option("--webhook", "URL", "Who gets the alerts (default: nobody).")
    ] = None,
    state: Annotated[
        Path | None,
        path_option("--state", "State folder (default: ~/.local/state/fusewatch).", "DIR"),
    ] = None,
    yes: Annotated[bool, flag("--yes", "Ask nothing.")] = False,
) -> int:
    """Write a config that runs, a token and a webhook secret; asks on a terminal.

    Each address is tried: a picture, a second of sound. Nothing is overwritten.
    """
    from workers.setup.init_command import Given, run_init

    given = Given(
        camera=camera,
        record=record,
        microphone=microphone,
        site=site,
        timezone=timezone,
        webhook=webhook,
        state=state,
    )
    run_init(config, given, ask=not yes and sys.stdin.isatty() and sys.stdout.isatty())
    return OK


def _show_words(asked: bool) -> None:
    if asked:
        from workers.config.words import words

        for title, known in words():
            print(f"{title}: {', '.join(known)}\n")
        raise typer.Exit


def check(
    config: Config,
    strict: Annotated[bool, flag("--strict", "End with 1 also where something warns.")] = False,
    as_json: Json = False,
    words: Annotated[
        bool,
        typer.Option(
            "--words",
            callback=_show_words,
            is_eager=True,
            help="Show the words that a config may hold: objects, sounds, languages, weights.",
        ),
    ] = False,
) -> int:
    """Read a config and say everything that is wrong with it, and what is missing here."""
    from workers.config.findings import WARNING, FaultyFile
    from workers.config.loader import Examination, examine

    try:
        found = examine(config)
    except FaultyFile as error:  # no YAML
        found = Examination(config=None, problems=error.findings)
    warns = any(finding.level == WARNING for finding in found.warnings)
    good = not found.problems and not (strict and warns)
    if as_json:
        from msgspec.structs import asdict

        told = {
            "ok": good,
            "problems": [asdict(finding) for finding in found.problems],
            "warnings": [asdict(finding) for finding in found.warnings],
        }
        print(json.dumps(told))
        return OK if good else FOUND
    for finding in (*found.problems, *found.warnings):
        print(finding, file=sys.stderr)
    if found.config is not None and not found.problems:
        sites = ", ".join(
            f"{name} ({_counted(site.cameras, 'camera')},"
            f" {_counted(site.microphones, 'microphone')}, {_counted(site.rules, 'rule')})"
            for name, site in found.config.sites.items()
        )
        print(f"{config}: {'right, with warnings' if warns else 'fine'}. {sites}")
    return OK if good else FOUND


def _counted(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def doctor(
    config: Annotated[Path | None, path_argument("The config.")] = None,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Look at devices, weights, subscribers and each source: a frame, a second of sound."""
    from workers.capture.running_daemons import running
    from workers.config.loader import examine
    from workers.setup.doctor import doctor as examined
    from workers.setup.doctor import show
    from workers.setup.subscriber_health import with_state

    if config is None:
        checks = examined(None)
    else:
        found = examine(config, warn=False, salvage=True)
        usable = found.config or found.settings()  # raises what is wrong
        settings = with_state(usable, config, state, running())
        checks = examined(settings, base=config.parent, problems=found.problems)
    show(checks, as_json=as_json)
    return OK if all(each.ok for each in checks) else FOUND


def report(
    site: Annotated[str, text_argument("The site where you saw it.")],
    said: Annotated[str, text_argument("What you saw.", metavar="text")],
    author: Annotated[str, text_option("--author", "NAME", "Who you are.")],
    config: Annotated[
        Path | None,
        path_option("--config", "The daemon's config, with address and token."),
    ] = None,
    url: Annotated[
        str | None,
        text_option("--url", "URL", "The daemon's address (default: that of the running one)."),
    ] = None,
    state: Annotated[
        Path | None, path_option("--state", "The state folder that holds the token.", "DIR")
    ] = None,
) -> int:
    """Tell a running daemon what you saw; finds the one of this user that has the site."""
    from workers.capture.report_client import send_report
    from workers.setup.report_target import report_target

    target = report_target(site, config=config, url=url, state=state)
    send_report(target.url, target.token, site, said, author)
    print("accepted")
    return OK


def schema(
    name: Annotated[str, choice_argument("NAME", tuple(SCHEMAS))],
    as_yaml: Annotated[bool, flag("--yaml", "Print YAML instead of JSON.")] = False,
) -> int:
    """Print a schema: of an alert, of a config, or the AsyncAPI document of the webhooks.

    Editors complete a config by it: fusewatch schema config > fusewatch.schema.json
    """
    text = shipped(name)
    if as_yaml:
        import yaml

        text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=100)
    print(text, end="")
    return OK
