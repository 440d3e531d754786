"""Folds anomalies into findings: what was found where, since when, how surely and how often.

The fold takes the least start, the greatest end and score, and the number of anomalies. So their
order does not matter, and nothing is ever dropped from it. Its keys hold names of the config and
classes of objects, never a number of a track: the config bounds how many findings there are. Only
the functions that tell cut: an alert has room for a few findings and texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pipeline.types import SEVERITIES, SYSTEM, Anomaly, Corners, Finding, rfc3339

MOST_FINDINGS = 32  # of an alert
MAX_REASON = 500  # characters of what was found: a report may hold many words of a rule
FIRST_TEXTS, NEWEST_TEXTS = 8, 12  # of an alert's reasons, and of its transcript

Key = tuple[str, str, str, str, str, str]  # source, kind, label, zone, line, class of the object
Text = tuple[int, str]  # ns of its begin, text
_KINDS = {"vision": "object"}  # modality -> kind, where they differ


class FoldedFinding(msgspec.Struct, frozen=True, kw_only=True):
    """All anomalies with one key; `best` is the least of (-score, start, box) over them."""

    severity: int  # the highest, as its place in SEVERITIES
    first: Text  # of the earliest anomaly
    end: int
    best: tuple[float, int, Corners | tuple[()]]
    count: int

    def joined(self, other: FoldedFinding) -> FoldedFinding:
        """Returns the finding of the anomalies of both, which have none in common."""
        return FoldedFinding(
            severity=max(self.severity, other.severity),
            first=min(self.first, other.first),
            end=max(self.end, other.end),
            best=min(self.best, other.best),
            count=self.count + other.count,
        )


def kind_of(anomaly: Anomaly) -> str:
    """The kind of an anomaly; that of an older version's record is told by its modalities."""
    if anomaly.kind:
        return anomaly.kind
    if anomaly.rule == SYSTEM:
        return SYSTEM
    if len(anomaly.contributions) != 1:
        return "learned"
    modality = next(iter(anomaly.contributions))
    return _KINDS.get(modality, modality)


def is_event(anomaly: Anomaly) -> bool:
    """Whether it is something that happens, like a shot, and not a state that lasts."""
    return bool(anomaly.line) or kind_of(anomaly) in ("behaviour", "sound", "speech", "report")


def reason_at(start: int, what: str) -> str:
    """A reason for a person to read: the time of day in UTC, and what was found."""
    short = what if len(what) <= MAX_REASON else what[: MAX_REASON - 1] + "…"
    return f"{rfc3339(start)[11:19]}Z {short}"


def reason_of(anomaly: Anomaly) -> str:
    """The reason of an anomaly, also of one that continues an event and so gives none itself."""
    if not anomaly.what and anomaly.reasons:  # of an older version
        return anomaly.reasons[0]
    return reason_at(anomaly.start, anomaly.what or anomaly.label)


def finding_of(anomaly: Anomaly) -> dict[Key, FoldedFinding]:
    """The fold of a single anomaly; what an early sound has told counts once."""
    key = (
        anomaly.source,
        kind_of(anomaly),
        anomaly.label,
        anomaly.zone,
        anomaly.line,
        anomaly.object,
    )
    folded = FoldedFinding(
        severity=SEVERITIES.index(anomaly.severity),
        first=(anomaly.start, reason_of(anomaly)),
        end=anomaly.end,
        best=(-anomaly.score, anomaly.start, anomaly.box or ()),
        count=int(anomaly.counts),
    )
    return {key: folded}


def union(
    ours: Mapping[Key, FoldedFinding], theirs: Mapping[Key, FoldedFinding]
) -> dict[Key, FoldedFinding]:
    """The fold of the anomalies of both, which have none in common."""
    both = dict(ours)
    for key, folded in theirs.items():
        both[key] = both[key].joined(folded) if key in both else folded
    return both


def told(folded: Mapping[Key, FoldedFinding]) -> tuple[Finding, ...]:
    """The findings of an alert: the gravest first, then the surest, then the newest."""

    def rank(item: tuple[Key, FoldedFinding]) -> tuple[int, float, int, Key]:
        key, finding = item
        return -finding.severity, finding.best[0], -finding.end, key

    return tuple(
        Finding(
            source=key[0],
            kind=key[1],
            label=key[2],
            zone=key[3],
            line=key[4],
            object=key[5],
            score=-finding.best[0],
            start=finding.first[0],
            end=finding.end,
            count=finding.count,
            box=finding.best[2] or None,
            at=finding.best[1],
        )
        for key, finding in sorted(folded.items(), key=rank)[:MOST_FINDINGS]
    )


def ends(texts: Iterable[Text]) -> frozenset[Text]:
    """The first and the newest texts; those between them are left out.

    The ends of a union are those of the union of the ends: the order of joining does not matter.
    """
    ordered = sorted(set(texts))
    if len(ordered) > FIRST_TEXTS + NEWEST_TEXTS:
        ordered = [*ordered[:FIRST_TEXTS], *ordered[-NEWEST_TEXTS:]]
    return frozenset(ordered)


def lines(texts: Iterable[Text]) -> tuple[str, ...]:
    """The first and the newest texts in the order of their time, each text once."""
    return tuple(dict.fromkeys(text for _, text in sorted(ends(texts))))
