"""Shows observations to the rules of a site, each in the modes in which it holds.

A rule without modes judges an observation when it arrives, and heeds the snoozes that have arrived.
A rule with modes judges it once the mode at its start is certain: when the reports source has
promised a later time, or is lost. Until then the observation waits, in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from pipeline.judge.modes import Off, SiteModes
from pipeline.judge.refusal import OFF, Ask, Collector, Obstacle, Refuse
from pipeline.judge.refusal_words import no_frames
from pipeline.judge.rules import (
    HearingRule,
    ReadingRule,
    RuleFinding,
    SiteRule,
    TrackedFrame,
    VisionRule,
)
from pipeline.sources import REPORTS_SOURCE, is_speech_source
from pipeline.types import FOREVER, Described, Presence, Sound, Utterance

Seen = TrackedFrame | Sound | Utterance | Described
PresenceMap = Mapping[str, Presence]


class Judged(msgspec.Struct, frozen=True):
    """What the rules with modes found in an observation that has waited.

    `presence` is that of the sources when the observation arrived.
    """

    seen: Seen
    presence: PresenceMap
    findings: Sequence[RuleFinding]


class RuleGate:
    """The rules of one site; `modes` knows when they hold, `refusals` takes why they found nothing.

    The memory is bounded by what bounds the open windows: an observation waits until the reports
    source promises or is declared lost.
    """

    def __init__(
        self,
        modes: SiteModes,
        sees: Sequence[SiteRule[VisionRule]],
        hears: Sequence[SiteRule[HearingRule]],
        reads: Sequence[SiteRule[ReadingRule]],
        refusals: Collector | None = None,
    ) -> None:
        self._refusals = refusals
        at_once, waiting = (
            _Rules(
                modes,
                [rule for rule in sees if bool(rule.modes) == waits],
                [rule for rule in hears if bool(rule.modes) == waits],
                [rule for rule in reads if bool(rule.modes) == waits],
                refusals,
            )
            for waits in (False, True)
        )
        self._at_once, self._later = at_once, waiting
        self._waiting: deque[tuple[Seen, PresenceMap]] = deque()
        self._due = FOREVER  # ns; the earliest start of those that wait

    @property
    def waiting(self) -> int:
        """The number of observations that wait for a promise of the reports source."""
        return len(self._waiting)

    def needs(self, limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to judge as before at `limit`.

        The limit must not fall from call to call.
        """
        return min(self._at_once.needs(limit), self._later.needs(limit))

    def judge(self, seen: Seen, presence: PresenceMap) -> list[RuleFinding]:
        """Returns what the rules without modes find; the observation waits for the others."""
        if self._later.ask(seen):
            self._waiting.append((seen, presence))
            self._due = min(self._due, seen.start)
        return self._at_once.asked(seen)

    def lost(self, source: str, at: int, lasted: int, reason: str, *, camera: bool) -> None:
        """Refuses for each rule that judges what a source gives: it is lost for `lasted` ns."""
        if self._refusals is None:
            return
        what = ("camera", "frames") if camera else ("microphone", "sound")
        what = ("the endpoint of reports is", "promise") if source == REPORTS_SOURCE else what
        ask = partial(no_frames, *what, lasted, reason)
        for rules in (self._at_once, self._later):
            for name in rules.about(source, camera=camera):
                self._refusals.refuse(name, source, at, "lost", ask)

    def release(self, promised: int) -> Iterator[Judged]:
        """Yields what the rules with modes find in observations that begin before `promised`."""
        if promised <= self._due:
            return
        waiting, self._waiting = self._waiting, deque()
        self._due = FOREVER
        for seen, presence in waiting:
            if seen.start < promised:
                yield Judged(seen, presence, self._later.asked(seen))
            else:
                self._waiting.append((seen, presence))
                self._due = min(self._due, seen.start)


class _Rules:
    """Some rules of a site, by what they judge."""

    def __init__(
        self,
        modes: SiteModes,
        sees: Sequence[SiteRule[VisionRule]],
        hears: Sequence[SiteRule[HearingRule]],
        reads: Sequence[SiteRule[ReadingRule]],
        refusals: Collector | None,
    ) -> None:
        self._modes, self._sees, self._hears, self._reads = modes, sees, hears, reads
        self._refusals = refusals
        self._of: dict[str, list[SiteRule[VisionRule]]] = {}  # camera -> the rules about it

    def _about(self, camera: str) -> list[SiteRule[VisionRule]]:
        if camera not in self._of:
            self._of[camera] = [r for r in self._sees if r.cameras is None or camera in r.cameras]
        return self._of[camera]

    def needs(self, limit: int) -> int:
        return min((rule.needs(limit) for rule in self._sees), default=limit)

    def ask(self, seen: Seen) -> bool:
        """Whether one of the rules judges such an observation."""
        match seen:
            case TrackedFrame():
                return bool(self._about(seen.source))
            case Sound():
                return bool(self._hears)
            case _:
                return bool(self._reads)

    def asked(self, seen: Seen) -> list[RuleFinding]:
        """Returns what those of the rules that hold find in an observation."""
        found: list[RuleFinding] = []
        off, time = self._modes.off, seen.start
        match seen:
            case TrackedFrame():
                for eye in self._about(seen.source):
                    why = off(eye.name, eye.modes, time)
                    frame = seen if why is None else _unwatched(seen)
                    found += eye.judge.see(frame, self._refuse(eye.name, seen, why))
            case Sound():
                for ear in self._hears:
                    refuse = self._refuse(ear.name, seen, None)
                    if (why := off(ear.name, ear.modes, time)) is None:
                        found += ear.judge.hear(seen, refuse)
                    elif refuse is not None and not seen.early:
                        refuse(why.reason, partial(self._missed, ear.judge.hear, seen, why))
            case _:
                for reader in self._reads:
                    refuse = self._refuse(reader.name, seen, None)
                    if (why := off(reader.name, reader.modes, time)) is None:
                        found += reader.judge.read(seen, refuse)
                    elif refuse is not None:
                        refuse(why.reason, partial(self._missed, reader.judge.read, seen, why))
        return found

    def about(self, source: str, *, camera: bool) -> list[str]:
        """The names of the rules that judge what a source gives."""
        if camera:
            return [rule.name for rule in self._about(source)]
        if is_speech_source(source) or source == REPORTS_SOURCE:
            return [rule.name for rule in self._reads]
        return [rule.name for rule in self._hears]

    def _refuse(self, rule: str, seen: Seen, off: Off | None) -> Refuse | None:
        if self._refusals is None:
            return None
        refuse = partial(self._refusals.refuse, rule, seen.source, seen.start)
        return refuse if off is None else partial(self._while_off, refuse, off)

    def _while_off(self, refuse: Refuse, off: Off, reason: str, ask: Ask) -> None:
        """Refuses for a rule that does not hold: what it found besides does not matter."""
        if reason == OFF:
            refuse(off.reason, lambda: msgspec.structs.replace(ask(), why=self._why(off)))

    def _missed(
        self, judge: Callable[[Any], Sequence[RuleFinding]], seen: Seen, off: Off
    ) -> Obstacle:
        """What a rule over single observations would have found, had it held."""
        sure = [finding.score for finding in judge(seen) if finding.sure]
        score = max(sure, default=None)
        return Obstacle(self._why(off), score, near=score is not None)

    def _why(self, off: Off) -> str:
        return off.why(self._modes.plan.timezone)


def _unwatched(seen: TrackedFrame) -> TrackedFrame:
    return msgspec.structs.replace(seen, watched=False)
