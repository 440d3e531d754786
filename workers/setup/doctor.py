"""Checks this machine and, with a config, whether what it names works (`fusewatch doctor`).

Every check reports what it found and, if something is wrong, what to do. It changes nothing, and no
message holds an address with its password or a secret.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models import weights
from pipeline.config.checks import webhook_names
from pipeline.config.schema import Camera, Config, Microphone, size_bytes
from pipeline.errors import ConfigError, FusewatchError, OutsideError, SourceLost
from pipeline.types import AudioChunk, FrameChunk
from workers.capture import factory
from workers.config import source_address, ssrf_guard
from workers.config.secrets import Secrets
from workers.stages.site_plan import load_head

SOURCE_TIMEOUT = 20.0  # s for a source to give its frame or second
SOURCE_RETRY_AFTER = 1.0  # s after which a network source that failed is tried once more
MUTED_BELOW = 3  # of 32768; a microphone that stays below is muted or dead


class Check(msgspec.Struct, frozen=True):
    """The result of one check; `detail` is what was found and what to do."""

    name: str
    ok: bool
    detail: str


def doctor(
    config: Config | None,
    env: Mapping[str, str] = os.environ,
    base: Path | None = None,
    devices: Path = Path("/sys/class/video4linux"),
) -> list[Check]:
    """Checks devices, weights, disk and, with a config, each of its sources and webhooks.

    `base` is the folder that relative paths start from: the config's; default: the working folder.
    """
    secrets = Secrets(env, base)
    found = [_cameras(devices), _microphones(config)]
    found += [_weights(name, env) for name in _names(config)]
    if config is not None:
        found += _heads(config)
        found += _state(config)
        found += _tried(config, secrets, base or Path.cwd())
        found += _webhooks(config, secrets)
    return [msgspec.structs.replace(one, detail=secrets.redact(one.detail)) for one in found]


def show(checks: list[Check], *, as_json: bool) -> None:
    """Prints the checks as a table for a person, or as JSON for a program."""
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(checks), indent=2) + "\n")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[bold red]problem[/]"
        table.add_row(mark, escape(check.name), escape(check.detail))
    Console(file=sys.stdout).print(table)


def _cameras(devices: Path) -> Check:
    """Lists the Video4Linux devices and checks that this user may open them."""
    found, closed = [], []
    for device in sorted(devices.glob("video*"), key=lambda path: (len(path.name), path.name)):
        number = device.name.removeprefix("video")
        label = (device / "name").read_text(errors="replace").strip()
        found.append(f"device:{number} {label}")
        if not os.access(Path("/dev") / device.name, os.R_OK | os.W_OK):
            closed.append(number)
    detail = ", ".join(found) or "none on this machine"
    if closed:
        detail += f"; no right to open {', '.join(closed)}: add this user to the group `video`"
    return Check("cameras", not closed, detail)


def _microphones(config: Config | None) -> Check:
    rooms = (
        [room for site in config.sites.values() for room in site.microphones.values()]
        if config
        else []
    )
    needed = any(str(room.source).startswith("device:") for room in rooms)
    if importlib.util.find_spec("pyaudio") is None:
        detail = (
            "PyAudio is not installed: pip install 'fusewatch[microphone]' (apt: portaudio19-dev)"
        )
        return Check("microphones", not needed, detail)
    from workers.capture.microphone import microphones  # noqa: PLC0415 - an extra, may be left out

    names = [" ".join(name.split()) for name in microphones()]
    return Check(
        "microphones", bool(names) or not needed, ", ".join(names) or "none on this machine"
    )


def _names(config: Config | None) -> tuple[str, ...]:
    if config is None:
        return weights.DEFAULTS
    models = (config.models.detector, config.models.sound, config.models.speech, config.models.text)
    return tuple(dict.fromkeys(model.weights for model in models))


def _weights(name: str, env: Mapping[str, str]) -> Check:
    if name not in weights.DEFAULTS:
        path = Path(name).expanduser()
        detail = f"{path}" if path.exists() else f"{path} is not there, and no registered name"
        return Check(f"weights {name}", path.exists(), detail)
    row = next(row for row in weights.list_weights(env) if row["name"] == name)
    wrong = f"{row['state']}; download it: fusewatch weights pull {name}"
    right = row["state"] == "right"
    return Check(f"weights {name}", right, f"{row['folder']}" if right else wrong)


def _heads(config: Config) -> Iterator[Check]:
    """Loads the fusion heads that sites name and reports their versions."""
    from workers.stages.site_state import RULES_HEAD  # noqa: PLC0415

    sites: dict[str, list[str]] = {}
    for site, given in config.sites.items():
        if given.fusion.head != RULES_HEAD:
            sites.setdefault(given.fusion.head, []).append(site)
    for head, users in sites.items():
        name = f"fusion head of {', '.join(users)}"
        try:
            yield Check(name, True, load_head(head).version)
        except FusewatchError as error:
            yield Check(name, False, str(error))


def _state(config: Config) -> Iterator[Check]:
    """Checks that the state folder is writable and has room for `storage.cap`."""
    folder = Path(config.state).expanduser()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Check("state folder", False, f"{there} cannot be written: {error.strerror}")
    else:
        yield Check(
            "state folder", True, f"{folder}" + ("" if there == folder else " (to be made)")
        )
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free, cap = shutil.disk_usage(there).free, size_bytes(config.storage.cap)
    detail = f"{free / 1e9:.1f} GB are free, {used / 1e9:.1f} used; the cap is {cap / 1e9:.1f}"
    yield Check(
        "disk", free + used >= cap, detail if free + used >= cap else f"{detail}: lower storage.cap"
    )
    for secret in ("token", "webhook-secret"):
        file = folder / secret
        if file.exists() and file.stat().st_mode & 0o077:
            yield Check(f"file {secret}", False, f"others may read it: chmod 600 {file}")


def _tried(config: Config, secrets: Secrets, base: Path) -> list[Check]:
    """Tries all sources at once: a frame of every camera, a second of every microphone."""
    jobs: list[tuple[str, Callable[[], str]]] = []
    for site_name, site in config.sites.items():
        for kind, named in (("camera", site.cameras), ("microphone", site.microphones)):
            for name, settings in named.items():
                path = f"sites.{site_name}.{kind}s.{name}.source"

                def job(
                    kind: str = kind,
                    site: str = site_name,
                    name: str = name,
                    settings: Camera | Microphone = settings,
                    path: str = path,
                ) -> str:
                    address = source_address.parse(
                        secrets.source(settings.source, path), kind, base
                    )
                    try:
                        return _first(address, kind, site, name, settings)
                    except SourceLost:
                        if address.scheme not in source_address.NETWORK_SCHEMES:
                            raise
                    time.sleep(
                        SOURCE_RETRY_AFTER
                    )  # a camera may still be busy with a viewer that just left
                    return _first(address, kind, site, name, settings)

                jobs.append((f"{kind} {site_name}/{name}", job))
    return _together(jobs)


def _first(
    address: source_address.Address, kind: str, site: str, name: str, settings: Camera | Microphone
) -> str:
    """Describes the first frame or the first second; raises SourceLost."""
    camera, room = (name, "") if kind == "camera" else ("", name)
    begun = time.monotonic()
    source = factory.source(
        address, site, camera, room, settings, clock=time.time_ns, count=lambda *_: None
    )
    heard = b""
    try:
        for chunk in source:
            took = time.monotonic() - begun
            match chunk:
                case FrameChunk():
                    return (
                        f"{address}: a frame of {chunk.width} x {chunk.height} after {took:.1f} s"
                    )
                case AudioChunk():
                    heard += chunk.data
                    if len(heard) >= 2 * chunk.rate * chunk.channels:
                        return f"{address}: a second of sound, {_loudness(heard)}"
    finally:
        source.close()
    msg = "it ended before it gave " + ("a frame" if kind == "camera" else "a second of sound")
    raise OutsideError(msg)


def _loudness(heard: bytes) -> str:
    peak = max(abs(sample) for sample in memoryview(heard).cast("h"))
    if peak < MUTED_BELOW:
        msg = "it gives silence only: is it muted?"
        raise OutsideError(msg)
    return f"peak {100 * peak / 32768:.1f} % of full scale"


def _together(jobs: list[tuple[str, Callable[[], str]]]) -> list[Check]:
    """Runs the jobs at once; a job that hangs is reported as a problem and abandoned."""
    checks: dict[str, Check] = {}
    bugs: list[Exception] = []

    def work(name: str, job: Callable[[], str]) -> None:
        try:
            checks[name] = Check(name, True, job())
        except FusewatchError as error:
            checks[name] = Check(name, False, str(error))
        except ImportError as error:
            checks[name] = Check(name, False, f"the package {error.name} is not installed")
        except Exception as error:
            bugs.append(error)

    threads = [
        threading.Thread(target=work, args=job, name=f"doctor {job[0]}", daemon=True)
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SOURCE_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for bug in bugs:
        raise bug
    late = f"gave nothing within {SOURCE_TIMEOUT:g} s"
    return [checks.get(name) or Check(name, False, late) for name, _ in jobs]


def _webhooks(config: Config, secrets: Secrets) -> Iterator[Check]:
    """Checks that secrets exist and that hosts have allowed addresses; sends nothing."""
    for i, (known, given) in enumerate(zip(webhook_names(config), config.webhooks, strict=True)):
        name = f"webhook {known}"
        try:
            target = ssrf_guard.target(secrets.webhook(given, f"webhooks[{i}]"))
            reached = ", ".join(ssrf_guard.allowed(target))
        except (ConfigError, OutsideError) as error:
            yield Check(name, False, str(error))
        else:
            yield Check(name, True, f"{target.place} is {reached}; try it: fusewatch webhooks test")
