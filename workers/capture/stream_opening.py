"""Opens network streams by PyAV, chooses tracks, and says in words why neither can be done.

A camera cannot send us to another host: over RTSP a relay stands before it (`rtsp_relay`), and
over HTTP only redirects to the same host are followed. No message quotes an address: FFmpeg's own
texts do.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import av
import httpx

from pipeline.errors import SourceLost
from workers.capture.rtsp_relay import RtspRelay, encrypted, ended_after
from workers.config.source_address import NETWORK_SCHEMES, Address
from workers.media import containers
from workers.media.containers import BROKEN, options

log = logging.getLogger("fusewatch")

STREAM_TIMEOUT = 5.0  # s to connect, and to wait for what comes next
MAX_REDIRECTS = 5  # over HTTP, all on the same host

_RELAYED = ("rtsp", "rtsps")
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_SILENT = (av.error.TimeoutError, av.error.ExitError)  # ExitError: PyAV has ended the wait
_ANSWERED = (av.error.HTTPClientError, av.error.HTTPServerError, *_SILENT)
_NO_ANSWER = (
    f"does not answer within {STREAM_TIMEOUT:g} s; see the address, the port and the firewall"
)
_NO_USER = "asks for a user and a password (401); give them: {url: .., username: .., password: ..}"
_Kinds = type[Exception] | tuple[type[Exception], ...]
_REASONS: tuple[tuple[_Kinds, str], ...] = (  # FFmpeg's errors with a known cause
    (av.error.HTTPUnauthorizedError, "refuses this user or password (401); see both"),
    (
        av.error.HTTPForbiddenError,
        "refuses access (403); see the rights of this user, and whether the camera is locked",
    ),
    (
        av.error.HTTPNotFoundError,
        "answers, and has nothing at this path (404); see the path in the camera's manual",
    ),
    (
        av.error.HTTPClientError,
        "answers, and refuses the request (an error 4xx); see the path and the scheme",
    ),
    (
        av.error.HTTPServerError,
        "answers that it failed (an error 5xx); it may have too many viewers: try again later",
    ),
    (_SILENT, _NO_ANSWER),
)
_NO_STREAM = (
    "answers, and sends nothing that can be read as a stream; see the path: a web page and a "
    "single picture are none"
)


def open_stream(address: Address, patience: float = STREAM_TIMEOUT) -> Any:
    """Opens the stream; `patience` is how many seconds it may then send nothing.

    Raises SourceLost with the reason.
    """
    if address.scheme not in NETWORK_SCHEMES:
        msg = "a device carries no stream"
        raise SourceLost(msg)
    return (_open_rtsp if address.scheme in _RELAYED else _open_http)(address, patience)


def _open_rtsp(address: Address, patience: float) -> Any:
    relay = RtspRelay(_connected(address, STREAM_TIMEOUT), address.target)
    began = time.monotonic()
    try:
        return av.open(relay.url, options=options("rtsp"), timeout=(STREAM_TIMEOUT, patience))
    except BROKEN as error:
        relay.close()
        raise SourceLost(relay.reason or _why_closed(address, error, began)) from None


def _open_http(address: Address, patience: float) -> Any:
    target = address.target
    for _ in range(MAX_REDIRECTS + 1):
        began = time.monotonic()
        scheme = urlsplit(target).scheme
        try:
            return av.open(target, options=options(scheme), timeout=(STREAM_TIMEOUT, patience))
        except BROKEN as error:
            refused = getattr(error, "errno", None) == errno.EIO  # FFmpeg's word for a redirect
            onward = _redirect(target) if refused else None
            if onward is None:
                raise SourceLost(_why_closed(address, error, began)) from None
            target = onward
    msg = f"the camera sends us on more than {MAX_REDIRECTS} times (redirects); see its manual"
    raise SourceLost(msg)


def _redirect(target: str) -> str | None:
    """The address on the same host to which an HTTP server sends us; None if it does not.

    FFmpeg follows no redirect and tells of none, so the server is asked once more. Raises
    SourceLost for a redirect to another host or port, or from https to http: user and password
    belong to the host that they were given for.
    """
    here = urlsplit(target)
    user, at, place = here.netloc.rpartition("@")
    plain = target.replace(f"//{here.netloc}", f"//{place}", 1)
    try:
        status, headers = _asked(plain)
        if status == httpx.codes.UNAUTHORIZED and at:
            status, headers = _asked(plain, _login(plain, user, headers))
        if not 300 <= status < 400 or "location" not in headers:
            return None
        there = urlsplit(urljoin(plain, headers["location"]))
        port = there.port
    except (OSError, HTTPException, httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    ports = {here.port or _PORTS[here.scheme]}
    ports |= {_PORTS["https"]} if there.scheme == "https" else set()
    if there.hostname != here.hostname or (port or _PORTS.get(there.scheme)) not in ports:
        msg = (
            "the camera sends us to another host or port (a redirect), which is not followed; if "
            "this is right, write that address"
        )
        raise SourceLost(msg)
    if there.scheme not in (here.scheme, "https"):
        msg = "the camera sends us from https to an address without encryption; it is not followed"
        raise SourceLost(msg)
    return there._replace(netloc=f"{user}{at}{there.netloc.rpartition('@')[2]}").geturl()


def _asked(url: str, login: str = "") -> tuple[int, httpx.Headers]:
    """Status and headers of the answer to a GET; its body, which may be a stream, is not read."""
    parts = urlsplit(url)
    line = _connected(Address(parts.scheme, url), STREAM_TIMEOUT)
    if parts.scheme == "https":
        line = encrypted(line, parts.hostname or "", STREAM_TIMEOUT)
    with line, ended_after(line, STREAM_TIMEOUT):
        connection = HTTPConnection(parts.hostname or "", parts.port)
        connection.sock = line
        headers = {"Host": parts.netloc, "Authorization": login}
        path = httpx.URL(url).raw_path.decode("ascii")
        connection.request("GET", path, headers={k: v for k, v in headers.items() if v})
        answer = connection.getresponse()
        return answer.status, httpx.Headers(answer.getheaders())


def _login(url: str, user: str, challenge: httpx.Headers) -> str:
    """The header with user and password that the challenge asks for."""
    name, _, word = (unquote(part) for part in user.partition(":"))
    digest = "digest" in challenge.get("www-authenticate", "").lower()
    flow = (httpx.DigestAuth if digest else httpx.BasicAuth)(name, word).sync_auth_flow(
        httpx.Request("GET", url)
    )
    request = next(flow)
    if digest:
        request = flow.send(httpx.Response(401, headers=challenge, request=request))
    return request.headers["authorization"]


def why(error: Exception, otherwise: str) -> str:
    """Returns the reason for an FFmpeg error, else `otherwise`."""
    return "the stream " + next(
        (text for kind, text in _REASONS if isinstance(error, kind)), otherwise
    )


def reach(address: Address, timeout: float = STREAM_TIMEOUT) -> None:
    """Connects to the port of a network address and closes; raises SourceLost with the cause."""
    _connected(address, timeout).close()


def _connected(address: Address, timeout: float) -> socket.socket:
    """A connection to the port of a network address; raises SourceLost with the cause."""
    parts = urlsplit(address.target)
    port = parts.port or _PORTS[address.scheme]
    try:
        return socket.create_connection((parts.hostname, port), timeout)
    except socket.gaierror as error:
        msg = "the host's name is not known; see how it is written, and the name server"
        raise SourceLost(msg) from error
    except TimeoutError as error:
        msg = (
            f"the host does not answer within {timeout:g} s; see the address, the network "
            "and the firewall"
        )
        raise SourceLost(msg) from error
    except ConnectionRefusedError as error:
        msg = (
            f"the host cannot be reached: Connection refused; nothing listens on port {port} "
            "there: see the port, and whether its stream is turned on"
        )
        raise SourceLost(msg) from error
    except OSError as error:
        msg = (
            f"the host cannot be reached: {error.strerror or 'no connection'}; see the address "
            "and the network"
        )
        raise SourceLost(msg) from error


def _why_closed(address: Address, error: Exception, began: float) -> str:
    if time.monotonic() - began >= STREAM_TIMEOUT:  # over RTSP it has no error of its own
        return f"the stream {_NO_ANSWER}"
    if isinstance(error, av.error.HTTPUnauthorizedError) and "@" not in address.target:
        return f"the stream {_NO_USER}"
    if isinstance(error, _ANSWERED):
        return why(error, "cannot be opened")
    try:
        reach(address)
    except SourceLost as unreached:
        return str(unreached)
    return f"the host {_NO_STREAM}"


def why_no_file(path: Path) -> str:
    """Returns why a file cannot be played."""
    if not path.exists():
        return "the file is not there"
    if not path.is_file():
        return "the path leads to no file"
    if not os.access(path, os.R_OK):
        return "the file may not be read by this user"
    return "the file is empty" if not path.stat().st_size else "the file is no video and no sound"


def chosen(
    container: Any, site: str, camera: str, microphone: str, track: int | None, what: str
) -> list[Any]:
    """The stream of pictures, if there is a camera, and that of sound, if there is a microphone.

    Says it when there are several sound tracks and the config chooses none (`track`). Raises
    SourceLost, and closes the container, for a track that is missing or has no decoder.
    """
    streams = []
    try:
        if camera:
            streams.append(containers.picture_track(container))
        if microphone:
            streams.append(containers.sound_track(container, track or 1))
    except LookupError as error:
        container.close()
        msg = f"the {what} {error}"
        raise SourceLost(msg) from None
    tracks = len(container.streams.audio)
    if microphone and track is None and tracks > 1:
        log.warning(
            "%s/%s: there are %d sound tracks, and the first is taken; `track` chooses another",
            site,
            microphone,
            tracks,
        )
    return streams
