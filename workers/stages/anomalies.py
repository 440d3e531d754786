"""Makes anomalies of what the rules find."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.judge.rules import Finding
from pipeline.types import SEVERITIES, Anomaly, Presence, content_id


def gravity(finding: Finding) -> tuple[int, float, int, str]:
    """Sorts findings: the gravest, the surest and the earliest is the largest."""
    return SEVERITIES.index(finding.severity), finding.score, -finding.start, finding.label


def anomaly_of(
    site: str, finding: Finding, ordinal: int, presence: Mapping[str, Presence], head: str
) -> Anomaly:
    """The anomaly of a rule's finding; `ordinal` counts equal ones of one source and start."""
    return Anomaly(
        site=site,
        source=finding.source,
        id=content_id(site, finding.rule, finding.source, finding.start, ordinal),
        start=finding.start,
        end=finding.end,
        rule=finding.rule,
        label=finding.label,
        severity=finding.severity,
        score=finding.score,
        presence=presence,
        text=finding.text,
        reasons=(finding.reason,) if finding.reason else (),
        contributions={finding.modality: 1.0},
        head=head,
    )
