"""`fusewatch topics | dead`: what the brokers hold, and what could not be used."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError
from workers.exit_codes import FOUND, OK, Add, usage


def add_commands(add: Add) -> None:
    """Topics of the brokers; dead letters of the brokers or of the daemon's log."""
    _add_topics(add("topics", usage, "the brokers' topics"))
    _add_dead(add("dead", usage, "what could not be used, and another try"))


def _add_topics(topics: argparse.ArgumentParser) -> None:
    actions = topics.add_subparsers(required=True, metavar="ACTION")
    made = actions.add_parser("create", help="make them as the config says, or change them so")
    made.set_defaults(command=_topics_create)
    made.add_argument("config", type=Path)
    made.add_argument("--dry-run", action="store_true", help="only say what would be done")
    made.add_argument("--grow", action="store_true", help="more partitions, when all is read")
    made.add_argument(
        "--shrink", action="store_true", help="shorter or smaller retention, smaller records"
    )
    made = actions.add_parser("list", help="what there is, and who reads it")
    made.set_defaults(command=_topics_list)
    made.add_argument("config", type=Path)
    made.add_argument("--json", action="store_true")


def _topics_create(given: argparse.Namespace) -> int:
    from workers.bus import connect, topic_admin

    settings, bus, secrets = connect.of(given.config)
    with connect.admin(bus, secrets) as brokers:
        for line in topic_admin.create(
            settings, bus, brokers, dry=given.dry_run, grow=given.grow, shrink=given.shrink
        ):
            print(line)
    return OK


def _topics_list(given: argparse.Namespace) -> int:
    from workers.bus import connect, topic_admin

    _, bus, secrets = connect.of(given.config)
    with connect.admin(bus, secrets) as brokers:
        found = topic_admin.rows(brokers)
    if given.json:
        print(msgspec.json.encode(found).decode())
    else:
        for line in topic_admin.table(found):
            print(line)
    return OK


def _add_dead(dead: argparse.ArgumentParser) -> None:
    actions = dead.add_subparsers(required=True, metavar="ACTION")
    for action, help_, command in (
        ("list", "where it stood, whose it was and why it is dead", _dead_list),
        ("retry", "send it again, to its topic or to the one subscriber", _dead_retry),
    ):
        made = actions.add_parser(action, help=help_)
        made.set_defaults(command=command)
        made.add_argument("config", type=Path)
        if action == "retry":
            made.add_argument("ids", nargs="*", metavar="ID", help="as `dead list` gives it: 0:17")
            made.add_argument("--all", action="store_true", help="all, or all of a site or time")
        made.add_argument("--site", help="only of this site")
        made.add_argument("--since", default="", help="only since then: 2h, 3d, or a time")
        made.add_argument("--state", type=Path, help="state folder, instead of the config's")
        made.add_argument("--json", action="store_true")


def _dead_list(given: argparse.Namespace) -> int:
    from workers.bus.dead_letter_store import letters
    from workers.config import loader

    settings = loader.load(given.config)
    with letters(settings, given.config, given.state, given.since, given.site) as found:
        for each in found:
            print(json.dumps(each.row()) if given.json else each.line())
    return OK


def _dead_retry(given: argparse.Namespace) -> int:
    from workers.bus.dead_letter_store import retry
    from workers.config import loader

    if bool(given.ids) == given.all:
        msg = "dead retry: either the ids that `fusewatch dead list` gives, or --all"
        raise ConfigError(msg)
    settings = loader.load(given.config)
    every = True
    for went, line in retry(
        settings,
        given.config,
        given.state,
        ids=given.ids,
        since=given.since,
        site=given.site,
        as_json=given.json,
    ):
        every = every and went
        print(line)
    return OK if every else FOUND
