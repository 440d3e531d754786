"""SIGHUP: other fusion heads, loaded into what runs; nothing else of the config is read again.

A head that cannot be loaded changes nothing: those that are loaded stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from pipeline.config.schema import Config
from pipeline.errors import FusewatchError
from workers import graph
from workers.config import loader
from workers.stages.site_plan import load_heads
from workers.stages.site_state import RULES_HEAD, Head

log = logging.getLogger("fusewatch")


@runtime_checkable
class Swaps(Protocol):
    """A stage that can judge by other heads (site -> head) from its next window on."""

    def swap(self, heads: Mapping[str, Head]) -> None: ...


def reload_heads(
    path: Path,
    nodes: Iterable[graph.Node] = (),
    load: Callable[[Config], Mapping[str, Head]] = load_heads,
) -> None:
    """Load the heads that the config in `path` names now, and give them to the fusion node.

    Whatever comes of it is logged; what cannot be read or loaded leaves everything as it is.
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
    named = (
        f"{site}: {heads[site].version if site in heads else RULES_HEAD}" for site in settings.sites
    )
    log.info("reload: heads are now %s", ", ".join(named))
