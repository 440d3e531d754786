"""Shows observations to the rules of a site, each in the modes in which it holds.

A rule without modes judges an observation when it arrives, and heeds the snoozes that have arrived.
A rule with modes judges it once the mode at its start is certain: when the reports source has
promised a later time, or is lost. Until then the observation waits, in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pipeline.judge.modes import SiteModes
from pipeline.judge.rules import (
    HearingRule,
    ReadingRule,
    RuleFinding,
    SiteRule,
    TrackedFrame,
    VisionRule,
)
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
    """The rules of one site; `modes` knows when they hold.

    The memory is bounded by what bounds the open windows: an observation waits until the reports
    source promises or is declared lost.
    """

    def __init__(
        self,
        modes: SiteModes,
        sees: Sequence[SiteRule[VisionRule]],
        hears: Sequence[SiteRule[HearingRule]],
        reads: Sequence[SiteRule[ReadingRule]],
    ) -> None:
        self._modes = modes
        self._sees, self._hears, self._reads = sees, hears, reads
        self._waiting: deque[tuple[Seen, PresenceMap]] = deque()
        self._due = FOREVER  # ns; the earliest start of those that wait

    @property
    def waiting(self) -> int:
        """The number of observations that wait for a promise of the reports source."""
        return len(self._waiting)

    def judge(self, seen: Seen, presence: PresenceMap) -> list[RuleFinding]:
        """Returns what the rules without modes find; the observation waits for the others."""
        if any(rule.modes for rule in self._rules(seen)):
            self._waiting.append((seen, presence))
            self._due = min(self._due, seen.start)
        return self._asked(seen, waiting=False)

    def release(self, promised: int) -> Iterator[Judged]:
        """Yields what the rules with modes find in observations that begin before `promised`."""
        if promised <= self._due:
            return
        waiting, self._waiting = self._waiting, deque()
        self._due = FOREVER
        for seen, presence in waiting:
            if seen.start < promised:
                yield Judged(seen, presence, self._asked(seen, waiting=True))
            else:
                self._waiting.append((seen, presence))
                self._due = min(self._due, seen.start)

    def _rules(self, seen: Seen) -> Iterable[SiteRule[VisionRule | HearingRule | ReadingRule]]:
        match seen:
            case TrackedFrame():
                return self._sees
            case Sound():
                return self._hears
            case _:
                return self._reads

    def _asked(self, seen: Seen, *, waiting: bool) -> list[RuleFinding]:
        found: list[RuleFinding] = []
        match seen:
            case TrackedFrame():
                idle = msgspec.structs.replace(seen, watched=False)
                for camera_rule in self._sees:
                    if bool(camera_rule.modes) == waiting:
                        holds = self._holds(camera_rule, seen.start)
                        found += camera_rule.judge.see(seen if holds else idle)
            case Sound():
                for sound_rule in self._hears:
                    if bool(sound_rule.modes) == waiting and self._holds(sound_rule, seen.start):
                        found += sound_rule.judge.hear(seen)
            case _:
                for word_rule in self._reads:
                    if bool(word_rule.modes) == waiting and self._holds(word_rule, seen.start):
                        found += word_rule.judge.read(seen)
        return found

    def _holds(self, rule: SiteRule[VisionRule | HearingRule | ReadingRule], time: int) -> bool:
        return self._modes.watches(rule.name, rule.modes, time)
