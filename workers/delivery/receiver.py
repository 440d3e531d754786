"""A webhook receiver that verifies signatures: for the demo, for tests, and as an example.

It checks the signature with the `standardwebhooks` package and keeps each `webhook-id` once. It
answers 204, or 401 to a request that the secret did not sign. `answer` can simulate failures.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self

import msgspec
import standardwebhooks

from workers.runtime.local_http import LocalHttpServer

MAX_RECEIVED_BYTES = 1 << 20  # bytes


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One POST; `event` is the verified CloudEvent, None when its signature was wrong."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    event: dict[str, Any] | None


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request."""

    status: int = 204
    headers: Mapping[str, str] = {}


class _Server(ThreadingMixIn, LocalHttpServer):
    daemon_threads = True


class Receiver:
    """A receiver on loopback: `with Receiver(secret) as receiver:` listens at `receiver.url`.

    `posts` holds every request in order, `events` the verified events by `webhook-id`. `heard` is
    called for each new event, `answer` for each verified request.
    """

    def __init__(
        self,
        secret: str,
        *,
        heard: Callable[[dict[str, Any]], None] = lambda event: None,
        answer: Callable[[Received], Reply] = lambda received: Reply(),
        port: int = 0,
    ) -> None:
        self.posts: list[Received] = []
        self.events: dict[str, dict[str, Any]] = {}
        self._key = standardwebhooks.Webhook(secret)
        self._heard = heard
        self._answer = answer
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length") or 0), MAX_RECEIVED_BYTES)
                reply = receiver.take(self.path, dict(self.headers), self.rfile.read(length))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Logs nothing."""

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """The address to send alerts to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/alerts"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Verifies one request and returns the answer."""
        event = self._verified(headers, body)
        received = Received(path=path, headers=headers, body=body, event=event)
        reply = self._answer(received) if event is not None else Reply(401)
        with self._changed:
            self.posts.append(received)
            if event is not None and 200 <= reply.status < 300 and event["id"] not in self.events:
                self.events[event["id"]] = event
                self._heard(event)
            self._changed.notify_all()
        return reply

    def wait(self, count: int, seconds: float) -> bool:
        """Whether `count` different events were taken within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.events) >= count, seconds)

    def _verified(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        try:
            self._key.verify(body, dict(headers), json_parse=False)
            event = json.loads(body)
        except (standardwebhooks.WebhookVerificationError, ValueError):
            return None
        named = {name.lower(): value for name, value in headers.items()}
        return event if isinstance(event, dict) and event.get("id") == named["webhook-id"] else None
