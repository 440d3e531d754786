"""Writes a commented config to start from, and the secrets that it refers to (`fusewatch init`).

Secrets are generated here, stored in the state folder, readable by this user only, and shown once.
The config names their files, so it can be kept under version control. A camera's password is such a
secret too, and is never shown.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import msgspec

from pipeline.config.schema import Config
from pipeline.errors import ConfigError, OutsideError
from workers.config.loader import load
from workers.runtime.state_folder import make_private
from workers.schemas.shipped import shipped

STATE = "~/.local/state/fusewatch"
TOKEN, WEBHOOK = "token", "webhook-secret"
SCHEMA = "fusewatch.schema.json"  # beside the config: by it editors check and complete the config

_HEAD = """\
# yaml-language-server: $schema={schema}
# What is watched, and who is told. Every setting: docs/reference/config.md
#   fusewatch check {config}       says everything that is wrong with this file
#   fusewatch doctor {config}      tries camera, microphone, weights and disk
#   fusewatch run {config}         watches, until it is stopped
version: 1
state: {state}    # whatever is kept lives here: log, alerts, evidence, token
storage: {{cap: "20 GB"}}    # all of it together
sites:
  {site}:
    timezone: {timezone}    # schedules are read in this zone
"""
_CAMERA = """\
    cameras:
      {name}:
        {source}
        detect: {{fps: 5, min_score: 0.4}}
        zones:
          room: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}    # x,y in fractions of the picture
"""
_MICROPHONE = """\
    microphones:
      {name}: {{source: {source}}}
"""
_ZONE_RULE = """\
      - {rule: zone, zone: room, label: intrusion, severity: high}    # schedule: "22:00-06:00"
"""
_SOUND_RULE = """\
      - {rule: sound, labels: {gunshot: 0.5, glass: 0.5, scream: 0.5}, severity: critical}
"""
_WORD_RULES = """\
      - {{rule: keyword, words: {{en: ["help me", "call the police"]}}, severity: high}}
{hash}      - {{rule: phrase, phrases: ["somebody is breaking in"], severity: high}}{why}
"""
_NO_PHRASE = "    # of reports; needs one more model"
_WEBHOOK = """\
# Signed alerts; the receiver needs the secret that `init` showed:
webhooks:
  - {{url: {url}, secret: {secret}}}
"""
_NO_WEBHOOK = """\
# Signed alerts, to whom you like; the receiver needs the secret that `init` showed:
# webhooks:
#   - {{url: "https://example.org/hook", secret: {secret}, min_severity: high}}
"""


_SECRET_IN_URL = re.compile(  # what many cameras and recorders take in the path or the query
    r"((?:passw?o?r?d?|passwd|pwd|token|secret|api_?key|auth)=)([^&;/?#\s${}]+)", re.IGNORECASE
)


class NewSource(msgspec.Struct, frozen=True, kw_only=True):
    """A camera or microphone for a new config: its name, address, and login if it needs one."""

    name: str
    url: str
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"NewSource({self.name})"


DEFAULT_CAMERA = NewSource(name="webcam", url="device:0")
DEFAULT_MICROPHONE = NewSource(name="microphone", url="device:default")


class NewConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a new config is to hold; at least a camera or a microphone."""

    camera: NewSource | None = DEFAULT_CAMERA
    record: NewSource | None = None  # the camera's large stream
    microphone: NewSource | None = DEFAULT_MICROPHONE
    site: str = "home"
    timezone: str = "UTC"
    webhook: str = ""
    state: Path | None = None

    @property
    def folder(self) -> Path:
        """The state folder."""
        return Path(os.path.abspath((self.state or Path(STATE)).expanduser()))


def refuse_existing(path: Path) -> None:
    """Raises ConfigError if `path` exists, or cannot be the name of a config."""
    if os.path.lexists(path):
        msg = f"{path} exists; name another file: fusewatch init OTHER.yaml"
        raise ConfigError(msg)
    if not str(path).isprintable():
        msg = "the name of the config holds a control character, or is no UTF-8; name another file"
        raise ConfigError(msg)


def write_config(
    path: Path, new: NewConfig, say: Callable[[str], object] = sys.stdout.write
) -> Config:
    """Writes a config to `path`, a schema for editors beside it, and a token and a webhook secret
    into the state folder.

    Nothing is overwritten: existing secrets are kept and not shown. Raises ConfigError if the
    config exists, OutsideError if a file cannot be written.
    """
    refuse_existing(path)
    folder = new.folder
    if not str(folder).isprintable() or set("${}") & set(str(folder)):
        msg = (
            "the state folder's name holds `$`, `{`, `}` or a control character, or is no UTF-8; "
            "name another one"
        )
        raise ConfigError(msg)
    try:
        make_private(folder)
        token = _made(folder / TOKEN, secrets.token_urlsafe(32))
        hook = _made(
            folder / WEBHOOK, "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        )
        schema = _schema_beside(path)
        _written(path, _text(path, new, folder, _passwords(new, folder)))
    except OSError as error:
        msg = f"{error.filename}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    written = load(path)
    say(f"{path}: written. Then: fusewatch run {shlex.quote(str(path))}\n\n")
    say(f"{schema}\n\n")
    say(_shown("token, for `fusewatch report` and the local endpoint", folder / TOKEN, token))
    say(_shown("webhook secret, for whoever receives alerts", folder / WEBHOOK, hook))
    return written


def _text(path: Path, new: NewConfig, folder: Path, passwords: Mapping[str, Path]) -> str:
    secret = json.dumps(f"file:{folder / WEBHOOK}", ensure_ascii=False)
    text = _HEAD.format(
        schema=SCHEMA,
        config=shlex.quote(str(path)),
        state=json.dumps(str(folder) if new.state else STATE, ensure_ascii=False),
        site=new.site,
        timezone=new.timezone,
    )
    if new.camera is not None:
        given = f"source: {_source(new.camera, passwords)}"
        if new.record is not None:
            given = (
                "streams:    # the small stream is looked at; nothing reads the large one yet\n"
                f"          detect: {_source(new.camera, passwords)}\n"
                f"          record: {_source(new.record, passwords)}"
            )
        text += _CAMERA.format(name=new.camera.name, source=given)
    if new.microphone is not None:
        source = _source(new.microphone, passwords)
        text += _MICROPHONE.format(name=new.microphone.name, source=source)
    text += "    rules:\n"
    text += _ZONE_RULE if new.camera else ""
    text += _SOUND_RULE if new.microphone else ""
    heard = new.microphone is not None
    text += _WORD_RULES.format(hash="" if heard else "#", why="" if heard else _NO_PHRASE)
    if new.webhook:
        return text + _WEBHOOK.format(url=json.dumps(new.webhook), secret=secret)
    return text + _NO_WEBHOOK.format(secret=secret)


def _source(source: NewSource, passwords: Mapping[str, Path]) -> str:
    def named(found: re.Match[str]) -> str:
        return f"{found[1]}${{file:{passwords[found[2]]}}}"

    url = json.dumps(_SECRET_IN_URL.sub(named, source.url), ensure_ascii=False)
    if not source.username and not source.password:
        return url
    login = f"username: {json.dumps(source.username, ensure_ascii=False)}"
    if source.password:
        file = json.dumps(f"file:{passwords[source.password]}", ensure_ascii=False)
        login += f", password: {file}"
    return f"{{url: {url}, {login}}}"


def _passwords(new: NewConfig, folder: Path) -> dict[str, Path]:
    """Stores each password in a file of its own; an equal one that is there is used."""
    stored: dict[str, Path] = {}
    for source in filter(None, (new.camera, new.record, new.microphone)):
        in_url = [secret for _, secret in _SECRET_IN_URL.findall(source.url)]
        for password in filter(None, (source.password, *in_url)):
            if password != password.strip():
                msg = "a password that begins or ends with a space cannot be kept in a file"
                raise ConfigError(msg)
            numbered = (f"{source.name}-password{'' if n == 1 else f'-{n}'}" for n in count(1))
            if password not in stored:
                files = (folder / name for name in numbered)
                stored[password] = next(
                    file for file in files if _made(file, password) or _holds(file, password)
                )
    return stored


def _holds(file: Path, secret: str) -> bool:
    return file.is_file() and file.read_bytes() == f"{secret}\n".encode()


def _made(file: Path, secret: str) -> str:
    """Stores `secret` in `file`, for this user only; returns "" if the file exists and is kept."""
    try:
        _written(file, secret + "\n")
    except FileExistsError:
        return ""
    return secret


def _schema_beside(config: Path) -> str:
    """Writes the schema of configs into the config's folder; returns what to say of it."""
    file, text = config.with_name(SCHEMA), shipped("config")
    try:
        _written(file, text, 0o644)
    except FileExistsError:
        if file.is_file() and file.read_bytes() == text.encode():
            return f"{file}: is there; editors complete the config by it"
        renewed = f"fusewatch schema config > {shlex.quote(str(file))}"
        return f"{file}: kept as it was, and is not the schema of this version; renew it: {renewed}"
    return f"{file}: written; editors complete the config by it"


def _written(file: Path, text: str, mode: int = 0o600) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(opened, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _shown(what: str, file: Path, secret: str) -> str:
    if not secret:
        return f"{what}\n  kept as it was, in {file}\n"
    return f"{what}\n  {secret}\n  shown this once; stored in {file}\n"
