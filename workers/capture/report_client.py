"""Sends a request to a daemon with the token of its state folder: a report, a mode, a retry."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from pipeline.bus.private import tighten
from pipeline.errors import ConfigError, OutsideError
from workers.capture.report_api import MAX_BODY_BYTES

_ODD = re.compile(r"[^!-~]")  # a character that no address and no token has


def send_report(
    url: str, token: str, site: str, text: str, author: str, *, timeout: float = 10.0
) -> None:
    """Sends a report to a running daemon; on return it is durable there.

    Raises OutsideError when no daemon answers, or the daemon fails or is too busy (status 500 and
    above, 429), and ConfigError when it refuses the report.
    """
    body = {"site": site, "author": author, "text": text}
    _ask(url, token, "/v1/reports", body, "the report was not taken", timeout)


def read_mode(url: str, token: str, site: str, *, timeout: float = 10.0) -> Mapping[str, Any]:
    """Returns what is in force at a site of a running daemon; raises as `send_report` does."""
    return _ask(url, token, _at(site, "mode"), None, "the mode is not known", timeout)


def send_mode(
    url: str, token: str, site: str, what: str, given: Mapping[str, Any], *, timeout: float = 10.0
) -> Mapping[str, Any]:
    """Sets the `mode` or a `snooze` (`what`) of a site; it is durable on return.

    Returns what is in force then; raises as `send_report` does.
    """
    return _ask(url, token, _at(site, what), given, f"the {what} was not taken", timeout)


def send_dead_letter(url: str, token: str, id_: str, *, timeout: float = 10.0) -> tuple[bool, str]:
    """Asks a running daemon to send the record of a dead letter again.

    Returns whether it was sent, and the outcome; raises as `send_report` does.
    """
    failed = f"dead letter {id_} was not sent again"
    given = _ask(url, token, "/v1/dead/retry", {"id": id_}, failed, timeout)
    try:
        answer = msgspec.convert(given, type=_Retried)
    except msgspec.ValidationError:
        msg = f"{failed}: the answer is not from a Fusewatch"
        raise OutsideError(msg) from None
    return answer.sent, answer.outcome


class _Retried(msgspec.Struct, frozen=True):
    sent: bool
    outcome: str


def _at(site: str, what: str) -> str:
    return f"/v1/sites/{quote(site, safe='', errors='replace')}/{what}"


def _ask(
    url: str, token: str, path: str, given: Mapping[str, Any] | None, failed: str, timeout: float
) -> Mapping[str, Any]:
    """Sends a request, by `POST` if a body is given, and returns the answer's object."""
    try:
        place = urlsplit(url)
        host, port = place.hostname, place.port or 8674
    except ValueError:
        host, port = None, 0
    if host is None or place.scheme != "http" or "@" in place.netloc or _ODD.search(url):
        msg = "the daemon's address is like http://127.0.0.1:8674, with no user and no password"
        raise ConfigError(msg)
    where = f"http://{place.netloc}"
    try:
        body = None if given is None else msgspec.json.encode(given)
    except UnicodeEncodeError:
        msg = f"{failed}: not UTF-8: {', '.join(given or ())} must be"
        raise ConfigError(msg) from None
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        status, said = answer.status, answer.read(MAX_BODY_BYTES)
    except (OSError, HTTPException) as error:
        # An error of HTTP quotes what came, which may be our own request with the token
        why = error.strerror if isinstance(error, OSError) else None
        why = why or "its answer is no HTTP"
        msg = f"no Fusewatch answers at {where} ({why}); start it: fusewatch run CONFIG"
        raise OutsideError(msg) from None
    finally:
        connection.close()
    if status == 401:
        msg = f"{where} does not know this token; name its config: --config FILE (or --state DIR)"
        raise ConfigError(msg)
    answered = _answered(said)
    if status in (200, 202) and answered is not None:
        return answered
    why = (answered or {}).get("error") or f"HTTP status {status}, and not from a Fusewatch"
    msg = f"{failed}: {why}"
    raise (OutsideError(msg) if status >= 500 or status == 429 else ConfigError(msg))


def own_token(folder: Path) -> str:
    """Reads the token in the state folder; creates it, readable by its owner only, if missing.

    Raises OutsideError when it cannot be created, ConfigError when the file holds no token.
    """
    path = folder / "token"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tighten(path)
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        msg = f"{path}: the token cannot be kept: {error.strerror}"
        raise OutsideError(msg) from error
    return read_token(folder)


def read_token(state: Path | None = None) -> str:
    """Reads the token that the daemon wrote into a state folder; raises ConfigError."""
    path = (state or Path("~/.local/state/fusewatch")).expanduser() / "token"
    try:
        token = path.read_text().strip()
        reason = "not one word" if not token or _ODD.search(token) else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "unreadable") if isinstance(error, OSError) else "not text"
    if reason:
        msg = f"{path}: no token ({reason}); `fusewatch run` makes it; --config or --state names it"
        raise ConfigError(msg)
    return token


def _answered(body: bytes) -> Mapping[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
