"""Checks this machine and, with a config, whether what it names works (`fusewatch doctor`).

Every check reports what it found and, if something is wrong, what to do. It changes nothing, and no
message holds an address with its password or a secret.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models import weights
from models.registry import REGISTRY
from pipeline.config.checks import webhook_names
from pipeline.config.model_needs import needed_models
from pipeline.config.schema import Config, Site, addresses, size_bytes
from pipeline.errors import ConfigError, FusewatchError, OutsideError, install_hint
from workers.capture import factory
from workers.config import source_address, ssrf_guard
from workers.config.findings import ConfigFinding
from workers.config.secrets import Secrets
from workers.delivery.state_log import sentence
from workers.setup import recording_check, storage_estimate, subscriber_health
from workers.setup.source_trial import TRIAL_TIMEOUT, Seen, try_connection
from workers.setup.storage_estimate import Pictures
from workers.setup.subscriber_health import Notes
from workers.stages.site_plan import load_head

PIPE_WIDTH = 1000  # columns
_SOURCE = re.compile(
    r"sites\.([^.]+)\.(camera|microphone)s\.([^.]+)\.(?:source|streams\.(detect|record))"
)
RECORD = "record"  # the stream of a camera that nothing reads yet


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
    problems: Sequence[ConfigFinding] = (),
) -> list[Check]:
    """Checks devices, weights, disk and, with a config, each of its sources and webhooks.

    `base` is the folder that relative paths start from: the config's; default: the working folder.
    `problems` are those of the config; those that no other check tells are listed too.
    """
    secrets = Secrets(env, base)
    found = [_cameras(devices), _microphones(config)]
    found += [_weights(name, env) for name in _names(config)]
    if config is not None:
        found += _heads(config)
        found += _state(config)
        found += _recording(config)
        tried = _tried(config, secrets, base or Path.cwd())
        found += tried.checks.values()
        found += _subscribers(config, secrets)
        found += _storage(config, tried.pictures)
    found = _with_lines(found, problems)
    return [msgspec.structs.replace(one, detail=secrets.redact(one.detail)) for one in found]


def _with_lines(found: Sequence[Check], problems: Sequence[ConfigFinding]) -> list[Check]:
    """Adds the lines of the config's problems to the checks that tell them, or tells them."""
    told = {check.name: check for check in found}
    for problem in problems:
        line = f"{Path(problem.file).name}:{problem.line}"
        of = _SOURCE.fullmatch(problem.path)
        name = _check_name(of[2], of[1], of[3], of[4] or "") if of else ""
        if name in told and told[name].detail == problem.message:
            told[name] = Check(name, False, f"{line}: {problem.message}")
        else:
            told[f"{line} {problem}"] = Check(line, False, f"{problem.path}: {problem.message}")
    return list(told.values())


def _check_name(kind: str, site: str, name: str, stream: str = "") -> str:
    """The name of the check of a source; one of its stream `record` says so."""
    return f"{kind} {site}/{name}" + (f" {RECORD}" if stream == RECORD else "")


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
    # A pipe has no width: its lines are not folded
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


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
        detail = f"PyAudio is not installed: deploy/apt.sh run; {install_hint('microphone')}"
        return Check("microphones", not needed, detail)
    from workers.capture.microphone import microphones  # noqa: PLC0415 - an extra, may be left out

    names = [" ".join(name.split()) for name in microphones()]
    return Check(
        "microphones", bool(names) or not needed, ", ".join(names) or "none on this machine"
    )


def _names(config: Config | None) -> tuple[str, ...]:
    """The weights that the config needs; all but the optional ones without a config."""
    if config is None:
        return weights.DEFAULTS
    return tuple(dict.fromkeys(model.weights for model in needed_models(config).values()))


def _weights(name: str, env: Mapping[str, str]) -> Check:
    if name not in REGISTRY:
        path = Path(name).expanduser()
        detail = f"{path}" if path.exists() else f"{path} is not there, and no registered name"
        return Check(f"weights {name}", path.exists(), detail)
    row = next(row for row in weights.list_weights(env) if row["name"] == name)
    wrong = f"{row['state']}; download it: fusewatch weights pull {name}"
    right = row["state"] == "right"
    return Check(f"weights {name}", right, f"{row['folder']}" if right else wrong)


def _heads(config: Config) -> Iterator[Check]:
    """Loads the fusion heads that sites name and reports their versions."""
    from models.fusion.head import RULES_HEAD  # noqa: PLC0415

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


def _room(config: Config) -> tuple[int, int]:
    """Returns the free bytes of the state folder's disk, and those that the folder takes."""
    folder = Path(config.state).expanduser()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    recorded = recording_check.recording_folder(config)  # `storage.cap` does not count it
    used = sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and recorded not in path.parents
    )
    return shutil.disk_usage(there).free, used


def _recording(config: Config) -> Iterator[Check]:
    """Checks the folder of the continuous recording, if there is to be one."""
    folder = recording_check.recording_folder(config)
    if config.recording is None or folder is None:
        return
    state = Path(config.state).expanduser()
    disks = {recording_check.existing(each).stat().st_dev for each in (folder, state)}
    grows = max(0, size_bytes(config.storage.cap) - _room(config)[1]) if len(disks) == 1 else 0
    yield Check("recording", *recording_check.checked(config.recording, folder, grows))


def _storage(config: Config, pictures: Pictures) -> Iterator[Check]:
    """Says how long the cap and the disk hold what the sources give."""
    if any(site.cameras or site.microphones for site in config.sites.values()):
        yield Check("storage", True, storage_estimate.told(config, pictures, *_room(config)))


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
    free, used = _room(config)
    cap = size_bytes(config.storage.cap)
    detail = (
        f"{free / 1e9:.1f} GB are free, {used / 1e9:.1f} GB used; the cap is {cap / 1e9:.1f} GB"
    )
    yield Check(
        "disk", free + used >= cap, detail if free + used >= cap else f"{detail}: lower storage.cap"
    )
    for secret in ("token", "webhook-secret"):
        file = folder / secret
        if file.exists() and file.stat().st_mode & 0o077:
            yield Check(f"file {secret}", False, f"others may read it: chmod 600 {file}")


class _Found(msgspec.Struct):
    """What the trials of all connections gave."""

    checks: dict[str, Check] = {}
    pictures: dict[tuple[str, str], int] = {}  # (site, camera) -> bytes of a picture


def _tried(config: Config, secrets: Secrets, base: Path) -> _Found:
    """Tries all connections at once, each as `run` makes it; a bad address hides no other."""
    found, jobs, names = _Found(), [], []
    for site_name, site in config.sites.items():
        read: dict[str, dict[str, source_address.Address]] = {}
        for kind, named in (("camera", site.cameras), ("microphone", site.microphones)):
            good = read.setdefault(kind, {})
            for name, settings in named.items():
                for at, source in addresses(settings).items():
                    stream = str(at[-1])
                    names.append(check := _check_name(kind, site_name, name, stream))
                    path = ".".join(map(str, ("sites", site_name, f"{kind}s", name, *at)))
                    try:
                        given = secrets.source(source, path)
                        address = source_address.parse(given, kind, base)
                    except ConfigError as error:
                        found.checks[check] = Check(check, False, str(error))
                        continue
                    if stream == RECORD:
                        jobs.append(_Job(site_name, site, name, "", address, RECORD))
                    else:
                        good[name] = address
        for camera, room, address in factory.connections(*read.values()):
            jobs.append(_Job(site_name, site, camera, room, address))
    _together(jobs, found)
    found.checks = {name: found.checks[name] for name in names}
    return found


class _Job(msgspec.Struct, frozen=True):
    """One connection to try, for a camera, a microphone or both."""

    site_name: str
    site: Site
    camera: str
    microphone: str
    address: source_address.Address
    stream: str = ""

    @property
    def names(self) -> list[str]:
        """The names of the checks that it answers."""
        pairs = (("camera", self.camera), ("microphone", self.microphone))
        return [
            _check_name(kind, self.site_name, name, self.stream) for kind, name in pairs if name
        ]

    def run(self, found: _Found) -> None:
        """Tries the connection and stores the results."""
        try:
            trial = try_connection(
                self.address,
                self.site_name,
                self.site,
                camera=self.camera,
                microphone=self.microphone,
            )
        except FusewatchError as error:
            found.checks.update({name: Check(name, False, str(error)) for name in self.names})
            return
        except ImportError as error:
            what = f"the package {error.name} is not installed"
            found.checks.update({name: Check(name, False, what) for name in self.names})
            return
        if trial.seen is not None and self.stream != RECORD:
            found.pictures[self.site_name, self.camera] = trial.seen.size
        for name in self.names:
            try:
                got = trial.camera() if name.startswith("camera") else trial.microphone()
            except OutsideError as error:
                found.checks[name] = Check(name, False, str(error))
            else:
                told = got.unread if isinstance(got, Seen) and self.stream == RECORD else got
                found.checks[name] = Check(name, True, f"{self.address}: {told}")


def _together(jobs: list[_Job], found: _Found) -> None:
    """Runs the jobs at once; a job that hangs is reported as a problem and abandoned."""
    bugs: list[Exception] = []

    def work(job: _Job) -> None:
        try:
            job.run(found)
        except Exception as error:
            bugs.append(error)

    threads = [
        threading.Thread(target=work, args=(job,), name=f"doctor {job.names[0]}", daemon=True)
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + TRIAL_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for bug in bugs:
        raise bug
    late = f"gave nothing within {TRIAL_TIMEOUT:g} s"
    found.checks = {
        **{name: Check(name, False, late) for job in jobs for name in job.names},
        **found.checks,
    }


def _subscribers(config: Config, secrets: Secrets) -> Iterator[Check]:
    """Checks the webhooks, and tells the files that fail."""
    try:
        notes = subscriber_health.notes(config, secrets)
    except FusewatchError as error:
        yield Check("subscribers", False, str(error))
        notes = {}
    yield from _webhooks(config, secrets, notes)
    for name in sorted(subscriber_health.files(config) & set(notes)):
        wrong = _wrong(config, name, notes)
        yield Check(f"subscriber {name}", not wrong, wrong or "takes alerts")


def _wrong(config: Config, name: str, notes: Notes, address: str = "") -> str:
    """What is wrong with a subscriber, or nothing."""
    try:
        state = subscriber_health.state(config, name, notes, address)
    except OutsideError as error:
        return str(error)
    failed = f"the last attempt failed: {state.reason}; it is tried again at {state.next_try}"
    return sentence(name, state) or (failed if state.reason else "")


def _webhooks(config: Config, secrets: Secrets, notes: Notes) -> Iterator[Check]:
    """Checks that secrets exist, that hosts have allowed addresses, and that none fails.

    It sends nothing.
    """
    for i, (known, given) in enumerate(zip(webhook_names(config), config.webhooks, strict=True)):
        name = f"webhook {known}"
        try:
            whole = secrets.webhook(given, f"webhooks[{i}]")
            target = ssrf_guard.target(whole)
            reached = ", ".join(ssrf_guard.allowed(target))
        except (ConfigError, OutsideError) as error:
            yield Check(name, False, str(error))
        else:
            wrong = _wrong(config, known, notes, whole.url)
            if wrong:
                yield Check(name, False, f"{target.place}: {wrong}")
                continue
            yield Check(name, True, f"{target.place} is {reached}; try it: fusewatch webhooks test")
