"""Every error that Fusewatch raises on purpose.

    FusewatchError
    +-- ConfigError      the config, a scene or a command is wrong: exit code 2
    +-- DecodeError      a record's bytes are not a record of ours: it goes to `dead`
    +-- OutsideError     a device, file, address or registry failed: exit code 3
    |   +-- SourceLost   a camera, microphone or stream is gone; capture tries again
    |   +-- DiskFull     the log has no space; capture drops and counts until it has
    |   +-- BrokersAway  Kafka does not answer; capture spools until it does
    |   +-- WeightsError a model file is missing or is not what its hash says
    +-- Retry            a sink asks to be tried again later
    +-- Rejected         a sink will never take this alert: it goes to `dead`

An error that reaches a person says what to do; none of them ever holds a secret.
"""

from __future__ import annotations


class FusewatchError(Exception):
    """The root of the tree."""


class ConfigError(FusewatchError):
    """A wrong setting; `str()` names file, line, path and what to do."""


class DecodeError(FusewatchError):
    """Bytes that are not one of our records."""


class OutsideError(FusewatchError):
    """Something that we do not control failed."""


class SourceLost(OutsideError):
    """A source ended that should have gone on; the message says why, without its address."""


class DiskFull(OutsideError):
    """The disk has no space left for the log; nothing that was acknowledged is lost."""


class BrokersAway(OutsideError):
    """No broker answers, or none that could serve us; it may work again without our doing."""


class WeightsError(OutsideError):
    """A model file is missing, truncated or altered."""


class Retry(FusewatchError):
    """The sink could not take an alert now.

    `after` is seconds as the receiver asked for (`Retry-After`), or None for the usual delay;
    `alone` means that it spoke of this alert only, so that others may be tried meanwhile.
    """

    def __init__(self, reason: str, after: float | None = None, *, alone: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.alone = alone


class Rejected(FusewatchError):
    """The sink will not take this alert, now or later; `disable` means: nor any other (410)."""

    def __init__(self, reason: str, *, disable: bool = False) -> None:
        super().__init__(reason)
        self.disable = disable
