"""What people report: a local HTTP endpoint, and the source of a site's reports behind it.

`Desk` stamps reports and promises progress and knows no HTTP; `Api` answers requests and knows no
sockets; the server around it is `workers/capture/report_server.py`.

    POST /v1/reports  {"site": "office", "author": "guard-1", "text": "..."}   202, durable by then
    GET  /v1/status   what the daemon knows of itself
    GET  /healthz     without a token
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Site
from pipeline.errors import ConfigError, DecodeError, OutsideError
from pipeline.types import ROSTER_EVERY, Progress, Record, Report, Roster, ns
from workers.capture.capture import REPORTS_SOURCE, first_free, roster

MAX_TEXT = 16_384  # bytes of UTF-8
MAX_AUTHOR = 100  # characters
_ODD = re.compile(r"[^!-~]")  # what neither an address nor a token has
MAX_BODY = 6 * MAX_TEXT + 4096  # bytes; JSON may write a byte as \u0041

Publish = Callable[[str, Sequence[Record]], None]  # topic, records; durable when it returns
Headers = Mapping[str, str]  # names in lower case


class Answer(msgspec.Struct, frozen=True):
    """What goes back: a status and a JSON object."""

    status: int
    body: Mapping[str, Any]


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/reports`."""

    site: str
    text: str
    author: str = ""


class Desk:
    """Where reports become records; any thread may use it.

    A report starts when it is received, but never before what was promised and never at the same
    ns as the one before: both would be taken for a repeat. `promised` is site -> the last promise
    in the log, so that a clock set back over a restart costs no report.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        publish: Publish,
        clock: Callable[[], int],
        promised: Mapping[str, int] | None = None,
    ) -> None:
        self._sites = sites
        self._publish = publish
        self._clock = clock
        self._lock = threading.Lock()
        self._next = {site: (promised or {}).get(site, 0) for site in sites}  # ns: starts to come
        self._beat = dict.fromkeys(sites, -1)
        self._roster = dict.fromkeys(sites, -1)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that one may report from."""
        return tuple(self._sites)

    def submit(self, site: str, author: str, text: str) -> Report:
        """Publishes a report, durable on return; raises KeyError for a site that is not ours."""
        with self._lock:
            start = max(self._clock(), self._next[site])
            report = Report(
                site=site,
                source=REPORTS_SOURCE,
                start=start,
                end=start + 1,
                author=author,
                text=text,
            )
            self._publish(topics.REPORTS, [*self._roster_due(site, start), report])
            self._next[site] = start + 1
            return report

    def beat(self) -> None:
        """Says, once a hop, that nothing will start before now; and who the site's sources are."""
        with self._lock:
            now = self._clock()
            for name, site in self._sites.items():
                records = self._roster_due(name, now)
                if now >= self._beat[name]:
                    self._beat[name] = now + ns(site.windows.hop)
                    upto = max(now, self._next[name])
                    records.append(Progress(site=name, source=REPORTS_SOURCE, upto=upto))
                    self._next[name] = upto
                if records:
                    self._publish(topics.REPORTS, records)

    def _roster_due(self, name: str, now: int) -> list[Record]:
        if now < self._roster[name]:
            return []
        self._roster[name] = now + ROSTER_EVERY
        sources = roster(self._sites[name])
        return [Roster(site=name, source=REPORTS_SOURCE, sources=sources, start=now)]


def promised(last: Callable[[str, str], bytes | None], sites: Sequence[str]) -> dict[str, int]:
    """The first ns at which each site's next report may start, out of the log's newest entries."""
    found = {}
    for site in sites:
        value = last(topics.REPORTS, f"{site}/{REPORTS_SOURCE}")
        if value is not None:
            with suppress(DecodeError):  # the stage that reads it sends it to `dead`
                found[site] = first_free(codec.decode(value))
    return found


def cleaned(text: str) -> str:
    """`text` without control characters, but for line breaks and tabs, and without the marks that
    turn the direction of writing (both can make a reader see what is not there)."""
    return "".join(
        " " if unicodedata.category(c) == "Cc" and c not in "\n\t" else c
        for c in text
        if not ("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069")
    ).strip()


class Api:
    """Requests in, answers out.

    `status` gives what `GET /v1/status` shows, `healthy` whether all is well.
    """

    def __init__(
        self,
        desk: Desk,
        token: str,
        status: Callable[[], Mapping[str, Any]] = dict,
        healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        if len(token) < 16:
            msg = "api.token: at least 16 characters, please; `fusewatch init` makes a good one"
            raise ConfigError(msg)
        self._desk = desk
        self._token = token.encode()
        self._status = status
        self._healthy = healthy

    def refused(self, method: str, path: str, headers: Headers) -> Answer | None:
        """What is wrong before the body is looked at."""
        if not _local(headers.get("host", "")) or "origin" in headers:
            return wrong(403, "only programs of this machine may ask, by a loopback address")
        known = {"/healthz": "GET", "/v1/status": "GET", "/v1/reports": "POST"}
        if path not in known:
            return wrong(404, f"there is {', '.join(known)}")
        if path != "/healthz" and not self._known(headers.get("authorization", "")):
            return wrong(401, "a token is needed: `Authorization: Bearer TOKEN`")
        if method != known[path]:
            return wrong(405, f"{path} is for {known[path]}")
        return None

    def answer(self, path: str, headers: Headers, body: bytes) -> Answer:
        """The answer to a request that was not refused; raises OutsideError when the log fails."""
        match path:
            case "/healthz":
                well = self._healthy()
                return Answer(200 if well else 503, {"status": "ok" if well else "failing"})
            case "/v1/status":
                return Answer(200, self._status())
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return wrong(415, "a report is `Content-Type: application/json`")
        try:
            given = msgspec.json.decode(body, type=Submission)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return wrong(400, f"not a report: {error}")
        return self._submit(given)

    def _submit(self, given: Submission) -> Answer:
        if given.site not in self._desk.sites:
            return wrong(404, f"no such site; there is {', '.join(self._desk.sites)}")
        text, author = cleaned(given.text), cleaned(given.author).replace("\n", " ")
        if len(text.encode()) > MAX_TEXT:
            return wrong(413, f"a text has {MAX_TEXT} bytes at most")
        if not text or len(author) > MAX_AUTHOR:
            reason = "no text" if not text else f"an author has {MAX_AUTHOR} characters at most"
            return wrong(400, reason)
        report = self._desk.submit(given.site, author, text)
        return Answer(202, {"site": report.site, "start": report.start})

    def _known(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "replace"), self._token
        )


def send_report(
    url: str, token: str, site: str, text: str, author: str, *, timeout: float = 10.0
) -> None:
    """Hand a report to a running daemon; on return it is durable there.

    Raises OutsideError when no daemon answers, ConfigError when it does not take the report.
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
    try:
        body = msgspec.json.encode({"site": site, "author": author, "text": text})
    except UnicodeEncodeError:
        msg = "the report is not UTF-8: site, author and text must be"
        raise ConfigError(msg) from None
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", "/v1/reports", body, headers)
        answer = connection.getresponse()
        status, said = answer.status, answer.read(MAX_BODY)
    except (OSError, HTTPException) as error:
        msg = f"no Fusewatch answers at {where} ({error}); start it: fusewatch run CONFIG"
        raise OutsideError(msg) from error
    finally:
        connection.close()
    if status == 202:
        return
    if status == 401:
        msg = f"{where} does not know this token; name its config: --config FILE (or --state DIR)"
        raise ConfigError(msg)
    msg = f"the report was not taken: {_said(said, status)}"
    raise (OutsideError(msg) if status >= 500 else ConfigError(msg))


def own_token(folder: Path) -> str:
    """The token in the state folder, made there for its owner only.

    Raises OutsideError when it cannot be made, ConfigError when what is there is none.
    """
    path = folder / "token"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        msg = f"{path}: the token cannot be kept: {error.strerror}"
        raise OutsideError(msg) from error
    return read_token(folder)


def read_token(state: Path | None = None) -> str:
    """The token in a state folder, as the daemon wrote it; raises ConfigError."""
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


def wrong(status: int, reason: str) -> Answer:
    """An answer that says what is wrong."""
    return Answer(status, {"error": reason})


def _local(host: str) -> bool:
    """Whether a Host header names this machine: a web page by a rebound name does not (DNS
    rebinding)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return loopback(name)


def loopback(host: str) -> bool:
    """Whether this is an address of this machine, or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
