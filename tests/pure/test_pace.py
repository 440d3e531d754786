"""A replay goes at its speed, tells how far it is, and does not wait for what lies before it."""

from __future__ import annotations

import time

from pipeline.types import SECOND
from workers.stored.pace import MOST, Pace


def spent(speed: float | None, since: int = 0, until: int = 10) -> tuple[float, list[list[int]]]:
    heard: list[tuple[int, int]] = []
    pace = Pace(
        since * SECOND, until * SECOND, speed, lambda done, all_: heard.append((done, all_))
    )
    began = time.monotonic()
    items = list(range(0, until * SECOND, SECOND // 4))
    groups = list(pace.batches(items, lambda item: item))
    assert [item for group in groups for item in group] == items
    assert heard[-1] == ((until - since) * SECOND, (until - since) * SECOND)
    return time.monotonic() - began, groups


def test_groups_are_half_a_second_long() -> None:
    _, groups = spent(None)
    assert {len(group) for group in groups} == {2}


def test_a_speed_is_kept() -> None:
    took, _ = spent(20)
    assert 0.4 <= took < 5


def test_the_run_up_is_not_waited_for() -> None:
    took, _ = spent(20, since=9)
    assert took < 0.4


def test_items_without_a_time_are_bounded_too() -> None:
    pace = Pace(0, SECOND, None, lambda done, all_: None)
    groups = list(pace.batches(range(3 * MOST), lambda item: None))
    assert [len(group) for group in groups] == [MOST] * 3
