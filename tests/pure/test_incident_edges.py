"""What an alert says when there is more than one answer."""

from __future__ import annotations

import pytest

from pipeline.incident import Incidents, Timing
from pipeline.types import SECOND, Anomaly, ns
from tests.make import anomaly
from workers.evidence import evidence_names

TIMING = Timing(close_after=10 * SECOND, max_duration=60 * SECOND)


def incidents() -> Incidents:
    return Incidents(TIMING, lambda site, id_, rev: evidence_names(site, id_, rev, ("desk",)))


def test_a_closing_alert_names_the_pictures_of_its_opening() -> None:
    """Pictures are cut at each revision but the closing one: another name is of no file."""
    fold = incidents()
    (opened,) = fold.on(anomaly(100, "glass"))
    (updated,) = fold.on(anomaly(101, "gunshot"))
    (closed,) = fold.advance(ns(120))
    assert opened.evidence == (f"office/{opened.id}_0_desk.jpg",)
    assert updated.evidence == (f"office/{opened.id}_1_desk.jpg",)
    assert (closed.revision, closed.evidence) == (2, opened.evidence)


GLASS = anomaly(100, "glass", score=0.6)
SURER = anomaly(101, "gunshot", score=0.9)
GRAVER = anomaly(102, "siren", score=0.5, severity="critical")
AS_SURE = anomaly(103, "explosion", score=0.9)


@pytest.mark.parametrize(
    ("anomalies", "label"),
    [
        ([GLASS, SURER], "gunshot"),
        ([SURER, GLASS], "gunshot"),
        ([GLASS, SURER, GRAVER], "siren"),
        ([GLASS, SURER, AS_SURE], "explosion"),
    ],
    ids=["the-surest-last", "the-surest-first", "the-gravest", "equals-by-name"],
)
def test_an_alert_is_called_by_its_gravest_then_surest_label_then_by_name(
    anomalies: list[Anomaly], label: str
) -> None:
    fold = incidents()
    told = [alert for one in anomalies for alert in fold.on(one)]
    assert told[-1].label == label
