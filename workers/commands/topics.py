"""The commands over Kafka: `worker` runs a stage, `topics` and `dead` show what brokers hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pipeline.errors import ConfigError
from pipeline.stages import BY_FAUST, RECORD, WORKERS
from workers.commands.options import (
    Config,
    Json,
    Panel,
    Speed,
    State,
    choice_argument,
    command,
    command_group,
    flag,
    path_option,
    text_argument,
    text_option,
    time_option,
)
from workers.exit_codes import FOUND, OK

app = command_group("Stages over Kafka.")
topics = command_group("The brokers' topics.")
dead = command_group("What could not be used or delivered, and another try.")
app.add_typer(topics, name="topics", rich_help_panel=Panel.KAFKA)
app.add_typer(dead, name="dead", rich_help_panel=Panel.SUBSCRIBERS)


@command(app, "worker", Panel.KAFKA)
def _worker(
    stage: Annotated[str, choice_argument("STAGE", (*WORKERS, RECORD))],
    config: Config,
    instance: Annotated[
        str, text_option("--instance", "NAME", "A name that stays over restarts, like vision-2.")
    ] = "",
    recorded: Annotated[bool, flag("--recorded", "The input is a scene: use every frame.")] = False,
    faust: Annotated[
        bool,
        flag("--faust", f"Run under Faust ({', '.join(BY_FAUST[:-1])} and {BY_FAUST[-1]} can)."),
    ] = False,
    state: State = None,
    scene: Annotated[
        Path | None, path_option("--scene", "For capture: play this recorded scene.")
    ] = None,
    speed: Speed = None,
    sites: Annotated[
        str | None,
        text_option(
            "--sites", "SITES", "For capture: only these sites of the config, with commas."
        ),
    ] = None,
) -> int:
    """Run one stage in a process of its own, over Kafka; `record` records into files."""
    from workers import worker

    order = worker.WorkerOptions(
        stage=stage,
        instance=instance,
        recorded=recorded,
        faust=faust,
        state=state,
        scene=scene,
        speed=speed,
        sites=tuple(sites.split(",")) if sites else (),
    )
    if stage == RECORD:
        from workers import record_worker

        order.check()
        return record_worker.run(config, instance=instance, state=state)
    return worker.run(order, config)


@command(topics, "create")
def _topics_create(
    config: Config,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would be done.")] = False,
    grow: Annotated[bool, flag("--grow", "Allow more partitions, when all is read.")] = False,
    shrink: Annotated[
        bool, flag("--shrink", "Allow shorter or smaller retention, and smaller records.")
    ] = False,
) -> int:
    """Make the topics as the config says, or change them so."""
    from workers.bus import connect, topic_admin

    settings, bus, secrets = connect.load_kafka_config(config)
    with connect.admin(bus, secrets) as brokers:
        for line in topic_admin.create(
            settings, bus, brokers, dry=dry_run, grow=grow, shrink=shrink
        ):
            print(line)
    return OK


@command(topics, "list")
def _topics_list(config: Config, as_json: Json = False) -> int:
    """Show what there is, and who reads it."""
    import msgspec

    from workers.bus import connect, topic_admin

    _, bus, secrets = connect.load_kafka_config(config)
    with connect.admin(bus, secrets) as brokers:
        found = topic_admin.rows(brokers)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        for line in topic_admin.table(found):
            print(line)
    return OK


Site = Annotated[str | None, text_option("--site", "SITE", "Only of this site.")]
Who = Annotated[
    str | None, text_option("--subscriber", "NAME", "Only the alerts of this subscriber.")
]
Since = Annotated[str, time_option("--since", "Only since then.")]


@command(dead, "list")
def _dead_list(
    config: Config,
    site: Site = None,
    subscriber: Who = None,
    since: Since = "",
    state: State = None,
    as_json: Json = False,
) -> int:
    """Show what is dead: where it stood, whose it was and why."""
    from workers.bus.dead_letter_store import stored_letters
    from workers.config import loader

    settings = loader.load(config)
    none = True
    with stored_letters(settings, config, state, since, site, subscriber) as found:
        for each in found:
            none = False
            print(json.dumps(each.row()) if as_json else each.line())
    if none and not as_json:
        of = f" of site {site}" if site else ""
        of += f" of subscriber {subscriber}" if subscriber else ""
        print(f"there are no dead letters{of}{f' since {since}' if since else ''}")
    return OK


@command(dead, "retry")
def _dead_retry(
    config: Config,
    ids: Annotated[
        list[str] | None,
        text_argument("What to retry, as `dead list` names it: 0:17.", metavar="ID"),
    ] = None,
    every: Annotated[
        bool, flag("--all", "Retry all, or all of a site, a subscriber or a time.")
    ] = False,
    site: Site = None,
    subscriber: Who = None,
    since: Since = "",
    state: State = None,
    as_json: Json = False,
) -> int:
    """Send it again, to its topic or to the one subscriber; a daemon may run meanwhile."""
    from workers.bus.dead_letter_store import retry
    from workers.config import loader

    if bool(ids) == every:
        msg = "dead retry: either the ids that `fusewatch dead list` gives, or --all"
        raise ConfigError(msg)
    settings = loader.load(config)
    all_went = True
    for went, line in retry(
        settings,
        config,
        state,
        ids=ids or [],
        since=since,
        site=site,
        subscriber=subscriber,
        as_json=as_json,
    ):
        all_went = all_went and went
        print(line)
    return OK if all_went else FOUND
