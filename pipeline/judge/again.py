"""Tells when something happens again in an open incident, so that it is worth a revision.

An *event* is a sound, words, a crossed line or a behaviour. It happens again when it starts
`remind` or more after the newest event of its label that a revision has told. A *state* lasts: an
object in a zone, a crowd, the judgement of a window. It comes again when its label was absent for
`remind` or more.
Only what is high or critical counts, and never a lost source.

The answer depends on the order of the log and on event time alone: no clock is read.
"""

from __future__ import annotations

from pipeline.judge.findings import is_event, kind_of
from pipeline.types import SEVERITIES, SYSTEM, Anomaly

_GRAVE = SEVERITIES.index("high")


class Reminder:
    """What the revisions of one incident have told by label; `remind` in ns of event time."""

    def __init__(self, remind: int) -> None:
        self._remind = remind
        self._newest: dict[str, int] = {}  # label -> start of its newest event
        self._told: dict[str, int] = {}  # the same, when the last revision was made
        self._until: dict[str, int] = {}  # label -> end of its newest anomaly

    def again(self, anomaly: Anomaly) -> bool:
        """Takes an anomaly that joins the incident; returns whether it is to be told again."""
        label, start = anomaly.label, anomaly.start
        since = self._told.get(label) if is_event(anomaly) else self._until.get(label)
        if is_event(anomaly):
            self._newest[label] = max(start, self._newest.get(label, start))
        self._until[label] = max(anomaly.end, self._until.get(label, anomaly.end))
        grave = SEVERITIES.index(anomaly.severity) >= _GRAVE and kind_of(anomaly) != SYSTEM
        return grave and since is not None and start - since >= self._remind

    def revised(self) -> None:
        """A revision tells all events so far."""
        self._told = dict(self._newest)
