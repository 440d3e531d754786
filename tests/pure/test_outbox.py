"""How long an alert waits, and what a note keeps of it."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from pipeline.errors import OutsideError
from tests.make import alert
from workers.delivery.outbox import (
    MAX_DELAY,
    MAX_REASON_BYTES,
    RETRY_DELAYS,
    CircuitBreaker,
    Outbox,
    Pending,
    delay,
    pack,
    unpack,
    wait_over,
)

NOW = 1_000_000.0  # unix s
# s: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
STANDARD = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)


def test_the_schedule_is_that_of_standard_webhooks_with_a_finer_start() -> None:
    assert RETRY_DELAYS[:4] == (0.5, 2, 5, 30)
    assert RETRY_DELAYS[4:] == STANDARD[1:]


@pytest.mark.parametrize(
    ("attempts", "chance", "wait"),
    [(1, 0.0, 0.4), (1, 0.5, 0.5), (1, 1.0, 0.6), (2, 0.5, 2), (12, 0.5, 86400), (99, 0.5, 86400)],
)
def test_a_wait_is_of_the_schedule_and_spread_by_a_fifth(
    attempts: int, chance: float, wait: float
) -> None:
    assert delay(attempts, chance) == pytest.approx(wait)


def test_a_wait_is_over_at_its_moment() -> None:
    assert wait_over(NOW, NOW)
    assert not wait_over(NOW + 0.001, NOW)
    assert Pending(0, b"", alert(), next=NOW).due(NOW)
    assert not Pending(0, b"", alert(), next=NOW + 1).due(NOW)


def test_the_longest_wait_that_the_schedule_can_make_is_waited_for_and_no_longer_one() -> None:
    assert delay(len(RETRY_DELAYS), 1.0) == pytest.approx(MAX_DELAY)
    assert not wait_over(NOW + MAX_DELAY, NOW)
    assert wait_over(NOW + MAX_DELAY + 1, NOW)


def test_a_note_rounds_moments_up_and_keeps_them_within_its_bytes() -> None:
    note = pack(0, 1, CircuitBreaker(1, 10.2), {0: (1, 20.0), 1: (2, -5.0), 2: (3, 2.0**33)})
    reached, breaker, items = unpack(0, note)
    assert (reached, breaker) == (1, CircuitBreaker(1, 11.0))
    assert items == {0: (1, 20.0), 1: (2, 0.0), 2: (3, 2.0**32 - 1)}


def test_more_than_a_byte_of_attempts_and_failures_is_a_byte_full() -> None:
    _, breaker, items = unpack(0, pack(0, 1, CircuitBreaker(256, 0.0), {0: (256, 0.0)}))
    assert (breaker.failures, items[0][0]) == (255, 255)


def test_without_a_note_an_outbox_begins_at_its_offset() -> None:
    box = Outbox(7, b"")
    assert (box.reached, box.safe, box.waiting, box.breaker) == (7, 7, 0, CircuitBreaker())
    assert box.wants(7)
    assert not box.wants(6)


def test_what_a_restart_has_not_read_again_yet_is_wanted_waited_for_and_safe() -> None:
    box = Outbox(3, pack(3, 9, CircuitBreaker(), {3: (2, 50.0), 5: (1, 60.0)}))
    assert (box.safe, box.waiting, box.reached) == (3, 2, 9)
    assert [offset for offset in range(11) if box.wants(offset)] == [3, 5, 9, 10]
    box.take(3, b"one", alert())
    assert (box.safe, box.waiting, box.reached) == (3, 2, 9)
    assert (box.pending[3].attempts, box.pending[3].next) == (2, 50.0)
    box.take(9, b"two", alert())  # the one at 5 is gone from the log
    assert (box.safe, box.waiting, box.reached) == (3, 2, 10)
    assert (box.pending[9].attempts, box.pending[9].next) == (0, 0.0)
    box.done(3)
    assert (box.safe, box.waiting) == (9, 1)


def test_what_is_read_again_and_passed_does_not_set_back_how_far_the_reading_went() -> None:
    box = Outbox(3, pack(3, 9, CircuitBreaker(), {3: (2, 50.0)}))
    box.passed(3)
    assert (box.reached, box.safe, box.waiting) == (9, 9, 0)
    box.passed(9)
    assert box.reached == 10


def test_a_note_of_its_own_outbox_says_the_same() -> None:
    box = Outbox(3, pack(3, 9, CircuitBreaker(), {3: (2, 50.0), 5: (1, 60.0)}))
    box.take(3, b"one", alert())
    box.pending[3].attempts = 4
    reached, breaker, items = unpack(box.safe, box.note(CircuitBreaker(1, 5.0)))
    assert (reached, breaker) == (9, CircuitBreaker(1, 5.0))
    assert items == {3: (4, 50.0), 5: (1, 60.0)}


def test_what_waits_is_small_in_the_note_however_far_the_log_has_come() -> None:
    """An item is its distance from `safe`, four bytes."""
    far = 2**40
    assert unpack(far, pack(far, far + 2, CircuitBreaker(), {far: (1, 5.0)}))[2] == {far: (1, 5.0)}


NOTE = pack(0, 1, CircuitBreaker(1, 10.0), {0: (1, 20.0)})
FAILING = pack(0, 1, CircuitBreaker(1, 10.0, since=5.0, dead=2, reason="down"), {0: (1, 20.0)})


def test_the_note_of_a_subscriber_that_fails_says_since_when_and_why() -> None:
    breaker = CircuitBreaker(1, 10.0, since=5.0, dead=2, reason="down")
    assert unpack(0, FAILING) == (1, breaker, {0: (1, 20.0)})


@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f600"])
def test_a_long_reason_is_cut_in_the_note_between_two_characters(character: str) -> None:
    breaker = CircuitBreaker(1, 10.0, reason=character * 999)
    kept = unpack(0, pack(0, 1, breaker, {}))[1].reason
    assert set(kept) == {character}
    assert MAX_REASON_BYTES - 4 < len(kept.encode()) <= MAX_REASON_BYTES


def _signed(body: bytes) -> bytes:
    return base64.b64encode(struct.pack(">I", zlib.crc32(body)) + body)


@pytest.mark.parametrize(
    "note",
    [
        b"2" + NOTE[1:],
        b"1" + FAILING[1:],
        b"3" + NOTE[1:],
        NOTE[:-4] + b"AAAA",
        NOTE[:-1],
        NOTE + b"AAAA",
        b"1" + base64.b64encode(b"short"),
        b"1" + _signed(bytes(21) + bytes(5)),
        b"1\xff",
        "1\u00e4".encode(),
    ],
    ids=[
        "failing",
        "plain",
        "version",
        "bytes",
        "cut",
        "longer",
        "head",
        "item",
        "base64",
        "ascii",
    ],
)
def test_a_note_that_was_changed_is_refused(note: bytes) -> None:
    with pytest.raises(OutsideError, match="damaged or from another version"):
        unpack(0, note)
