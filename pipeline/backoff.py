"""Computes the wait before the next attempt from the number of failures in a row."""

from __future__ import annotations

from collections.abc import Sequence


def doubling(*, first: float, longest: float) -> tuple[float, ...]:
    """Returns waits in seconds: `first`, then twice as long each time, and `longest` last."""
    waits = [first]
    while waits[-1] * 2 < longest:
        waits.append(waits[-1] * 2)
    return (*waits, longest)


def delay(failures: int, schedule: Sequence[float]) -> float:
    """Returns the wait after `failures` in a row (1 or more); the last wait repeats."""
    return schedule[min(failures, len(schedule)) - 1]
