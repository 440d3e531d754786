"""Windows at their edges: what touches a window without lying in it."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.align import Aligner, Output
from pipeline.types import SECOND, Presence, Record, Window, ns
from tests import make

SIZE, HOP, HORIZON = ns(4), ns(1), ns(20)


def office() -> Aligner:
    return Aligner(make.SITE, SIZE, HOP, horizon=HORIZON)


def feed(aligner: Aligner, *records: Record) -> list[Output]:
    return [output for record in records for output in aligner.push(record)]


def presence_of(source: str, outputs: Iterable[Output]) -> dict[int, Presence]:
    """By the second in which a window starts."""
    return {o.start // SECOND: o.presence[source] for o in outputs if isinstance(o, Window)}


def test_a_source_lost_from_a_windows_end_on_is_only_silent_in_that_window() -> None:
    aligner = office()
    out = feed(
        aligner,
        make.roster("desk", "room", start=100),
        make.progress(100),  # the loss is known before any window of it closes
        make.progress(102, source="room"),
        make.progress(104, source="room", alive=False),
        make.progress(110, source="room"),
        make.progress(120),
    )
    presence = presence_of("room", out)
    assert presence[98] is Presence.SILENT  # [98, 102) ends where the loss begins
    assert presence[99] is Presence.LOST
    assert presence[103] is Presence.LOST
    assert presence[104] is Presence.SILENT  # [104, 108) begins where the loss ends
