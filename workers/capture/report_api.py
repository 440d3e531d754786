"""Answers HTTP requests about reports, modes and status; opens no socket.

POST /v1/reports     {"site": "office", "author": "guard-1", "text": "..."}   202 when it is
                     durable; 429 while too many reports of the site wait to be read
POST /v1/dead/retry  {"id": "0:17"}   sends the record of a dead letter again
GET  /v1/status      the daemon's status
GET  /v1/sites/{site}/mode     what is in force at a site
POST /v1/sites/{site}/mode     {"mode": "armed", "for": "2h", "by": "ann"}; `auto`: by schedule
POST /v1/sites/{site}/snooze   {"rule": "zone-hall", "for": "30m", "by": "ann"}; {"end": true}
GET  /healthz        needs no token
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from pipeline.config.problem import nearest
from pipeline.config.site_modes import AUTO, SNOOZED
from pipeline.errors import ConfigError, TooManyReports
from pipeline.judge.modes import ALL_RULES
from pipeline.types import SECOND
from pipeline.words import cleaned, cleaned_line
from workers.capture.reports import ReportSource

MAX_TEXT_BYTES = 16_384  # bytes of UTF-8
MAX_AUTHOR_LENGTH = 100  # characters
RETRY_AFTER = 5  # s; told with 429 and 503
MAX_BODY_BYTES = 6 * MAX_TEXT_BYTES + 4096  # bytes; JSON may write a byte as \u0041
DEAD_RETRY = "/v1/dead/retry"
MODE, SNOOZE = "/v1/sites/{site}/mode", "/v1/sites/{site}/snooze"
ROUTES: Mapping[str, tuple[str, ...]] = {  # path -> methods
    "/healthz": ("GET",),
    "/v1/status": ("GET",),
    "/v1/reports": ("POST",),
    DEAD_RETRY: ("POST",),
    MODE: ("GET", "POST"),
    SNOOZE: ("POST",),
}
_AT_SITE = re.compile(r"/v1/sites/([^/]*)/(mode|snooze)")
MAX_DURATION = 366 * 86_400 * SECOND  # ns; of a mode or a snooze
ARTICLES = {  # what a body is
    "/v1/reports": "a report",
    DEAD_RETRY: "the id of a dead letter",
    MODE: "a mode",
    SNOOZE: "a snooze",
}
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(rf"([0-9]{{1,9}}) ?({'|'.join(_UNITS)})", re.ASCII)
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


class ModeGiven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/sites/{site}/mode`."""

    mode: str
    lasts: str = msgspec.field(default="", name="for")
    by: str = ""


class SnoozeGiven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/sites/{site}/snooze`."""

    rule: str = ALL_RULES
    lasts: str = msgspec.field(default="", name="for")
    end: bool = False
    by: str = ""


class Retried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/dead/retry`."""

    id: str


B = TypeVar("B")


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
        route, _ = _route(path)
        if route not in ROUTES:
            return error_answer(404, f"there is {', '.join(ROUTES)}")
        if path != "/healthz" and not self._known(headers.get("authorization", "")):
            return error_answer(401, "a token is needed: `Authorization: Bearer TOKEN`")
        if method not in ROUTES[route]:
            return error_answer(405, f"{path} is for {' and '.join(ROUTES[route])}")
        return None

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """The answer to a request that was not refused; raises OutsideError when the log fails."""
        route, site = _route(path)
        if route in (MODE, SNOOZE) and site not in self._reports.sites:
            return self._no_site(site)
        match method, route:
            case _, "/healthz":
                return self._health()
            case _, "/v1/status":
                return Answer(200, self._status())
            case "GET", _:
                return self._mode(site)
        return self._posted(route, site, headers, body)

    def _posted(self, route: str, site: str, headers: Headers, body: bytes) -> Answer:
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return error_answer(415, "a body is `Content-Type: application/json`")
        try:
            if route == MODE:
                return self._set_mode(site, msgspec.json.decode(body, type=ModeGiven))
            if route == SNOOZE:
                return self._snooze(site, msgspec.json.decode(body, type=SnoozeGiven))
            if route == DEAD_RETRY:
                return self._retry(msgspec.json.decode(body, type=Retried))
            return self._submit(msgspec.json.decode(body, type=Submission))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return error_answer(400, f"not {ARTICLES[route]}: {error}")

    def _health(self) -> Answer:
        """503 asks for a restart; what a restart would not mend is said, and the answer is 200."""
        if not self._healthy():
            return Answer(503, {"status": "failing"})
        failing = self._degraded()
        if any(failing.values()):
            return Answer(200, {"status": "degraded", **failing})
        return Answer(200, {"status": "ok"})

    def _retry(self, given: Retried) -> Answer:
        if self._dead_retry is None:
            return error_answer(404, "only `fusewatch run` sends dead letters again")
        try:
            sent, outcome = self._dead_retry(given.id)
        except ConfigError as error:
            return error_answer(404, str(error))
        return Answer(200, {"id": given.id, "sent": sent, "outcome": outcome})

    def _submit(self, given: Submission) -> Answer:
        if given.site not in self._reports.sites:
            return self._no_site(given.site)
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

    def _no_site(self, site: str) -> Answer:
        sites = self._reports.sites
        return error_answer(404, f"no such site{nearest(site, sites)}; there is {', '.join(sites)}")

    def _mode(self, site: str) -> Answer:
        state, plan = self._reports.mode(site)
        if not state.by_hand:
            since, until = plan.scheduled_span(self._reports.now())
            state = msgspec.structs.replace(state, since=since, until=until)
        return Answer(200, {"site": site} | msgspec.to_builtins(state))

    def _set_mode(self, site: str, given: ModeGiven) -> Answer:
        _, plan = self._reports.mode(site)
        known = (*plan.known, AUTO)
        if given.mode not in known:
            what = f"no such mode{nearest(given.mode, known)}; there is {', '.join(known)}"
            return error_answer(400, what)
        if given.mode == AUTO and given.lasts:
            return error_answer(400, "`auto` ends what a person set: leave out `for`")
        return self._taken(site, given.mode, given.lasts, given.by, "")

    def _snooze(self, site: str, given: SnoozeGiven) -> Answer:
        _, plan = self._reports.mode(site)
        if given.rule not in (ALL_RULES, *plan.rules):
            near = nearest(given.rule, plan.rules)
            return error_answer(400, f"no such rule{near}; there is {', '.join(plan.rules)}")
        if bool(given.lasts) == given.end:
            return error_answer(400, 'a snooze has either "for", like "30m", or "end": true')
        return self._taken(site, AUTO if given.end else SNOOZED, given.lasts, given.by, given.rule)

    def _taken(self, site: str, mode: str, lasts: str, by: str, rule: str) -> Answer:
        by = cleaned_line(by)
        if len(by) > MAX_AUTHOR_LENGTH:
            return error_answer(400, f"`by` has {MAX_AUTHOR_LENGTH} characters at most")
        try:
            span = duration(lasts) if lasts else None
        except ValueError as error:
            return error_answer(400, str(error))
        state = self._reports.set_mode(site, mode, lasts=span, by=by, rule=rule)
        return Answer(202, {"site": site} | msgspec.to_builtins(state))

    def _known(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "replace"), self._token
        )


def _route(path: str) -> tuple[str, str]:
    """Returns the route of a path, as in `ROUTES`, and the site in it."""
    found = _AT_SITE.fullmatch(path)
    return (f"/v1/sites/{{site}}/{found[2]}", unquote(found[1])) if found else (path, "")


def duration(text: str) -> int:
    """Returns the ns of `90s`, `30m`, `2h` or `3d`; raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    span = int(found[1]) * _UNITS[found[2]] * SECOND if found else 0
    if not 0 < span <= MAX_DURATION:
        msg = (
            f"{text[:20]!r} is no time that a mode lasts: give one like 30m, 2h or 3d, at most 366d"
        )
        raise ValueError(msg)
    return span


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
