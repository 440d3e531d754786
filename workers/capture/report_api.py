"""Answers HTTP requests about reports and status; opens no socket.

POST /v1/reports     {"site": "office", "author": "guard-1", "text": "..."}   202 when it is
                     durable; 429 while too many reports of the site wait to be read
POST /v1/dead/retry  {"id": "0:17"}   sends the record of a dead letter again
GET  /v1/status      the daemon's status
GET  /healthz        needs no token
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pipeline.config.problem import nearest
from pipeline.errors import ConfigError, TooManyReports
from pipeline.words import cleaned, cleaned_line
from workers.capture.reports import ReportSource

MAX_TEXT_BYTES = 16_384  # bytes of UTF-8
MAX_AUTHOR_LENGTH = 100  # characters
RETRY_AFTER = 5  # s; told with 429 and 503
MAX_BODY_BYTES = 6 * MAX_TEXT_BYTES + 4096  # bytes; JSON may write a byte as \u0041
ROUTES = {  # path -> method
    "/healthz": "GET",
    "/v1/status": "GET",
    "/v1/reports": "POST",
    "/v1/dead/retry": "POST",
}
Headers = Mapping[str, str]  # names in lower case
DeadRetry = Callable[[str], tuple[bool, str]]  # id -> whether the record was sent, and the outcome


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response: a status, a JSON object, and the header Retry-After in s (0: none)."""

    status: int
    body: Mapping[str, Any]
    retry_after: int = 0


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/reports`."""

    site: str
    text: str
    author: str = ""


class Retried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/dead/retry`."""

    id: str


class ReportApi:
    """Answers the requests of the local endpoint.

    `status` returns the body of `GET /v1/status`; `healthy` returns whether the daemon is healthy;
    `degraded` returns counts of what fails and a restart would not mend; `dead_retry` sends a dead
    letter's record again. Raises ConfigError for a token of fewer than 16 characters.
    """

    def __init__(
        self,
        reports: ReportSource,
        token: str,
        status: Callable[[], Mapping[str, Any]] = dict,
        healthy: Callable[[], bool] = lambda: True,
        degraded: Callable[[], Mapping[str, int]] = dict,
        dead_retry: DeadRetry | None = None,
    ) -> None:
        if len(token) < 16:
            msg = "api.token: at least 16 characters, please; `fusewatch init` makes a good one"
            raise ConfigError(msg)
        self._reports = reports
        self._token = token.encode()
        self._status = status
        self._healthy = healthy
        self._degraded = degraded
        self._dead_retry = dead_retry

    def refused(self, method: str, path: str, headers: Headers) -> Answer | None:
        """The error answer for a request that is refused before its body is read, or None."""
        if not _local(headers.get("host", "")) or "origin" in headers:
            return error_answer(403, "only programs of this machine may ask, by a loopback address")
        if path not in ROUTES:
            return error_answer(404, f"there is {', '.join(ROUTES)}")
        if path != "/healthz" and not self._known(headers.get("authorization", "")):
            return error_answer(401, "a token is needed: `Authorization: Bearer TOKEN`")
        if method != ROUTES[path]:
            return error_answer(405, f"{path} is for {ROUTES[path]}")
        return None

    def answer(self, path: str, headers: Headers, body: bytes) -> Answer:
        """The answer to a request that was not refused; raises OutsideError when the log fails."""
        match path:
            case "/healthz":
                return self._health()
            case "/v1/status":
                return Answer(200, self._status())
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return error_answer(415, "a body is `Content-Type: application/json`")
        if path == "/v1/dead/retry":
            return self._retry(body)
        try:
            given = msgspec.json.decode(body, type=Submission)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return error_answer(400, f"not a report: {error}")
        return self._submit(given)

    def _health(self) -> Answer:
        """503 asks for a restart; what a restart would not mend is said, and the answer is 200."""
        if not self._healthy():
            return Answer(503, {"status": "failing"})
        failing = self._degraded()
        if any(failing.values()):
            return Answer(200, {"status": "degraded", **failing})
        return Answer(200, {"status": "ok"})

    def _retry(self, body: bytes) -> Answer:
        if self._dead_retry is None:
            return error_answer(404, "only `fusewatch run` sends dead letters again")
        try:
            given = msgspec.json.decode(body, type=Retried)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return error_answer(400, f"not the id of a dead letter: {error}")
        try:
            sent, outcome = self._dead_retry(given.id)
        except ConfigError as error:
            return error_answer(404, str(error))
        return Answer(200, {"id": given.id, "sent": sent, "outcome": outcome})

    def _submit(self, given: Submission) -> Answer:
        if given.site not in self._reports.sites:
            sites = self._reports.sites
            return error_answer(
                404, f"no such site{nearest(given.site, sites)}; there is {', '.join(sites)}"
            )
        text, author = cleaned(given.text), cleaned_line(given.author)
        if len(text.encode()) > MAX_TEXT_BYTES:
            return error_answer(413, f"a text has {MAX_TEXT_BYTES} bytes at most")
        if not text or len(author) > MAX_AUTHOR_LENGTH:
            reason = (
                "no text" if not text else f"an author has {MAX_AUTHOR_LENGTH} characters at most"
            )
            return error_answer(400, reason)
        try:
            report = self._reports.submit(given.site, author, text)
        except TooManyReports as busy:
            return error_answer(429, str(busy))
        return Answer(202, {"site": report.site, "start": report.start})

    def _known(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "replace"), self._token
        )


def error_answer(status: int, reason: str) -> Answer:
    """An error answer with its reason."""
    return Answer(status, {"error": reason}, RETRY_AFTER if status in (429, 503) else 0)


def _local(host: str) -> bool:
    """Whether a Host header names this machine; that of a DNS rebinding attack does not."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return loopback(name)


def loopback(host: str) -> bool:
    """Whether `host` is a loopback address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
