"""Arithmetic on intervals of seconds: difference, complement, union."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Interval = tuple[float, float]  # s


def length(span: Interval) -> float:
    """Returns the length of an interval, s."""
    return span[1] - span[0]


def minus(spans: Iterable[Interval], hidden: Iterable[Interval]) -> list[Interval]:
    """Returns the parts of `spans` outside `hidden`."""
    left = [*spans]
    for a, b in hidden:
        left = [
            piece
            for s, e in left
            for piece in ((s, min(e, a)), (max(s, b), e))
            if length(piece) > 0
            for s, e in left
            for piece in ((s, min(e, a)), (max(s, b), e))
            if length(piece) > 0
        ]
    return left


def outside(lit: Iterable[Interval], duration: float) -> list[Interval]:
    """Returns the parts of `[0, duration]` outside `lit`."""
    return minus([(0.0, duration)], lit)


def merged(spans: Sequence[Interval]) -> list[Interval]:
    """Returns spans in order; spans that touch are joined."""
    joined: list[Interval] = []
    for a, b in sorted(spans):
        if joined and a <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(b, joined[-1][1]))
        else:
            joined.append((a, b))
    return joined
