"""Finds the rules, models and heads by which a span was judged then (`--config then`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from models.fusion.head import RULES_HEAD, Head
from pipeline import topics
from pipeline.config.judging import OWN_FILE, UNSET, differences, judged_settings
from pipeline.config.schema import Config, Model, Models, Site
from pipeline.errors import ConfigError, WeightsError
from pipeline.types import SiteConfig, rfc3339
from workers.bus.history import History
from workers.bus.site_configs import HashedHead, in_force, judging, read_configs
from workers.stages.site_plan import SHIPPED_NAME, load_head
from workers.stored.selection import Selection

THEN, NOW = "then", "now"  # by which rules a span is judged
RULES = (NOW, THEN)
INSTEAD = "--config now judges by the rules of now"


class RulesThen(msgspec.Struct, frozen=True, kw_only=True):
    """A config with the rules and models of then, its heads by site, and the stored records."""

    settings: Config
    heads: Mapping[str, Head]
    configs: Sequence[SiteConfig]


def rules_then(
    settings: Config, stored: History, since: int, until: int, chosen: Selection
) -> RulesThen:
    """Returns what judged the chosen sites in `[since, until)` ns; `settings` is the config of now.

    Raises ConfigError, which says what is missing: a site's record, a head, a model.
    """
    known = list(read_configs(entry.value for entry in stored.appended(topics.CONFIGS)))
    names = dict.fromkeys([*settings.sites, *(config.site for config in known)])
    configs = []
    for name in names:
        found = _distinct(in_force(known, name, since, until))
        if not chosen.judges(name):
            configs += found[:1]  # only its time counts
        elif found:
            configs.append(_one(name, found))
        elif name in settings.sites:
            msg = f"what judged sites.{name} then is not stored: there is no record of it; "
            raise ConfigError(msg + INSTEAD)
    sites: dict[str, Site] = {}
    heads: dict[str, Head] = {}
    models: dict[str, Model] = {}
    candidates = _heads(settings)
    for config in configs:
        name = RULES_HEAD
        if config.head != RULES_HEAD:
            name, heads[config.site] = _head(config, candidates)
        told = judged_settings(config, name)
        sites[config.site] = told.site
        for part, model in told.models.items():
            models[part] = _model(part, model, models.get(part), settings.models)
    then = msgspec.structs.replace(settings, sites=sites, models=_models(settings, models))
    _check(then, heads, configs, chosen)
    return RulesThen(settings=then, heads=heads, configs=configs)


def _distinct(found: Sequence[SiteConfig]) -> list[SiteConfig]:
    """What was in force one after another, without those that changed nothing."""
    kept: list[SiteConfig] = []
    for config in found:
        if not kept or config.hash != kept[-1].hash:
            kept.append(config)
    return kept


def _one(site: str, found: Sequence[SiteConfig]) -> SiteConfig:
    if len(found) == 1:
        return found[0]
    cuts = " and ".join(_at(config.start) for config in found[1:])
    changed = ", ".join(each.path for each in differences(found[0], found[1])[:5])
    msg = (
        f"what judged sites.{site} changed at {cuts} ({changed}): judge what lies between apart, "
        f"by --since and --until; {INSTEAD}"
    )
    raise ConfigError(msg)


def _heads(settings: Config) -> list[tuple[str, Head]]:
    """The heads that are here, by the name that a config gives them."""
    names = dict.fromkeys([SHIPPED_NAME, *(site.fusion.head for site in settings.sites.values())])
    found = []
    for name in names:
        if name != RULES_HEAD:
            try:
                found.append((name, load_head(name)))
            except WeightsError:
                continue  # it cannot be the head of then; if it was, that one is missing
    return found


def _head(config: SiteConfig, candidates: Iterable[tuple[str, Head]]) -> tuple[str, Head]:
    for name, head in candidates:
        if isinstance(head, HashedHead) and head.sha256 == config.head_sha256:
            return name, head
    msg = (
        f"the fusion head that judged sites.{config.site} then is not here: {config.head}, "
        f"head.onnx with the SHA-256 {config.head_sha256}; name its folder in "
        f"sites.{config.site}.fusion.head; {INSTEAD}"
    )
    raise ConfigError(msg)


def _model(part: str, then: Model, other: Model | None, now: Models) -> Model:
    """The model of then: its weights by name, or the own file that the config still names."""
    present: Model | None = getattr(now, part, None)
    if present is None:
        msg = f"models.{part} judged then, and this version of Fusewatch has no such model"
        raise ConfigError(msg)
    if then.weights == OWN_FILE:
        if present.kind != then.kind:
            msg = (
                f"models.{part} was a file of {then.kind} then, and its path is not stored: name "
                f"that file in models.{part}; {INSTEAD}"
            )
            raise ConfigError(msg)
        then = msgspec.structs.replace(then, weights=present.weights)
    then = msgspec.structs.replace(then, threads=present.threads)
    if other is not None and other != then:
        msg = f"models.{part} was another one at each site then: choose one of them by --site"
        raise ConfigError(msg)
    return then


def _models(settings: Config, found: Mapping[str, Model]) -> Models:
    return msgspec.structs.replace(settings.models, **found)


def _check(
    then: Config, heads: Mapping[str, Head], configs: Sequence[SiteConfig], chosen: Selection
) -> None:
    """Raises ConfigError if what was built is not what was stored.

    A setting that is new in this version had its default then.
    """
    stored = {config.site: config for config in configs}
    for recorded in (False, True):
        for made in judging(then, heads, 0, recorded=recorded):
            was = stored[made.site]
            if was.recorded != recorded or not chosen.judges(made.site):
                continue
            wrong = [each.path for each in differences(was, made) if each.was != UNSET]
            if wrong:
                msg = (
                    f"what judged sites.{made.site} then cannot be had again: "
                    f"{', '.join(wrong[:5])}; {INSTEAD}"
                )
                raise ConfigError(msg)


def _at(time: int) -> str:
    return f"{rfc3339(time)[:19]}Z"
