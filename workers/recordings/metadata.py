"""What a recording says of itself: versions, hashes, its log, and where its run-up ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

import msgspec

from models.registry import REGISTRY
from pipeline.types import SiteConfig
from workers.recordings.file_index import CHECKSUM, checksum

ABOUT, CONFIG = "fusewatch.recording", "fusewatch.config"  # names of metadata records
FORMAT = 1  # the version of what we write into MCAP files
_PACKAGES = ("fusewatch", "mcap", "onnxruntime", "faster-whisper", "ai-edge-litert", "av")


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of its recording; empty strings and None where it says nothing."""

    log: str = ""  # names the log or the brokers' topics that were recorded, without an address
    since: int | None = None  # ns; entries of an earlier event time are the run-up
    sites: tuple[str, ...] = ()  # the sites that were recorded; none: all
    written: str = ""  # RFC 3339; the wall time at which the file was begun
    versions: Mapping[str, str] = {}  # package -> version


def about_record(about: About) -> dict[str, str]:
    """Returns the metadata record that says this."""
    told = {
        "format": str(FORMAT),
        "log": about.log,
        "since": "" if about.since is None else str(about.since),
        "sites": ",".join(about.sites),
        "written": about.written,
        **{f"version.{name}": text for name, text in versions().items()},
    }
    return told | {CHECKSUM: checksum(told)}


def about_of(records: Iterable[tuple[str, Mapping[str, str]]]) -> About:
    """Returns what the metadata records of a file say; what is damaged is left out."""
    found = next((data for name, data in records if name == ABOUT), {})
    since = found.get("since", "")
    return About(
        log=found.get("log", ""),
        since=int(since) if since.isdecimal() and since.isascii() else None,
        sites=tuple(filter(None, found.get("sites", "").split(","))),
        written=found.get("written", ""),
        versions={
            name.removeprefix("version."): text
            for name, text in found.items()
            if name.startswith("version.")
        },
    )


def config_record(config: SiteConfig) -> dict[str, str]:
    """Returns the metadata record of what judges a site: hashes, head and models."""
    told = {
        "site": config.site,
        "since": str(config.start),
        "hash": config.hash,
        "head": config.head,
        "head_sha256": config.head_sha256,
        **_models(config.settings),
    }
    return told | {CHECKSUM: checksum(told)}


def versions() -> dict[str, str]:
    """The versions of Fusewatch and of what it decodes and judges with."""
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _models(settings: str) -> dict[str, str]:
    """Name and hash of each model in the settings of a site."""
    try:
        models = msgspec.json.decode(settings, type=dict[str, object]).get("models", {})
    except msgspec.DecodeError:
        return {}
    return {
        f"model.{name}": _hashed(str(model.get("weights", "")))
        for name, model in (models.items() if isinstance(models, dict) else ())
        if isinstance(model, dict)
    }


def _hashed(weights: str) -> str:
    """The name of weights, with the SHA-256 of each of their files."""
    known = REGISTRY.get(weights)
    files = () if known is None else known.files
    return " ".join((weights, *(f"{file.name}:{file.sha256}" for file in files)))
