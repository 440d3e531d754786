"""Sends signed webhooks: Standard Webhooks 1.0 headers around a CloudEvents 1.0 document.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
It uses httpcore, the transport below httpx, directly: httpcore follows no redirect, reads no proxy
from the environment, keeps no cookie and decompresses no body, so none of that must be turned off.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import msgspec
import standardwebhooks
from msgspec.structs import replace

from pipeline.config.checks import signing_key, webhook_names
from pipeline.config.schema import Config
from pipeline.config.schema import Webhook as Settings
from pipeline.errors import ConfigError, OutsideError, Rejected, Retry
from pipeline.types import Alert, ns
from workers.config import ssrf_guard
from workers.config.secrets import Secrets
from workers.delivery import cloudevent
from workers.delivery.delivery import Filter, Subscriber

MAX_ANSWER_BYTES = 4096  # bytes of a receiver's answer that are read and discarded
MAX_RETRY_AFTER = 86400.0  # s
CONNECT_TIMEOUT = 5.0  # s for one address of several
# Statuses that refuse this one alert; any other failure concerns the receiver as a whole.
ALERT_REFUSED_STATUSES = frozenset({400, 409, 413, 415, 422})

# At level DEBUG httpcore logs answers, and an answer may hold our request.
logging.getLogger("httpcore").setLevel(logging.INFO)

Document = Callable[[Alert], bytes]  # the body of an alert; raises ValueError if there is none

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # no dot: it separates the signed fields


class Outcome(msgspec.Struct, frozen=True):
    """The result of a test event; `detail` holds neither path nor secret."""

    name: str
    ok: bool
    place: str
    status: int | None
    detail: str
    seconds: float


class Webhook:
    """A webhook as a Sink: one attempt a call, one connection an attempt.

    Connections are not kept: alerts are minutes apart, and each attempt checks the address again.
    `send` raises Retry, or Rejected (410 disables). It takes at most `timeout` s, plus the time of
    the resolver and that of `document`, which makes the body of an alert.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        resolve: ssrf_guard.Resolve = ssrf_guard.resolve,
        trust: ssl.SSLContext | None = None,
        document: Document = cloudevent.event_bytes,
    ) -> None:
        self._document = document
        self.target = ssrf_guard.target(settings)
        self.name = settings.name or self.target.host
        self._keys = _keys(self.name, settings.secret)
        self._timeout = settings.timeout
        self._clock = clock
        self._resolve = resolve
        self._trust = trust or httpcore.default_ssl_context()

    def __repr__(self) -> str:
        return f"Webhook({self.name!r}, {self.target.place})"

    def send(self, alert: Alert, trace: str = "") -> None:
        """Posts the alert once; raises Retry or Rejected."""
        try:
            body = self._document(alert)
        except ValueError as error:
            raise Rejected(str(error)) from error
        status, wait = self.post(cloudevent.event_id(alert), body, trace)
        _judge(status, wait)

    def post(self, ident: str, body: bytes, trace: str = "") -> tuple[int, float | None]:
        """(status, Retry-After in s) of one signed POST; raises Retry when there is no answer."""
        if not _ID.fullmatch(ident):
            msg = f"{ident!r} cannot be a webhook-id"
            raise Rejected(msg)
        headers = self._headers(ident, body)
        if trace:
            headers.append(("traceparent", trace))
        try:
            addresses = ssrf_guard.allowed(self.target, self._resolve)
            backend = _Pinned(addresses, self._timeout)
            with httpcore.ConnectionPool(
                ssl_context=self._trust, max_keepalive_connections=0, network_backend=backend
            ) as pool:
                return self._exchange(pool, headers, body)
        except OutsideError as error:
            raise Retry(str(error)) from error
        except httpcore.TimeoutException as error:
            msg = f"{self.target.place} did not answer within {self._timeout:g} s"
            raise Retry(msg) from error
        except httpcore.NetworkError as error:  # in the words of this machine
            msg = f"{self.target.place}: {type(error).__name__}: {error}"
            raise Retry(msg) from error
        except (httpcore.ProtocolError, ValueError, ArithmeticError, LookupError) as error:
            # No receiver may crash the daemon. Parsers quote what they cannot read, and that may be
            # our request, sent back with the key in its address: not a word of it is told, also
            # not as the cause of this error.
            silent = str(error).startswith("Server disconnected")
            what = "it hung up without an answer" if silent else "its answer is no valid HTTP/1.1"
            msg = f"{self.target.place}: {what}"
            raise Retry(msg) from None

    def _exchange(
        self, pool: httpcore.ConnectionPool, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, float | None]:
        to = self.target
        url = httpcore.URL(scheme=to.scheme, host=to.host, port=to.port, target=to.path)
        limits = {"connect": self._timeout, "read": self._timeout, "write": self._timeout}
        with pool.stream(
            "POST", url, headers=headers, content=body, extensions={"timeout": limits}
        ) as answer:
            # Only the status counts; an error in the body changes nothing.
            _drain(answer.iter_stream())
            return answer.status, _retry_after(answer.headers, self._clock())

    def _headers(self, ident: str, body: bytes) -> list[tuple[str, str]]:
        now = datetime.fromtimestamp(int(self._clock()), tz=UTC)
        text = body.decode()
        signatures = [key.sign(ident, now, text) for key in self._keys]
        return [
            ("Content-Type", cloudevent.CONTENT_TYPE),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "fusewatch"),
            ("webhook-id", ident),
            ("webhook-timestamp", str(int(now.timestamp()))),
            ("webhook-signature", " ".join(signatures)),
        ]


def subscribers(
    settings: Config, secrets: Secrets, pictured: Document = cloudevent.event_bytes
) -> Iterator[Subscriber]:
    """Yields a subscriber for each webhook; looks up its secrets.

    `pictured` makes the body of an alert for those with `picture: inline`.
    """
    for hook in _hooks(settings, secrets):
        document = pictured if hook.picture == "inline" else cloudevent.event_bytes
        yield Subscriber(
            name=hook.name,
            sink=Webhook(hook, document=document),
            wants=Filter(sites=hook.sites, min_severity=hook.min_severity),
            address=hook.url,
            timeout=hook.timeout,
        )


def try_webhooks(settings: Config, name: str | None, secrets: Secrets) -> list[Outcome]:
    """Sends a signed test event to the webhook `name`, or to each; raises ConfigError for an
    unknown name."""
    names = webhook_names(settings)
    if name is not None and name not in names:
        msg = f"webhooks: there is none named {name!r}; there are {', '.join(names) or 'none'}"
        raise ConfigError(msg)
    return [try_out(Webhook(hook)) for hook in _hooks(settings, secrets, name)]


def _hooks(settings: Config, secrets: Secrets, only: str | None = None) -> Iterator[Settings]:
    for i, (name, given) in enumerate(zip(webhook_names(settings), settings.webhooks, strict=True)):
        if only in (None, name):
            yield replace(secrets.webhook(given, f"webhooks[{i}]"), name=name)


def try_out(webhook: Webhook, clock: Callable[[], float] = time.time) -> Outcome:
    """Sends a signed test event (`fusewatch.test`) and returns the result, also for an error."""
    began = time.monotonic()
    status: int | None = None
    try:
        status, wait = webhook.post(*cloudevent.test_event(webhook.name, ns(clock())))
        _judge(status, wait)
        detail = "taken"
    except (Retry, Rejected) as error:
        detail = str(error)
    seconds = round(time.monotonic() - began, 3)
    place = webhook.target.place
    return Outcome(webhook.name, detail == "taken", place, status, detail, seconds)


def _judge(status: int, wait: float | None) -> None:
    if 200 <= status < 300:
        return
    if status == 410:
        msg = "410 Gone: the receiver wants no more alerts"
        raise Rejected(msg, disable=True)
    if 300 <= status < 400:
        msg = f"{status}: it redirects, which is not followed; put the final address in the config"
        raise Retry(msg)
    if status in ALERT_REFUSED_STATUSES:
        msg = f"{status}: the receiver refused this alert"
        raise Retry(msg, wait, alone=True)
    hint = {
        401: "; does it have our secret?",
        403: "; does it have our secret?",
        404: "; is the path right?",
    }
    msg = f"{status} from the receiver{hint.get(status, '')}"
    raise Retry(msg, wait)


def _drain(parts: Iterable[bytes]) -> None:
    left = MAX_ANSWER_BYTES
    try:
        for part in parts:
            left -= len(part)
            if left <= 0:
                return
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        return  # the status is known; an incomplete body does not matter


def _retry_after(headers: Sequence[tuple[bytes, bytes]], now: float) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3), at most a day; None when absent or not valid."""
    value = next(
        (v.decode("latin-1").strip() for k, v in headers if k.lower() == b"retry-after"), ""
    )
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now
    except (ValueError, ArithmeticError, LookupError):  # a zone of a million hours overflows
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _keys(name: str, secret: str | Sequence[str]) -> list[standardwebhooks.Webhook]:
    secrets = [secret] if isinstance(secret, str) else list(secret)
    if not secrets:
        msg = f"webhook {name}: it needs a secret; `fusewatch init` makes one"
        raise ConfigError(msg)
    keys = []
    for number, text in enumerate(secrets, 1):
        try:
            raw = signing_key(text.strip())
        except ValueError:
            msg = (
                f"webhook {name}: secret {number} of {len(secrets)} is not `whsec_` and the base64 "
                "of 24 to 64 bytes; `fusewatch init` makes a good one"
            )
            raise ConfigError(msg) from None
        keys.append(standardwebhooks.Webhook(raw))
    return keys


class _Pinned(httpcore.SyncBackend):
    """Connects only to the checked addresses, without a new DNS lookup, within one deadline."""

    def __init__(self, addresses: Sequence[str], seconds: float) -> None:
        self._addresses = addresses
        self._deadline = time.monotonic() + seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        last = len(self._addresses) - 1
        for position, address in enumerate(self._addresses):
            left = _left(self._deadline, httpcore.ConnectTimeout)
            try:
                stream = super().connect_tcp(
                    address,
                    port,
                    left if position == last else min(left, CONNECT_TIMEOUT),
                    local_address,
                    socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == last:
                    raise
            else:
                return _Timed(stream, self._deadline)
        msg = "no address"
        raise httpcore.ConnectError(msg)


class _Timed(httpcore.NetworkStream):
    """A stream with one deadline for all reads and writes together.

    A receiver that sends single bytes slowly gets no more time than one that sends nothing.
    """

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, httpcore.ConnectTimeout)
        return _Timed(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


def _left(deadline: float, late: type[httpcore.TimeoutException]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        msg = "the deadline of this attempt has passed"
        raise late(msg)
    return left
