"""Tracks the alerts of one partition that a subscriber has not got yet, over restarts too.

The local log is the outbox: no alert is copied. The committed offset is that of the first alert
that is not done. Its note holds the offset read up to and the alerts between the two that wait:

    note = "1" + base64(crc32 of the rest, u32 | reached, u64 | breaker: failures, u8; until, u32;
                        disabled, 8 bytes | (offset - safe, u32; attempts, u8; next, u32) ...)

While the subscriber fails, the note says more, between the breaker and the alerts:

    note = "2" + base64(crc32, begun with 2 ... breaker | since, u32; dead, u32; length of the
                        reason, u8; reason | ...)

`next`, `until` and `since` are unix seconds; the first two are rounded up. 256 waiting alerts and
the longest reason make 3,429 bytes of ASCII (Kafka keeps a note as offset metadata, a string of
4,096 bytes at most).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct
import zlib

import msgspec

from pipeline import backoff
from pipeline.errors import OutsideError
from pipeline.types import Alert

MAX_PENDING = 256
# s; Standard Webhooks' schedule with a finer start: the link of an edge device fails for seconds.
RETRY_DELAYS = (0.5, 2, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
# s; no wait is longer; a later time comes from a wrong clock
MAX_DELAY = 1.2 * RETRY_DELAYS[-1]

MAX_REASON_BYTES = 231  # bytes of UTF-8 of a reason in a note; a longer one is cut

_PLAIN, _FAILING = b"1", b"2"  # versions of the note
_HEAD = struct.Struct(">IQBI8s")
_MORE = struct.Struct(">IIB")
_ITEM = struct.Struct(">IBI")


class CircuitBreaker(msgspec.Struct, frozen=True):
    """A subscriber's circuit breaker: after `failures` in a row nothing is sent before `until`.

    `disabled` is the fingerprint of the address that answered 410 Gone, or empty. `since` is the
    time of the first of the failures, `reason` that of the last one. `dead` counts the alerts that
    became dead letters since then.
    """

    failures: int = 0
    until: float = 0.0  # unix s
    disabled: bytes = b""
    since: float = 0.0  # unix s; 0: unknown
    dead: int = 0
    reason: str = ""


def fingerprint(address: str, enabled: str = "") -> bytes:
    """A hash by which a note identifies an address that answered 410, without the address.

    `enabled` is the mark of the last `fusewatch webhooks enable`. Another mark gives another
    fingerprint, so the address counts as a new one.
    """
    text = f"{address}\0{enabled}" if enabled else address
    return hashlib.sha256(text.encode()).digest()[:8]


class Pending(msgspec.Struct):
    """An alert that waits to be delivered; each attempt changes it."""

    offset: int
    value: bytes
    alert: Alert
    trace: str = ""
    attempts: int = 0
    next: float = 0.0  # unix s
    alone: bool = False  # the receiver refused this very alert the last time

    def due(self, now: float) -> bool:
        """Whether the next attempt is due; `now` is unix s."""
        return wait_over(self.next, now)


def wait_over(until: float, now: float) -> bool:
    """Whether the wait is over (unix s), or over MAX_DELAY, which only a wrong clock sets."""
    return until <= now or until > now + MAX_DELAY


def delay(attempts: int, chance: float) -> float:
    """Seconds to wait after `attempts` failures (1 or more), +-20 %; `chance` is in [0, 1)."""
    return backoff.delay(attempts, RETRY_DELAYS) * (0.8 + 0.4 * chance)


class Outbox:
    """The outbox of one partition.

    Call `take` for an alert that is read and `done` for one that is finished; commit `safe` and
    `note`.
    """

    def __init__(self, offset: int, note: bytes) -> None:
        """Raises OutsideError for a note that `pack` did not write."""
        self.reached, self.breaker, self._known = unpack(offset, note)
        self.pending: dict[int, Pending] = {}

    @property
    def waiting(self) -> int:
        """The number of waiting alerts, with those that a restart has not read again yet."""
        return len(self.pending) + len(self._known)

    @property
    def safe(self) -> int:
        """The offset that a restart reads from."""
        return min((*self.pending, *self._known), default=self.reached)

    def note(self, breaker: CircuitBreaker) -> bytes:
        """The note to commit: what a restart must know."""
        items = {p.offset: (p.attempts, p.next) for p in self.pending.values()} | self._known
        return pack(self.safe, self.reached, breaker, items)

    def wants(self, offset: int) -> bool:
        """Whether the alert at `offset` is not done: false if it was done before a restart."""
        return offset >= self.reached or offset in self._known

    def take(self, offset: int, value: bytes, alert: Alert, trace: str = "") -> None:
        """Adds an alert that is to be sent."""
        attempts, later = self._known.get(offset, (0, 0.0))
        self.passed(offset)
        self.pending[offset] = Pending(offset, value, alert, trace, attempts, later)

    def passed(self, offset: int) -> None:
        """Marks `offset` as read; known alerts below it that did not come are gone from the log."""
        self._known = {known: item for known, item in self._known.items() if known > offset}
        self.reached = max(self.reached, offset + 1)

    def done(self, offset: int) -> None:
        """Removes an alert that is delivered or dead."""
        del self.pending[offset]


def pack(
    safe: int, reached: int, breaker: CircuitBreaker, items: dict[int, tuple[int, float]]
) -> bytes:
    """Encodes the note; the format is in the module docstring."""
    body = bytearray(
        _HEAD.pack(
            0, reached, min(breaker.failures, 255), _seconds(breaker.until), breaker.disabled
        )
    )
    more = bool(breaker.since or breaker.dead or breaker.reason)
    if more:
        reason = _cut(breaker.reason)
        since, dead = _seconds(math.floor(breaker.since)), min(breaker.dead, 0xFFFFFFFF)
        body += _MORE.pack(since, dead, len(reason)) + reason
    for offset, (attempts, later) in sorted(items.items()):
        body += _ITEM.pack(offset - safe, min(attempts, 255), _seconds(later))
    version = _FAILING if more else _PLAIN
    struct.pack_into(">I", body, 0, _crc(version, body))
    return version + base64.b64encode(body)


def unpack(safe: int, note: bytes) -> tuple[int, CircuitBreaker, dict[int, tuple[int, float]]]:
    """Decodes (reached, breaker, offset -> (attempts, next)); raises OutsideError if damaged."""
    if not note:
        return safe, CircuitBreaker(), {}
    try:
        version, body = note[:1], base64.b64decode(note[1:], validate=True)
        crc, reached, failures, until, disabled = _HEAD.unpack_from(body)
        good = version in (_PLAIN, _FAILING) and crc == _crc(version, body)
        since, dead, reason, end = 0, 0, "", _HEAD.size
        if version == _FAILING:
            since, dead, length = _MORE.unpack_from(body, end)
            start = end + _MORE.size
            end = start + length
            reason = body[start:end].decode()
        items = list(_ITEM.iter_unpack(body[end:]))
    except (binascii.Error, struct.error, ValueError) as error:
        raise OutsideError(_WRONG) from error
    if not good:
        raise OutsideError(_WRONG)
    gone = disabled if any(disabled) else b""
    breaker = CircuitBreaker(failures, float(until), gone, float(since), dead, reason)
    return reached, breaker, {safe + step: (tries, float(later)) for step, tries, later in items}


def _crc(version: bytes, body: bytes | bytearray) -> int:
    """The checksum of a note; that of a newer version covers the version too."""
    return zlib.crc32(body[4:], 0 if version == _PLAIN else int(version))


def _cut(reason: str) -> bytes:
    """The reason in UTF-8, cut between two characters."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()


_WRONG = (
    "a delivery's note in the state is damaged or from another version; the state folder's log "
    "is no longer to be trusted"
)


def _seconds(moment: float) -> int:
    return min(max(math.ceil(moment), 0), 0xFFFFFFFF)
