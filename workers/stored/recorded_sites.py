"""Which sites and sources a recording or a log has, and whether the config judges any of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from pipeline import topics
from pipeline.config.problem import nearest
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import rfc3339
from workers.bus.history import History
from workers.bus.site_configs import read_configs
from workers.recordings.recording import Recording
from workers.runtime.printable import printable
from workers.stored.rules_then import NOW, THEN
from workers.stored.selection import Selection

MOST_NAMED = 10  # sites or sources in a message
log = logging.getLogger("fusewatch")


class NotSelected(ConfigError):
    """An input has nothing of the sites, sources or times that the options select."""


def stored_sites(stored: History) -> frozenset[str]:
    """Returns the sites that a recording or a log has; none where it does not say.

    A log knows them by what judged them.
    """
    if isinstance(stored, Recording):
        return frozenset(stored.sites)
    return frozenset(
        config.site
        for config in read_configs(entry.value for entry in stored.appended(topics.CONFIGS))
    )


def check_sites(
    settings: Config, chosen: Selection, has: Collection[str], name: str, *, then: bool = True
) -> None:
    """Raises ConfigError if an input that `has` these sites has none of those that are meant.

    `name` names the input; `then`: it can be judged by the rules that it holds. Nothing is known of
    an input that has no site.
    """
    if not has:
        return
    if chosen.sites:
        if not set(chosen.sites) & set(has):
            msg = f"{name}: is of {_sites(has)}, and --site names {_listed(chosen.sites)}"
            raise NotSelected(msg)
        return
    if not set(has) & set(settings.sites):
        hint = nearest(min(has), settings.sites)
        msg = (
            f"{name}: is of {_sites(has)}, and the config has {_sites(settings.sites)}{hint}; "
            "name a config that has one of them"
        )
        if then:
            msg += f", or let `replay` and `explain` judge by the rules of then: --config {THEN}"
        raise ConfigError(msg)


def warn_of_others(settings: Config, chosen: Selection, has: Collection[str], name: str) -> None:
    """Names the sites of an input that are not judged, because the config lacks them."""
    foreign = set(has) - set(settings.sites)
    if foreign and not chosen.sites:
        said = f"{name}: also holds {_sites(foreign)}, which the config lacks: it is not judged"
        log.warning("%s", printable(said))


def check_recording(
    settings: Config, chosen: Selection, recording: Recording, path: Path, *, rules: str = NOW
) -> None:
    """Raises ConfigError if a recording has nothing that is judged: no site, source or time.

    By the rules of then, its sites need not be in the config.
    """
    if not recording.sites:
        msg = f"{path}: holds nothing that a site has seen, heard or reported"
        raise ConfigError(msg)
    if rules == NOW:
        holds = topics.CONFIGS in recording.topics
        check_sites(settings, chosen, recording.sites, str(path), then=holds)
        warn_of_others(settings, chosen, recording.sites, str(path))
    sources = {
        name: None
        for site, names in recording.sources.items()
        if chosen.judges(site)
        for name in names
    }
    check_sources(chosen, sources, path)
    start, end = recording.span
    check_span(chosen, start, end + 1, path)


def check_sources(chosen: Selection, has: Collection[str], path: Path) -> None:
    """Raises NotSelected if an input has none of the sources that are chosen."""
    if chosen.sources and not set(chosen.sources) & set(has):
        known = f"it has {_listed(has)}" if has else "it has none"
        msg = f"{path}: has no source {_listed(chosen.sources)}, which --source names; {known}"
        raise NotSelected(msg)


def check_span(chosen: Selection, start: int, end: int, path: Path) -> None:
    """Raises NotSelected if `[start, end)` ns of an input has nothing of the span."""
    if chosen.since is None or chosen.until is None:
        return
    if chosen.since >= end or chosen.until <= start:
        begins, ends = (f"{rfc3339(time)[:19]}Z" for time in (start, end))
        msg = (
            f"{path}: has nothing between --since and --until: it begins at {begins} and ends at "
            f"{ends}"
        )
        raise NotSelected(msg)


def scene_sources(names: Iterable[str]) -> frozenset[str]:
    """Returns the sources of a scene: those that it plays, and reports, which may always come."""
    return frozenset((*names, REPORTS_SOURCE))


def _sites(names: Iterable[str]) -> str:
    found = sorted(names)
    return f"the site{'s' if len(found) != 1 else ''} {_listed(found)}"


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
