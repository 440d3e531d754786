"""Publishes what judges each site (`configs.v1`), and finds what judged it at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from models.fusion.head import RULES_HEAD, Head
from models.registry import REGISTRY
from pipeline import codec, topics
from pipeline.config.judging import site_config
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.ports import Bus, Stage
from pipeline.types import SiteConfig
from workers.stages.fusion import FusionStage


@runtime_checkable
class HashedHead(Protocol):
    """A head that is a file, and knows its hash."""

    @property
    def sha256(self) -> str: ...


def judging(
    settings: Config, heads: Mapping[str, Head], start: int, *, recorded: bool = False
) -> list[SiteConfig]:
    """Returns what judges each site of a config from `start` (ns) on, with these heads.

    `recorded`: recordings are judged.
    """
    found = []
    for name, site in settings.sites.items():
        head = heads.get(name)
        made = site_config(
            name,
            site,
            settings.models,
            REGISTRY,
            start=start,
            recorded=recorded,
            head=RULES_HEAD if head is None else head.version,
            head_sha256=head.sha256 if isinstance(head, HashedHead) else "",
        )
        found.append(made)
    return found


class ConfigHistory:
    """Publishes what judges the sites, where it differs from what judged them before.

    `before` are the records that the topic holds. `recorded`: recordings are judged.
    """

    def __init__(
        self, settings: Config, bus: Bus, before: Iterable[SiteConfig], *, recorded: bool
    ) -> None:
        self._settings, self._bus, self._recorded = settings, bus, recorded
        self._newest = {config.site: config for config in before}

    def newest(self, site: str) -> SiteConfig | None:
        """Returns what judges a site now; any thread may call it."""
        return self._newest.get(site)

    def publish(self, heads: Mapping[str, Head], start: int) -> None:
        """Publishes what differs from `start` (ns) on; it is durable when it returns.

        A recording that is older than the newest record needs a record of its own time.
        """
        for config in judging(self._settings, heads, start, recorded=self._recorded):
            known = self._newest.get(config.site)
            if known and known.hash == config.hash and known.start <= start:
                continue
            self._bus.publish(topics.CONFIGS, config.site, codec.encode(config))
            self._newest[config.site] = config
        self._bus.flush()


def heads_of(stages: Iterable[Stage]) -> Mapping[str, Head] | None:
    """Returns the heads in use, if one of the stages is fusion."""
    return next((stage.heads for stage in stages if isinstance(stage, FusionStage)), None)


def read_configs(values: Iterable[bytes]) -> Iterator[SiteConfig]:
    """Yields the records of `configs.v1`; what is none is passed over."""
    for value in values:
        try:
            record = codec.decode(value)
        except DecodeError:
            continue
        if isinstance(record, SiteConfig):
            yield record


def in_force(configs: Sequence[SiteConfig], site: str, since: int, until: int) -> list[SiteConfig]:
    """Returns what judged a site in `[since, until)` ns, oldest first.

    The first one begins at or before `since`; if there is none, that time is unknown.
    """
    ours = sorted((c for c in configs if c.site == site), key=lambda config: config.start)
    before = [config for config in ours if config.start <= since]
    return [*before[-1:], *(config for config in ours if since < config.start < until)]
