"""Aligns, tracks and judges the observations of one site.

Rules judge an observation when it arrives. The fusion head judges a window when the watermark
closes it. All time is event time; no clock is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from models.fusion import features
from models.fusion.head import Head, version_of
from models.fusion.noisy_or import NoisyOr, Verdict
from models.fusion.query import FrameSummary, HeadQuery, newest
from pipeline.behaviour.evidence import EvidenceOfBehaviour
from pipeline.config.schema import Detect
from pipeline.judge import refusal_words
from pipeline.judge.align import Aligner, Repeat, Unknown
from pipeline.judge.findings import reason_at
from pipeline.judge.modes import ModePlan, Off, SiteModes
from pipeline.judge.refusal import Ask, Collector, Obstacle
from pipeline.judge.rule_gate import PresenceMap, RuleGate
from pipeline.judge.rules import (
    HearingRule,
    ReadingRule,
    RuleFinding,
    SiteRule,
    TrackedFrame,
    VisionRule,
)
from pipeline.judge.source_presence import SourcePresence
from pipeline.sources import REPORTS_SOURCE
from pipeline.tracking.track import HIDDEN
from pipeline.types import (
    BEFORE_ALL,
    SECOND,
    SEVERITIES,
    Anomaly,
    Described,
    Detections,
    Late,
    Mode,
    Observation,
    Presence,
    Progress,
    Record,
    Roster,
    Severity,
    Sound,
    Utterance,
    Window,
    content_id,
    event_start,
)
from pipeline.zones import Polygon
from workers.stages.anomalies import Teller, carried, gravity, rejected
from workers.stages.camera_tracks import CameraTracks

WINDOW_SOURCE = "window"
MAX_AHEAD = 3600 * SECOND  # of a site's event time over the partition's that is waited for


class SitePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a site for fusion; spans in ns."""

    size: int
    hop: int
    horizon: int
    patience: int | None  # silence after which a source counts as lost; None: never (replay)
    lost_after: int | None  # None: a lost source causes no anomaly (replay)
    cry_every: int  # how often a source that stays lost is reported; keeps its incident open
    still_after: int
    still_distance: float  # of the object's height
    threshold: float  # of the noisy-or
    learned: float | None = None  # threshold of a learned head; None: its own
    severity: Severity = "high"  # of a learned head's anomalies
    cameras: Mapping[str, Detect]
    zones: Mapping[str, Sequence[Polygon]] = {}  # by camera
    posed: frozenset[str] = frozenset()  # the cameras with poses: behaviours are seen for the head
    modes: ModePlan
    judged_in: frozenset[str] = frozenset()  # the modes in which windows are judged; none: all
    # new rules for each state, as they keep state
    sees: Callable[[], Sequence[SiteRule[VisionRule]]]
    hears: Sequence[SiteRule[HearingRule]]
    reads: Sequence[SiteRule[ReadingRule]]


class SiteState:
    """One site: windows, tracks and rules; `heads` may change between two windows.

    `refusals` takes what stood in the way of each rule and head.
    """

    def __init__(
        self,
        site: str,
        plan: SitePlan,
        heads: Mapping[str, Head],
        floor: int,
        refusals: Collector | None = None,
    ) -> None:
        self._site, self._plan, self._heads, self._floor = site, plan, heads, floor
        self._refusals = refusals
        self._aligner = Aligner(site, plan.size, plan.hop, horizon=plan.horizon, floor=floor)
        self._tracks = CameraTracks(
            plan.cameras,
            plan.horizon,
            plan.still_after,
            plan.still_distance,
            explains=refusals is not None,
        )
        self._modes = SiteModes(plan.modes)
        self._gate = RuleGate(self._modes, plan.sees(), plan.hears, plan.reads, refusals)
        self._attendance = SourcePresence(
            site,
            hop=plan.hop,
            size=plan.size,
            lost_after=plan.lost_after,
            cry_every=plan.cry_every,
        )
        self._findings: list[RuleFinding] = []  # findings that an open window may still overlap
        self._sights: list[FrameSummary] = []  # likewise
        self._behaviours = {
            camera: EvidenceOfBehaviour(plan.horizon) for camera in sorted(plan.posed)
        }
        self._rules = NoisyOr()
        self._learned = False  # whether the learned head found something in the last window
        self._newest, self._latest = 0, 0  # ns; newest event time of the site; `now` at its arrival
        self._patient_until = 0  # ns of the partition's time; no silent source expires before it
        self._upto = 0
        self._teller = Teller(site, plan.size)

    @property
    def floor(self) -> int:
        """Records that end at or before this cannot change any result. Ns.

        What is still to be judged is a window long and depends on one horizon before it. Who was
        there at the begin of that may have been hidden, faint or still: a restart must read on from
        where it knows them. A site without cameras knows nobody, and its findings are of single
        sounds: one horizon is enough.
        """
        if not self._plan.cameras:
            return max(self._floor, self._aligner.floor)
        limit = self._aligner.floor - self._plan.size - HIDDEN
        needs = [self._tracks.needs(limit), self._gate.needs(limit)]
        needs += [seen.needs(limit) for seen in self._behaviours.values()]
        return max(self._floor, min(needs))

    @property
    def presence(self) -> Mapping[str, Presence]:
        """The presence of each source at the newest event time of the site."""
        return self._attendance.presence(self._newest)

    def on(self, record: Record, now: int) -> list[Record]:
        """Returns the anomalies of a record, then Progress; `now` is the partition's time (ns)."""
        start = event_start(record)
        patience = self._plan.patience or 0
        if start - self._newest > max(patience // 2, 3 * self._plan.hop):  # nobody captured it
            ahead = min(max(0, start - now), MAX_AHEAD)  # `now` catches up without any silence
            self._patient_until = now + ahead + patience
        self._newest, self._latest = max(self._newest, start), now
        if isinstance(record, Mode):
            wrong = self._modes.push(record, self._aligner.promise(REPORTS_SOURCE))
            return [rejected(record, f"{record.source}: {wrong}")] if wrong else []
        if isinstance(record, Sound) and record.early:
            return [*map(self._modes.named, self._hear_early(record))]
        outcome = self._aligner.push(record)
        said: list[Record] = []
        if not any(isinstance(o, Repeat | Late | Unknown) for o in outcome):
            match record:
                case Roster():
                    self._attendance.expect(record.sources)
                case Progress():
                    said += self._attendance.promised(record, now)
                    if self._refusals is not None and not record.alive:
                        self._refuse_lost(record.source, record.upto, record.reason)
                case Detections() | Sound() | Utterance() | Described():
                    said += self._observe(record)
        said += self._release()  # before the windows that overlap it are judged
        for out in outcome:
            match out:
                case Window():
                    said += self._judge(out)
                case Late():
                    said.append(out)
                case Unknown():
                    said.append(rejected(record, f"{record.source}: {out.reason}"))
        return [*map(self._modes.named, said), *self._promise()]

    def expire_silent_sources(self, now: int) -> list[Record]:
        """Declares sources lost that were silent for longer than the site's patience.

        A long time in which the whole site was silent, as in a restart, does not count.
        """
        patience = self._plan.patience
        if patience is None or now < self._patient_until:
            return []
        limit = self._newest + now - self._latest - patience
        speaking = self._attendance.speaking(now, patience)
        outcome, stalled = self._aligner.declare_lost_until(limit, speaking)
        said: list[Record] = []
        for name in stalled:
            said += self._attendance.stalled(name, limit, patience)
            if self._refusals is not None:
                self._refuse_lost(name, limit, "it says nothing")
        said += self._release()
        for out in outcome:
            if isinstance(out, Window):
                said += self._judge(out)
        return [*map(self._modes.named, said), *self._promise()]

    def _observe(self, record: Observation) -> list[Record]:
        self._attendance.observed(record)
        seen = self._tracks.see(record) if isinstance(record, Detections) else record
        if seen is None:
            return []
        if isinstance(seen, TrackedFrame):
            zones = self._plan.zones.get(record.source, ())
            behaviours = self._behaviours.get(record.source)
            evidence = None if behaviours is None else behaviours.see(seen)
            self._sights.append(features.frame_summary(seen, zones, evidence))
        presence = self._attendance.presence(record.end)
        findings = self._gate.judge(seen, presence)
        if isinstance(record, Utterance) and not any(f.sure for f in findings):
            self._teller.said = record
        return self._tell(findings, presence)

    def _release(self) -> list[Record]:
        """Anomalies of rules with modes, of what began before the reports source's promise."""
        if not self._gate.waiting:
            return []
        promised = max(self._aligner.promise(REPORTS_SOURCE), self._aligner.watermark or BEFORE_ALL)
        said: list[Record] = []
        for judged in self._gate.release(promised):
            seen, findings = judged.seen, judged.findings
            if seen is self._teller.said and any(f.sure for f in findings):
                self._teller.said = None
            early = isinstance(seen, Sound) and seen.early
            said += (self._tell_early if early else self._tell)(findings, judged.presence)
        return said

    def _tell(self, findings: Sequence[RuleFinding], presence: PresenceMap) -> list[Record]:
        """Keeps the findings of one observation for the windows; the sure ones are anomalies."""
        self._findings += findings
        return self._teller.tell(findings, presence, version_of(self._heads.get(self._site)))

    def _hear_early(self, sound: Sound) -> list[Record]:
        """The anomalies of an early sound, of the second that begins in its middle.

        No window sees it. It is a repeat, or late, where its source has promised that second.
        """
        begin = (sound.start + sound.end) // 2
        if not BEFORE_ALL < self._aligner.promise(sound.source) <= begin:
            return []
        seen = msgspec.structs.replace(sound, start=begin)
        presence = self._attendance.presence(seen.end)
        return self._tell_early(self._gate.judge(seen, presence), presence)

    def _tell_early(self, findings: Sequence[RuleFinding], presence: PresenceMap) -> list[Record]:
        return self._teller.tell_early(findings, presence, version_of(self._heads.get(self._site)))

    def _judge(self, window: Window) -> list[Record]:
        """Returns the anomalies of a window: fused evidence of rules, and the learned head's.

        A learned head's anomaly is dropped if the fused evidence has the same or a higher score.
        """
        self._findings = [f for f in self._findings if f.end > window.start]
        self._sights = [s for s in self._sights if s.end > window.start]
        question = HeadQuery(
            window,
            tuple(f for f in self._findings if f.start < window.end),
            tuple(s for s in self._sights if s.start < window.end),
        )
        head = self._heads.get(self._site)  # read once: another thread may swap the heads
        fused = self._fused(question) if self._watched("fusion", question) else []
        learned = self._found(question, head if self._watched("learned", question) else None)
        # Anomalies of rules are emitted as if there were no head, whatever the head's score.
        surer = [a for a in learned if not fused or a.score > fused[0].score]
        if learned and not surer:
            ask = partial(refusal_words.less_sure, learned[0].score, fused[0].score)
            self._refuse("learned", question, "surer", ask)
        return [msgspec.structs.replace(a, head=version_of(head)) for a in (*fused, *surer)]

    def _refuse_lost(self, source: str, at: int, reason: str) -> None:
        since = self._attendance.lost_since(source)
        if since is not None:
            camera = source in self._plan.cameras
            self._gate.lost(source, at, at - since, reason, camera=camera)

    def _watched(self, judgement: str, question: HeadQuery) -> bool:
        """Whether the site's windows are judged so in the mode of the window's newest hop."""
        start = question.window.end - self._plan.hop
        off = self._modes.off(judgement, self._plan.judged_in, start)
        if off is not None:
            ask = partial(self._unwatched, judgement, question, off)
            self._refuse(judgement, question, off.reason, ask)
        return off is None

    def _unwatched(self, judgement: str, question: HeadQuery, off: Off) -> Obstacle:
        """Why a window is not judged, and what it would have been."""
        head, plan = self._heads.get(self._site), self._plan
        score, threshold = 0.0, plan.threshold
        if judgement == "fusion":
            score = self._rules([question])[0].score
        elif head is not None:
            score, threshold = head.score(question), plan.learned or head.threshold
        why = off.why(plan.modes.timezone)
        return Obstacle(why, score, threshold, near=score >= threshold)

    def _refuse(self, judgement: str, question: HeadQuery, reason: str, ask: Ask) -> None:
        """Says why a window is no anomaly, of its newest hop."""
        if self._refusals is not None:
            start = question.window.end - self._plan.hop
            self._refusals.refuse(judgement, WINDOW_SOURCE, start, reason, ask)

    def _fused(self, question: HeadQuery) -> list[Anomaly]:
        """Anomaly of evidence from several modalities that together reach the threshold.

        Some of it must be of the newest hop: older evidence was judged with earlier windows.
        """
        (verdict,) = self._rules([question])
        start = question.window.end - self._plan.hop
        several = len({f.modality for f in verdict.findings}) > 1
        fresh = any(f.end > start for f in verdict.findings)
        if verdict.score < self._plan.threshold or not (several and fresh):
            if verdict.findings:
                reason = "one-kind" if not several else "fused-score" if fresh else "not-fresh"
                numbers = verdict.score, self._plan.threshold
                ask = partial(refusal_words.unfused, reason, *numbers, verdict.contributions)
                self._refuse("fusion", question, reason, ask)
            return []
        severity = next(f.severity for f in verdict.findings if f.label == verdict.label)
        return [self._whole(question.window, verdict, severity, "fusion")]

    def _found(self, question: HeadQuery, head: Head | None) -> list[Anomaly]:
        """Anomaly of the learned head; it continues only while the newest hop alone reaches it."""
        if head is None:
            self._learned = False  # what judges again later starts without history
            return []
        threshold = head.threshold if self._plan.learned is None else self._plan.learned
        score = head.score(question)
        before, self._learned = self._learned, score >= threshold
        if not self._learned:
            ask = partial(refusal_words.unlearned, score, threshold, lasts=False)
            self._refuse("learned", question, "head-score", ask)
            return []
        if before and (score := head.score(newest(question, self._plan.hop))) < threshold:
            ask = partial(refusal_words.unlearned, score, threshold, lasts=True)
            self._refuse("learned", question, "not-fresh", ask)
            return []
        (verdict,) = head([question])
        # If a rule has a label for the event, it is used; the head only gives the score.
        named = max((f for f in question.findings if f.sure), key=gravity, default=None)
        if named is None:
            return [self._whole(question.window, verdict, self._plan.severity, "learned")]
        verdict = msgspec.structs.replace(verdict, label=named.label)
        severity = max(named.severity, self._plan.severity, key=SEVERITIES.index)
        return [self._whole(question.window, verdict, severity, "learned")]

    def _whole(self, window: Window, verdict: Verdict, severity: Severity, rule: str) -> Anomaly:
        """The anomaly of a window; it lies in the newest hop, as Progress covers the older ones."""
        start = window.end - self._plan.hop
        what = carried(verdict)
        end = start + self._plan.hop
        begins = self._teller.begins(rule, verdict.label, WINDOW_SOURCE, start, end)
        return Anomaly(
            site=self._site,
            source=WINDOW_SOURCE,
            id=content_id(self._site, rule, WINDOW_SOURCE, start, 0),
            start=start,
            end=window.end,
            rule=rule,
            label=verdict.label,
            severity=severity,
            score=verdict.score,
            presence=window.presence,
            reasons=(reason_at(start, what),) if begins else (),
            contributions=verdict.contributions,
            kind="learned",
            what=what,
        )

    def _promise(self) -> list[Record]:
        """Progress up to the hop that holds the watermark: no later anomaly starts before it."""
        watermark = self._aligner.watermark
        upto = (watermark or 0) // self._plan.hop * self._plan.hop
        if upto <= self._upto:
            return []
        self._upto = upto
        self._modes.forget(self.floor)
        return [Progress(site=self._site, source="fusion", upto=upto)]
