"""Finds the daemon that takes a report, and its token."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline.config.problem import nearest
from pipeline.config.schema import Api
from pipeline.errors import ConfigError, OutsideError
from workers.capture.report_client import read_token
from workers.capture.running_daemons import RunningDaemon, running
from workers.config import loader
from workers.config.secrets import Secrets

DEFAULT_STATE = Path("~/.local/state/fusewatch")


class ReportTarget(msgspec.Struct, frozen=True):
    """The address of a daemon, and the token that it takes."""

    url: str
    token: str


def report_target(
    site: str,
    *,
    config: Path | None = None,
    url: str | None = None,
    state: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> ReportTarget:
    """Returns where a report about `site` goes; what is given comes before what is found.

    Without a config, an address or a state folder it is the one daemon of this user that has the
    site. Raises ConfigError if none or several have it, and OutsideError if no daemon runs.
    """
    if config is not None:
        return _by_config(config, url, state, env)
    daemons = running(env)
    if state is not None:
        same = [each for each in daemons if _same(each.state, state)]
        found = same[0].url if same else _url(Api().listen)
        return ReportTarget(found if url is None else url, read_token(state))
    if url is not None:
        same = [each for each in daemons if each.url == url.rstrip("/")]
        return ReportTarget(url, _token(same[0], env) if same else read_token(None))
    if not daemons and not (DEFAULT_STATE.expanduser() / "token").exists():
        msg = (
            "no Fusewatch of this user runs here; start it: fusewatch run CONFIG; or name one: "
            "--config FILE, --state DIR or --url URL"
        )
        raise OutsideError(msg)
    if not daemons:  # it may be one that could not list itself
        return ReportTarget(_url(Api().listen), read_token(None))
    chosen = _chosen(site, daemons)
    return ReportTarget(chosen.url, _token(chosen, env))


def _by_config(
    config: Path, url: str | None, state: Path | None, env: Mapping[str, str]
) -> ReportTarget:
    settings = loader.load(config, env)
    if settings.api.token and not state:
        secrets = Secrets(env, config.parent)
        token = secrets.lookup(settings.api.token, "api.token").reveal()
    else:
        token = read_token(state or Path(settings.state))
    return ReportTarget(_url(settings.api.listen) if url is None else url, token)


def _chosen(site: str, daemons: Sequence[RunningDaemon]) -> RunningDaemon:
    having = [each for each in daemons if site in each.sites]
    if len(having) == 1:
        return having[0]
    if having:
        which = "; ".join(map(str, having))
        msg = f"{len(having)} daemons have a site `{site}`: {which}. Name one: --state DIR"
        raise ConfigError(msg)
    sites = [name for each in daemons for name in each.sites]
    msg = f"no daemon here has such a site{nearest(site, sites)}; there is {', '.join(sites)}"
    raise ConfigError(msg)


def _token(daemon: RunningDaemon, env: Mapping[str, str]) -> str:
    if not daemon.config:
        return read_token(Path(daemon.state))
    return _by_config(Path(daemon.config), None, None, env).token


def _same(folder: str, given: Path) -> bool:
    return os.path.realpath(folder) == os.path.realpath(given.expanduser())


def _url(listen: str) -> str:
    return f"http://{listen}"
