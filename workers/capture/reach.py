"""Connects to a network source's port, to say why it cannot be reached."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from pipeline.errors import SourceLost
from workers.config.source_address import Address

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def reach(address: Address, timeout: float) -> None:
    """Connects to a network camera's port and closes; raises SourceLost with the cause.

    FFmpeg reports only that it could not open a stream. This check separates an unreachable host
    from a wrong password.
    """
    parts = urlsplit(address.target)
    try:
        socket.create_connection(
            (parts.hostname, parts.port or _PORTS[address.scheme]), timeout
        ).close()
    except socket.gaierror as error:
        msg = "the camera's host name is not known"
        raise SourceLost(msg) from error
    except TimeoutError as error:
        msg = f"the camera's host does not answer within {timeout:g} s"
        raise SourceLost(msg) from error
    except OSError as error:
        msg = f"the camera cannot be reached: {error.strerror or 'no connection'}"
        raise SourceLost(msg) from error
