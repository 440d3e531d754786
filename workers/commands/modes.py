"""The commands that set the mode of a site by hand: mode and snooze."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError
from workers.commands.options import Json, flag, path_option, text_argument, text_option
from workers.exit_codes import OK

_Site = Annotated[str, text_argument("The site.")]
_For = Annotated[str | None, text_option("--for", "SPAN", "How long, such as 90s, 30m, 2h or 3d.")]
_By = Annotated[str | None, text_option("--by", "NAME", "Who you are.")]
_Config = Annotated[
    Path | None, path_option("--config", "The daemon's config, with address and token.")
]
_Url = Annotated[
    str | None,
    text_option("--url", "URL", "The daemon's address (default: that of the running one)."),
]
_State = Annotated[
    Path | None, path_option("--state", "The state folder that holds the token.", "DIR")
]


def mode(
    site: _Site,
    mode: Annotated[
        str | None,
        text_argument("armed, disarmed, home, ...; auto is by schedule. None shows what holds."),
    ] = None,
    lasts: _For = None,
    by: _By = None,
    config: _Config = None,
    url: _Url = None,
    state: _State = None,
    as_json: Json = False,
) -> int:
    """Arm or disarm a site, or show the mode that is in force.

    It holds for the time of --for, else until the next one. It outranks the schedule.
    """
    from workers.capture.report_client import read_mode, send_mode
    from workers.setup.report_target import report_target

    if mode is not None and not (by or "").strip():
        msg = "--by NAME is missing: who sets the mode?"
        raise ConfigError(msg)
    if mode is None and (by is not None or lasts is not None):
        msg = "--for and --by are for a mode: fusewatch mode SITE MODE --for 2h --by NAME"
        raise ConfigError(msg)
    target = report_target(site, config=config, url=url, state=state)
    if mode is None:
        found = read_mode(target.url, target.token, site)
    else:
        given = {"mode": mode, "by": by} | ({"for": lasts} if lasts else {})
        found = send_mode(target.url, target.token, site, "mode", given)
    _show(found, as_json=as_json)
    return OK


def snooze(
    context: typer.Context,
    site: _Site,
    by: Annotated[str, text_option("--by", "NAME", "Who you are.")],
    rule: Annotated[
        str | None, text_argument("The rule's name (default: all rules of the site).")
    ] = None,
    lasts: _For = None,
    end: Annotated[bool, flag("--end", "End the snooze now.")] = False,
    config: _Config = None,
    url: _Url = None,
    state: _State = None,
    as_json: Json = False,
) -> int:
    """Let a rule, or all rules of a site, judge nothing for some time."""
    from workers.capture.report_client import send_mode
    from workers.setup.report_target import report_target

    if not by.strip():
        msg = "--by NAME is missing: who snoozes it?"
        raise ConfigError(msg)
    if (lasts is None) != end:
        context.fail("either --for SPAN, or --end")
    target = report_target(site, config=config, url=url, state=state)
    given: dict[str, object] = {"by": by, **({"end": True} if end else {"for": lasts})}
    if rule is not None:
        given["rule"] = rule
    _show(send_mode(target.url, target.token, site, "snooze", given), as_json=as_json)
    return OK


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    how = "by hand" if found["by_hand"] else "by schedule"
    print(f"{found['site']}: {found['mode']}, {how}{_times(found)}")
    for each in found["snoozed"]:
        what = "all rules" if each["rule"] == "*" else f"rule {each['rule']}"
        print(f"  {what} snoozed{_times(each)}")


def _times(found: Mapping[str, Any]) -> str:
    """Since when, until when, and by whom; in the time zone of this machine."""
    since, until, by = found["since"], found["until"], found.get("by")
    return (
        (f", since {_clock(since)}" if since is not None else "")
        + (f", until {_clock(until)}" if until is not None else "")
        + (f", by {by}" if by else "")
    )


def _clock(time: int) -> str:
    return f"{datetime.fromtimestamp(time // 10**9, UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"
