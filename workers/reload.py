"""Loads the config's fusion heads again on SIGHUP; nothing else of the config is reloaded.

If a head cannot be loaded, nothing changes: the loaded heads stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from models.fusion.head import RULES_HEAD, Head
from pipeline.config.schema import Config
from pipeline.errors import FusewatchError
from workers import graph
from workers.config import loader
from workers.stages.site_plan import load_heads

log = logging.getLogger("fusewatch")


@runtime_checkable
class Swaps(Protocol):
    """A stage that can replace its heads (site -> head) from its next window on."""

    def swap(self, heads: Mapping[str, Head]) -> None: ...


def reload_heads(
    path: Path,
    nodes: Iterable[graph.Node] = (),
    load: Callable[[Config], Mapping[str, Head]] = load_heads,
    swapped: Callable[[Mapping[str, Head]], object] = lambda heads: None,
) -> None:
    """Loads the heads that the config in `path` names now and swaps them into the fusion node.

    `swapped` gets the new heads. The outcome is logged. If the config or a head cannot be read,
    nothing changes.
    """
    stages = [node.stage for node in nodes if isinstance(node.stage, Swaps)]
    if not stages:
        log.info("reload: there is nothing to reload here: only fusion has heads")
        return
    try:
        settings = loader.load(path)
        heads = load(settings)
    except (FusewatchError, OSError) as error:
        log.error("reload: %s; the heads that are loaded stay", error)
        return
    for stage in stages:
        stage.swap(heads)
    swapped(heads)
    named = (
        f"{site}: {heads[site].version if site in heads else RULES_HEAD}" for site in settings.sites
    )
    log.info("reload: heads are now %s", ", ".join(named))
