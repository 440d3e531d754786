"""What a config names and this machine lacks now: variables, files, model weights, packages.

A config stays right while something is missing, so these are warnings. `check` tells them, and
`run` before it loads models. No file is read here: that it is there, and may be read, is enough.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from models.registry import REGISTRY
from models.weight_folders import present
from pipeline.config.model_needs import needed_models
from pipeline.config.problem import Problem, Way, nearest
from pipeline.config.schema import Config, KafkaBus, addresses
from pipeline.errors import ConfigError, install_hint
from pipeline.stages import ALL_STAGES
from workers.config import source_address
from workers.config.adapters import ADAPTERS
from workers.config.findings import ConfigFinding
from workers.config.secrets import checkable, files, references, unset
from workers.config.source_address import host_hint

SHIPPED, RULES = "shipped", "rules"  # heads of fusion that need no folder
_STILL = re.compile(r"\.(jpe?g|png|bmp|gif|webp|tiff?)\Z", re.IGNORECASE)

Env = Mapping[str, str]


def missing(config: Config, env: Env, base: Path) -> Iterator[Problem]:
    """Yields what `config` needs and this machine lacks; `base` is the folder of the config."""
    yield from _secrets(config, env, base)
    yield from _sources(config, env, base)
    yield from _models(config)
    yield from _heads(config)
    if isinstance(config.bus, KafkaBus) and find_spec("kafka") is None:
        yield Problem(("bus", "kind"), f"needs a package: {install_hint('kafka')}")


def downloads(config: Config, env: Env) -> Iterator[Problem]:
    """Yields the registered weights that `run` will download first."""
    for part, model in needed_models(config).items():
        if model.weights in REGISTRY and not present(model.weights, env):
            size = sum(file.size for file in REGISTRY[model.weights].files) / 1e6
            what = f"`{model.weights}` is not here yet; `run` downloads it ({size:.1f} MB)"
            yield Problem(("models", part, "weights"), what)


def concerning(
    config: Config,
    findings: Iterable[ConfigFinding],
    *,
    stages: Sequence[str] = ALL_STAGES,
    sources: bool = True,
    deliveries: bool = True,
) -> list[ConfigFinding]:
    """Returns the findings of a process that runs `stages`, captures `sources`, or delivers."""
    models = needed_models(config, stages)

    def concerns(finding: ConfigFinding) -> bool:
        part, *rest = re.split(r"[.\[]", finding.path)
        match part:
            case "models":
                return rest[0] in models
            case "sites":
                judged = not {"fusion", "rules"}.isdisjoint(rest[1:2])
                return "fusion" in stages if judged else sources
            case "webhooks":
                return deliveries
        return part != "api" or sources

    return [finding for finding in findings if concerns(finding)]


def _secrets(config: Config, env: Env, base: Path) -> Iterator[Problem]:
    for way, text, may_be_file in references(config):
        for name in unset(text, env):
            yield Problem(way, f"the environment variable {name} is not set")
        for path in files(text, env, whole=may_be_file):
            file = base / Path(path).expanduser()
            if why := _unreadable(file):
                yield Problem(way, f"the secret's file {file} {why}")


def _unreadable(file: Path) -> str:
    try:
        if not file.is_file():
            return "is not there"
        if not os.access(file, os.R_OK):
            return "may not be read by this user"
        return "" if file.stat().st_size else "is empty"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _sources(config: Config, env: Env, base: Path) -> Iterator[Problem]:
    for site_name, site in config.sites.items():
        for kind, sources in (("camera", site.cameras), ("microphone", site.microphones)):
            for name, settings in sources.items():
                for at, given in addresses(settings).items():
                    way: Way = ("sites", site_name, f"{kind}s", name, *at)
                    yield from _address(given, kind, way, env, base)


def _address(
    source: str | Mapping[str, str], kind: str, way: Way, env: Env, base: Path
) -> Iterator[Problem]:
    try:
        given = checkable(source, env)
        address = given and source_address.parse(given, kind, base)
    except ConfigError:
        return  # a problem, and told as one
    if isinstance(address, source_address.Address):
        hint = host_hint(given) if isinstance(given, str) else ""
        told = _source(address, kind, f"; the address {hint}" if hint else "")
        yield from (Problem(way, what) for what in told)


def _source(address: source_address.Address, kind: str, hint: str) -> Iterator[str]:
    if address.scheme == "device":
        if kind == "microphone" and find_spec("pyaudio") is None:
            yield f"needs a package: deploy/apt.sh run; {install_hint('microphone')}"
        device = f"/dev/video{address.target}" if address.target.isdecimal() else address.target
        if kind == "camera" and not os.path.exists(device):
            yield f"there is no {device} on this machine; `fusewatch doctor` lists the cameras"
        return
    path = re.split(r"[?#]", address.target)[0]
    if kind == "camera" and _STILL.search(path):
        yield (
            "leads to a single picture, which is no source; give a stream (rtsp:, or MJPEG or "
            "MPEG-TS over http:) or a video file"
        )
    if address.scheme == "file" and (why := _unreadable(Path(address.target))):
        yield f"the file {why}{hint}"


def _models(config: Config) -> Iterator[Problem]:
    for part, model in needed_models(config).items():
        path = Path(model.weights).expanduser()
        if model.weights not in REGISTRY and not os.path.lexists(path):
            known = nearest(model.weights, REGISTRY) or f"; registered are {', '.join(REGISTRY)}"
            yield Problem(
                ("models", part, "weights"),
                f"is no registered name, and {path.absolute()} is not there{known}",
            )
        adapter = ADAPTERS[part].get(model.kind)
        if adapter and adapter.package and find_spec(adapter.package) is None:
            what = f"needs a package: {install_hint(adapter.extra)}"
            yield Problem(("models", part, "kind"), what)


def _heads(config: Config) -> Iterator[Problem]:
    for name, site in config.sites.items():
        head = site.fusion.head
        if head not in (SHIPPED, RULES) and not os.path.isdir(head):
            hint = nearest(head, (SHIPPED, RULES))
            what = f"{Path(head).absolute()} is no folder of a head{hint}"
            yield Problem(("sites", name, "fusion", "head"), what)
