"""Makes anomalies of what the rules find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from models.fusion.noisy_or import Verdict
from pipeline import codec
from pipeline.judge.findings import reason_at
from pipeline.judge.rules import VISION, RuleFinding
from pipeline.types import (
    SECOND,
    SEVERITIES,
    Anomaly,
    DeadLetter,
    Presence,
    Record,
    Utterance,
    content_id,
)

# ns; findings with no longer gap are one event, with its reason given once
MAX_HAPPENING_PAUSE = 3 * SECOND

_What = tuple[str, str, str]  # rule, label, source


def gravity(finding: RuleFinding) -> tuple[int, float, int, str]:
    """Sorts findings: the gravest, the surest and the earliest is the largest."""
    return SEVERITIES.index(finding.severity), finding.score, -finding.start, finding.label


class Teller:
    """Makes anomalies of the sure findings of one site; `size` is the length of a window, ns.

    It gives the reason of an event once. What an early sound has told is told again with the whole
    second, and does not count then.
    """

    def __init__(self, site: str, size: int) -> None:
        self._site, self._size = site, size
        self._told: dict[_What, int] = {}  # -> until, ns
        self._early: dict[_What, int] = {}  # -> start of the second that was told early, ns
        self.said: Utterance | None = None  # the last utterance that no anomaly carries yet

    def tell(
        self, findings: Sequence[RuleFinding], presence: Mapping[str, Presence], head: str
    ) -> list[Record]:
        """The anomalies of what one observation showed."""
        ordinals: dict[str, int] = {}
        said: list[Record] = []
        for finding in findings:
            if finding.sure:
                ordinal = ordinals.get(finding.rule, self._spoken(finding))
                ordinals[finding.rule] = ordinal + 1
                counts = self._early.get(_what(finding)) != finding.start
                told = self._overheard(self._news(finding))
                made = anomaly_of(self._site, told, ordinal, presence, head)
                said.append(msgspec.structs.replace(made, counts=counts))
        return said

    def tell_early(
        self, findings: Sequence[RuleFinding], presence: Mapping[str, Presence], head: str
    ) -> list[Record]:
        """The anomalies of what begins in an early sound; what goes on needs no haste.

        Their ids are those that the whole second would give.
        """
        said: list[Record] = []
        for finding in findings:
            if finding.sure and not self._lasts(finding):
                ordinal = self._spoken(finding)
                self._early[_what(finding)] = finding.start
                told = self._overheard(self._news(finding))
                said.append(anomaly_of(self._site, told, ordinal, presence, head))
        return said

    def begins(self, rule: str, label: str, source: str, start: int, end: int) -> bool:
        """Whether a judgement in `[start, end)` is the begin of an event."""
        last = self._told.get((rule, label, source))
        self._told[rule, label, source] = end
        return last is None or start - last >= MAX_HAPPENING_PAUSE

    def _spoken(self, finding: RuleFinding) -> int:
        """How many labels of a rule and second an early sound has told."""
        return sum(
            (rule, source, start) == (finding.rule, finding.source, finding.start)
            for (rule, _, source), start in self._early.items()
        )

    def _lasts(self, finding: RuleFinding) -> bool:
        last = self._told.get(_what(finding))
        return last is not None and finding.start - last < MAX_HAPPENING_PAUSE

    def _news(self, finding: RuleFinding) -> RuleFinding:
        """Marks a finding as news only at the begin of an event, not while it continues."""
        begins = self.begins(*_what(finding), finding.start, finding.end)
        return msgspec.structs.replace(finding, news=finding.news and begins)

    def _overheard(self, finding: RuleFinding) -> RuleFinding:
        """Adds the text of a recent utterance to the next anomaly, once."""
        words, size = self.said, self._size
        # Vision may be minutes behind sound: words of a later time wait for their own anomaly.
        if words is None or words.start - finding.end >= size:
            return finding
        self.said = None
        if finding.text or finding.start - words.end >= size:
            return finding
        return msgspec.structs.replace(finding, text=words.text)


def _what(finding: RuleFinding) -> _What:
    return finding.rule, finding.label, finding.source


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
