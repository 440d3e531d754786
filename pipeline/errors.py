"""Every error that Fusewatch raises on purpose.

    FusewatchError
    +-- ConfigError      the config, a scene or a command is wrong: exit code 2
    +-- DecodeError      bytes are not a valid record: they go to the dead letters
    +-- OutsideError     a device, file, address or registry failed: exit code 3
    |   +-- SourceLost   a camera, microphone or stream is lost; capture reconnects
    |   +-- DiskFull     the log has no space; capture drops and counts records until it has
    |   +-- FileBusy     another program has locked a file of ours for long; try again
    |   +-- LogInUse     another process of Fusewatch has the log
    |   +-- BrokersAway  Kafka does not answer; capture spools until it does
    |   +-- WeightsError a model file is missing or does not match its hash
    +-- TooManyReports   a site sends reports faster than they are read: it is to wait
    +-- Retry            a sink asks for a later retry
    +-- Rejected         a sink refuses this alert for good: it goes to the dead letters

The message of an error says what the user can do. No message holds a secret.
"""

from __future__ import annotations


def install_hint(extra: str) -> str:
    """How to install an extra. Fusewatch is not on PyPI: a package of its name there is another."""
    return f"in the folder of Fusewatch's sources: pip install -c constraints.txt '.[{extra}]'"


class FusewatchError(Exception):
    """The base class of all these errors."""


class ConfigError(FusewatchError):
    """A setting is wrong; `str()` names file, line, path and what to do."""


class DecodeError(FusewatchError):
    """Bytes are not a valid Fusewatch record."""


class OutsideError(FusewatchError):
    """Something outside Fusewatch failed: a device, file, network, disk or broker."""


class SourceLost(OutsideError):
    """A live source ended unexpectedly; the message gives the reason without the source's
    address."""


class DiskFull(OutsideError):
    """The disk has no space left for the log; acknowledged records are not lost."""


class FileBusy(OutsideError):
    """Another program has locked a file of ours; a later attempt may succeed."""


class LogInUse(OutsideError):
    """Another process of Fusewatch has the log; it may be asked to do what is needed."""


class BrokersAway(OutsideError):
    """No broker answers, or none can serve; a later attempt may succeed without any action."""


class WeightsError(OutsideError):
    """A model file is missing, truncated or altered."""


class TooManyReports(FusewatchError):
    """Too many reports of one site wait to be read; those of other sites are taken."""


class Retry(FusewatchError):
    """The sink could not take an alert now.

    `after` is the wait in seconds that the receiver asked for (`Retry-After`); None: the usual
    backoff. `alone` means that the refusal concerns only this alert, so other alerts may be sent
    meanwhile.
    """

    def __init__(self, reason: str, after: float | None = None, *, alone: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.alone = alone


class Rejected(FusewatchError):
    """The sink refuses this alert for good; `disable` means that it refuses all others too
    (410)."""

    def __init__(self, reason: str, *, disable: bool = False) -> None:
        super().__init__(reason)
        self.disable = disable
