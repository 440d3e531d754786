"""How long to wait before the next try."""

from __future__ import annotations

import pytest

from models import download
from pipeline import backoff
from workers.bus import spool_forwarder
from workers.capture import capture
from workers.delivery import outbox


@pytest.mark.parametrize(
    ("schedule", "waits"),
    [
        (capture.RECONNECT_DELAYS, (1, 2, 4, 8, 16, 30)),
        (spool_forwarder.RETRY_DELAYS, (0.5, 1, 2, 4, 8, 10)),
        (download.RETRY_DELAYS, (2, 4, 8, 16, 30)),
    ],
    ids=["capture", "spool", "download"],
)
def test_each_wait_is_twice_the_one_before_up_to_the_longest(
    schedule: tuple[float, ...], waits: tuple[float, ...]
) -> None:
    assert schedule == waits


def test_the_longest_wait_repeats_for_as_long_as_it_takes() -> None:
    waits = [backoff.delay(failures, capture.RECONNECT_DELAYS) for failures in (1, 5, 6, 7, 10**6)]
    assert waits == [1, 16, 30, 30, 30]


def test_a_schedule_ends_with_the_longest_wait_also_where_doubling_meets_it() -> None:
    assert backoff.doubling(first=1.0, longest=4.0) == (1.0, 2.0, 4.0)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_a_wait_of_the_delivery_is_spread_by_a_fifth(chance: float, share: float) -> None:
    waits = [outbox.delay(failures, chance) for failures in range(1, len(outbox.RETRY_DELAYS) + 3)]
    planned = [*outbox.RETRY_DELAYS, outbox.RETRY_DELAYS[-1], outbox.RETRY_DELAYS[-1]]
    assert waits == pytest.approx([share * wait for wait in planned])
