"""Opens network streams by PyAV, and says in words why a stream or file cannot be opened.

No message quotes an address: FFmpeg's own texts do.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av

from pipeline.errors import SourceLost
from workers.config.source_address import NETWORK_SCHEMES, Address
from workers.media.containers import BROKEN, options

STREAM_TIMEOUT = 5.0  # s to connect, and to wait for what comes next

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
    began = time.monotonic()
    try:
        return av.open(
            address.target, options=options(address.scheme), timeout=(STREAM_TIMEOUT, patience)
        )
    except BROKEN as error:
        late = time.monotonic() - began >= STREAM_TIMEOUT  # over RTSP it has no error of its own
        msg = f"the stream {_NO_ANSWER}" if late else _why_closed(address, error)
        raise SourceLost(msg) from None  # the cause quotes the address


def why(error: Exception, otherwise: str) -> str:
    """Returns the reason for an FFmpeg error, else `otherwise`."""
    return "the stream " + next(
        (text for kind, text in _REASONS if isinstance(error, kind)), otherwise
    )


def reach(address: Address, timeout: float = STREAM_TIMEOUT) -> None:
    """Connects to the port of a network address and closes; raises SourceLost with the cause."""
    parts = urlsplit(address.target)
    port = parts.port or _PORTS[address.scheme]
    try:
        socket.create_connection((parts.hostname, port), timeout).close()
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


def _why_closed(address: Address, error: Exception) -> str:
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
