"""How long to wait before the next try, by how many tries have failed in a row."""

from __future__ import annotations

from collections.abc import Sequence


def doubling(*, first: float, longest: float) -> tuple[float, ...]:
    """A schedule in seconds: `first`, then twice as long each time, and `longest` at its end."""
    waits = [first]
    while waits[-1] * 2 < longest:
        waits.append(waits[-1] * 2)
    return (*waits, longest)


def delay(failures: int, schedule: Sequence[float]) -> float:
    """The wait after `failures` in a row (1 or more); the last wait of a schedule repeats."""
    return schedule[min(failures, len(schedule)) - 1]
