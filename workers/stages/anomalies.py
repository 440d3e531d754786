"""Makes anomalies of what the rules find."""

from __future__ import annotations

from collections.abc import Mapping

from models.fusion.noisy_or import Verdict
from pipeline import codec
from pipeline.judge.findings import reason_at
from pipeline.judge.rules import VISION, RuleFinding
from pipeline.types import SEVERITIES, Anomaly, DeadLetter, Presence, Record, content_id


def gravity(finding: RuleFinding) -> tuple[int, float, int, str]:
    """Sorts findings: the gravest, the surest and the earliest is the largest."""
    return SEVERITIES.index(finding.severity), finding.score, -finding.start, finding.label


def anomaly_of(
    site: str, finding: RuleFinding, ordinal: int, presence: Mapping[str, Presence], head: str
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
        reasons=(reason_at(finding.start, finding.reason),) if finding.news else (),
        contributions={finding.modality: 1.0},
        head=head,
        kind=finding.kind or ("object" if finding.modality == VISION else finding.modality),
        zone=finding.zone,
        line=finding.line,
        object=finding.object,
        box=finding.box,
        what=finding.reason,
    )


def carried(verdict: Verdict) -> str:
    """What carried the judgement of a window, for a person to read.

    Fused evidence names what the rules found. A learned verdict names the shares of the modalities
    and what in them weighed most.
    """
    if verdict.findings:
        signs = dict.fromkeys(finding.reason for finding in verdict.findings)
        return f"{verdict.label} from several signs: {'; '.join(signs)}"
    shares = sorted(verdict.contributions.items(), key=lambda share: (-share[1], share[0]))
    by = ", ".join(f"{modality} {share:.0%}" for modality, share in shares if share > 0)
    why = f": {'; '.join(verdict.why)}" if verdict.why else ""
    return f"{verdict.label} learned from {by or 'the whole'}{why}"


def rejected(record: Record, reason: str) -> DeadLetter:
    """The DeadLetter of a record that could not be used, with the reason."""
    return DeadLetter(
        site=record.site,
        source=record.source,
        topic="",  # the caller that read the record fills in its position
        partition=-1,
        offset=-1,
        reason=reason,
        value=codec.encode(record),
    )
