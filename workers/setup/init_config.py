"""Writes a commented config to start from, and the secrets that it refers to (`fusewatch init`).

Secrets are generated here, stored in the state folder, readable by this user only, and shown once.
The config names their files, so it can be kept under version control.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError, OutsideError
from workers.config.loader import load

STATE = "~/.local/state/fusewatch"
TOKEN, WEBHOOK = "token", "webhook-secret"

_CONFIG = """\
# A site of one camera and one microphone: this computer's. Every setting: docs/reference/config.md
#   fusewatch check {config}       says everything that is wrong with this file
#   fusewatch doctor {config}      tries camera, microphone, weights and disk
#   fusewatch run {config}         watches, until it is stopped
version: 1
state: {state}    # whatever is kept lives here: log, alerts, evidence, token
storage: {{cap: "20 GB"}}    # all of it together
sites:
  home:
    timezone: UTC    # schedules are read in this zone, like Europe/Berlin
    cameras:
      webcam:
        source: "device:0"
        # source: "rtsp://user:${{PASSWORD}}@10.0.0.5/h264"    # a variable of the environment
        detect: {{fps: 5, min_score: 0.4}}
        zones:
          room: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}    # x,y in fractions of the picture
    microphones:
      microphone: {{source: "device:default"}}
    rules:
      - {{rule: zone, zone: room, schedule: "22:00-06:00", label: intrusion, severity: high}}
      - {{rule: sound, labels: {{gunshot: 0.5, glass: 0.5, scream: 0.5}}, severity: critical}}
      - {{rule: keyword, words: {{en: ["help me", "call the police"]}}, severity: high}}
      - {{rule: phrase, phrases: ["somebody is breaking in"], severity: high}}
# Signed alerts, to whom you like; the receiver needs the secret that `init` showed:
# webhooks:
#   - {{url: "https://example.org/hook", secret: {secret}, min_severity: high}}
"""


def init(path: Path, state: Path | None, say: Callable[[str], object] = sys.stdout.write) -> None:
    """Writes a config to `path`, and a token and a webhook secret into the state folder.

    Nothing is overwritten: existing secrets are kept and not shown. Raises ConfigError if the
    config exists, OutsideError if a file cannot be written.
    """
    if os.path.lexists(path):
        msg = f"{path} exists; name another file: fusewatch init OTHER.yaml"
        raise ConfigError(msg)
    folder = Path(os.path.abspath((state or Path(STATE)).expanduser()))
    text = _CONFIG.format(
        config=path,
        state=json.dumps(str(folder) if state else STATE),
        secret=json.dumps(f"file:{folder / WEBHOOK}"),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        token = _made(folder / TOKEN, secrets.token_urlsafe(32))
        hook = _made(
            folder / WEBHOOK, "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        )
        _written(path, text)
    except OSError as error:
        msg = f"{error.filename}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    load(path)
    say(f"{path}: written. Look it over, then: fusewatch check {path}\n\n")
    say(_shown("token, for `fusewatch report` and the local endpoint", folder / TOKEN, token))
    say(_shown("webhook secret, for whoever receives alerts", folder / WEBHOOK, hook))


def _made(file: Path, secret: str) -> str:
    """Stores `secret` in `file`, for this user only; returns "" if the file exists and is kept."""
    try:
        _written(file, secret + "\n")
    except FileExistsError:
        return ""
    return secret


def _written(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _shown(what: str, file: Path, secret: str) -> str:
    if not secret:
        return f"{what}\n  kept as it was, in {file}\n"
    return f"{what}\n  {secret}\n  shown this once; stored in {file}\n"
