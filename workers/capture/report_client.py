"""Sends a request to a daemon with the token of its state folder: a report, or a dead letter."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    try:
        body = msgspec.json.encode({"site": site, "author": author, "text": text})
    except UnicodeEncodeError:
        msg = "the report is not UTF-8: site, author and text must be"
        raise ConfigError(msg) from None
    status, body, where = ask(url, token, "/v1/reports", body, timeout=timeout)
    if status == 202:
        return
    if status == 401:
        msg = f"{where} does not know this token; name its config: --config FILE (or --state DIR)"
        raise ConfigError(msg)
    msg = f"the report was not taken: {_said(body, status)}"
    raise (OutsideError(msg) if status >= 500 or status == 429 else ConfigError(msg))


def send_dead_letter(url: str, token: str, id_: str) -> tuple[bool, str]:
    """Asks a running daemon to send the record of a dead letter again.

    Returns whether it was sent, and the outcome; raises as `send_report` does.
    """
    body = msgspec.json.encode({"id": id_})
    status, body, where = ask(url, token, "/v1/dead/retry", body)
    if status == 200:
        try:
            given = msgspec.json.decode(body, type=_Retried)
        except (msgspec.DecodeError, UnicodeDecodeError):
            msg = f"{where} gave an answer that is not of a Fusewatch"
            raise OutsideError(msg) from None
        return given.sent, given.outcome
    if status == 401:
        msg = f"{where} does not know this token; is this the config that it runs with?"
        raise ConfigError(msg)
    msg = f"dead letter {id_} was not sent again: {_said(body, status)}"
    raise (OutsideError(msg) if status >= 500 or status == 429 else ConfigError(msg))


class _Retried(msgspec.Struct, frozen=True):
    sent: bool
    outcome: str


def ask(
    url: str, token: str, path: str, body: bytes, *, timeout: float = 10.0
) -> tuple[int, bytes, str]:
    """(status, answer, address) of a `POST` of JSON to a running daemon.

    Raises ConfigError for an address that is none, OutsideError when no daemon answers.
    """
    try:
        place = urlsplit(url)
        host, port = place.hostname, place.port or 8674
    except ValueError:
        host, port = None, 0
    if host is None or place.scheme != "http" or "@" in place.netloc or _ODD.search(url):
        msg = "the daemon's address is like http://127.0.0.1:8674, with no user and no password"
        raise ConfigError(msg)
    where = f"http://{place.netloc}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY_BYTES), where
    except (OSError, HTTPException) as error:
        # An error of HTTP quotes what came, which may be our own request with the token
        why = error.strerror if isinstance(error, OSError) else None
        said = why or "its answer is no HTTP"
        msg = f"no Fusewatch answers at {where} ({said}); start it: fusewatch run CONFIG"
        raise OutsideError(msg) from None
    finally:
        connection.close()


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


def _said(body: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return f"HTTP status {status}, and not from a Fusewatch"
