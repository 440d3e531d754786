"""The settings that judge a site, as canonical JSON, and what differs between two of them.

They are published with the hash of the fusion head (`SiteConfig`), so that a later replay can say
what is different now. They hold no address, path or secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from pipeline.config.fields import HIDDEN
from pipeline.config.schema import Model, Models, Site
from pipeline.errors import ConfigError
from pipeline.types import SiteConfig

SOURCE = "config"  # the source of a SiteConfig
UNSET = "not set"
# Fields of a site that are left out: addresses and secrets, the path of a head, and what decides
# which frames there are, and not what is found in them
LEFT_OUT = HIDDEN | {"username", "path", "head", "decode", "hwaccel"}
OWN_FILE = "a file"  # in place of the path of a model that is not registered


def site_config(
    name: str,
    site: Site,
    models: Models,
    registered: Collection[str],
    *,
    start: int,
    head: str,
    head_sha256: str,
    recorded: bool = False,
) -> SiteConfig:
    """Returns the record of what judges the site from `start` (ns) on.

    `registered` are the names of weights that may be told; other weights are paths. `recorded`:
    recordings are judged.
    """
    settings = msgspec.json.encode(_judging(site, models, registered), order="sorted").decode()
    whole = "\x1f".join((settings, head, head_sha256, str(recorded)))
    return SiteConfig(
        site=name,
        source=SOURCE,
        start=start,
        hash=hashlib.sha256(whole.encode()).hexdigest(),
        head=head,
        head_sha256=head_sha256,
        recorded=recorded,
        settings=settings,
    )


def _judging(site: Site, models: Models, registered: Collection[str]) -> dict[str, Any]:
    told: dict[str, Any] = _plain(site)
    told["models"] = {
        name: {
            "kind": model.kind,
            "weights": model.weights if model.weights in registered else OWN_FILE,
            "providers": list(model.providers),
        }
        for name, model in msgspec.structs.asdict(models).items()
    }
    return told


def _plain(value: Any) -> Any:
    """Returns settings as JSON values, with every field but those that are left out."""
    match value:
        case msgspec.Struct():
            config = value.__struct_config__
            tag = {str(config.tag_field): config.tag} if config.tag else {}
            names = [name for name in value.__struct_fields__ if name not in LEFT_OUT]
            return tag | {name: _plain(getattr(value, name)) for name in names}
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
        case float() if value.is_integer():
            return int(value)  # `size: 4` and a default of 4.0 are the same
        case _:
            return value


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a `SiteConfig` holds: those of the site, and each model by its name.

    Cameras and microphones have no address, and a model of an own file has the weights `OWN_FILE`.
    """

    site: Site
    models: Mapping[str, Model]


def judged_settings(config: SiteConfig, head: str) -> Judged:
    """Returns what `site_config` has stored, with the fusion head `head`; raises ConfigError."""
    try:
        told = msgspec.json.decode(config.settings)
        models = told.pop("models")
        for microphone in told["microphones"].values():
            microphone["source"] = ""
        told["fusion"]["head"] = head
        return Judged(
            site=msgspec.convert(told, Site), models=msgspec.convert(models, dict[str, Model])
        )
    except (msgspec.MsgspecError, KeyError, AttributeError, TypeError) as error:
        msg = (
            f"what judged sites.{config.site} then was stored by another version of Fusewatch, and "
            f"this one cannot judge by it ({error})"
        )
        raise ConfigError(msg) from error


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that is another one now; `path` is like `sites.office.rules[1].severity`."""

    path: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.path} was {self.was}, is {self.now}"


def differences(was: SiteConfig, now: SiteConfig) -> list[Difference]:
    """Returns what judged a site differently, setting by setting."""
    if was.hash == now.hash:
        return []
    place = f"sites.{now.site}"
    found = list(
        _differ(place, msgspec.json.decode(was.settings), msgspec.json.decode(now.settings))
    )
    heads = _head(was), _head(now)
    if heads[0] != heads[1]:
        found.append(Difference(path=f"{place}.fusion.head", was=heads[0], now=heads[1]))
    return found


def _head(config: SiteConfig) -> str:
    short = config.head_sha256[:8]
    return config.head if not short or short in config.head else f"{config.head} ({short})"


def _differ(path: str, was: Any, now: Any) -> Iterator[Difference]:
    match was, now:
        case dict(), dict():
            for key in sorted(was.keys() | now.keys()):
                yield from _differ(f"{path}.{key}", was.get(key, UNSET), now.get(key, UNSET))
        case list(), list() if _nested(was) and _nested(now):
            for i in range(max(len(was), len(now))):
                each = [side[i] if i < len(side) else UNSET for side in (was, now)]
                yield from _differ(f"{path}[{i}]", *each)
        case _ if was != now:
            yield Difference(path=path, was=_shown(was), now=_shown(now))


def _nested(values: list[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
