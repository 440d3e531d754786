"""The mode of a site at each time, and which of its rules are snoozed then.

A mode by schedule is a function of event time. One that a person set outranks it: it is a record
`Mode`, which the reports source says again while it holds. What counts is the order of these
records within their source, and what the source had promised, never how sources are interleaved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config.rule_kinds import rule_names
from pipeline.config.schedule import Schedule
from pipeline.config.schema import Site
from pipeline.config.site_modes import AUTO, SNOOZED
from pipeline.judge.refusal_words import clock, town
from pipeline.types import BEFORE_ALL, SECOND, Anomaly, Mode, Record

ALL_RULES = "*"
MINUTE = 60 * SECOND
LOOK_MINUTES = 8 * 24 * 60  # minutes; a schedule repeats after a week, clocks are set in between
JUDGEMENTS = ("fusion", "learned")  # the judgements of windows, which are snoozed as rules are


class ModePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a site's config says about modes: the scheduled ones, and all names that there are."""

    default: str
    scheduled: tuple[tuple[str, Schedule], ...]
    timezone: ZoneInfo
    known: tuple[str, ...]
    rules: tuple[str, ...]  # with the judgements of windows

    @classmethod
    def of(cls, site: Site) -> ModePlan:
        """Returns the plan of a site."""
        hours = site.modes.schedule.items()
        return cls(
            default=site.modes.default,
            scheduled=tuple((name, Schedule.parse(text)) for name, text in hours),
            timezone=ZoneInfo(site.timezone),
            known=site.modes.known,
            rules=tuple(dict.fromkeys((*rule_names(site.rules), *JUDGEMENTS))),
        )

    def scheduled_at(self, time: int) -> str:
        """Returns the mode by schedule at `time`, ns: the first that holds, or the default."""
        for mode, schedule in self.scheduled:
            if schedule.contains(time, self.timezone):
                return mode
        return self.default

    def scheduled_span(self, time: int) -> tuple[int | None, int | None]:
        """Returns the ns between which the schedule gives the mode that it gives at `time`.

        None: it gave or gives no other one within eight days.
        """
        if not self.scheduled:
            return None, None
        here, minute = self.scheduled_at(time), time // MINUTE
        others = (m for m in range(minute - 1, minute - LOOK_MINUTES, -1) if self._gives(m) != here)
        before = next(others, None)
        others = (m for m in range(minute + 1, minute + LOOK_MINUTES) if self._gives(m) != here)
        after = next(others, None)
        return (
            None if before is None else (before + 1) * MINUTE,
            None if after is None else after * MINUTE,
        )

    def _gives(self, minute: int) -> str:
        return self.scheduled_at(minute * MINUTE)

    def refusal(self, mode: Mode) -> str:
        """Returns why a record means nothing at this site, or ""."""
        if mode.until is not None and mode.until <= mode.start:
            return "a mode that ends before it begins"
        if not mode.rule:
            return "" if mode.mode in (*self.known, AUTO) else "the site has no such mode"
        if mode.rule not in (ALL_RULES, *self.rules):
            return "the site has no rule of this name"
        return "" if mode.mode in (SNOOZED, AUTO) else "a rule takes the mode `snoozed` or `auto`"


class Off(NamedTuple):
    """Why a rule does not hold: the mode of the site (`mode`), or a snooze (`snoozed`)."""

    reason: str
    mode: str
    holds_in: frozenset[str]
    snooze: Mode | None = None

    def why(self, zone: ZoneInfo) -> str:
        """Says it to a person."""
        if self.snooze is None:
            return f"mode {self.mode}: the rule holds in {', '.join(sorted(self.holds_in))}"
        what = "all rules are snoozed" if self.snooze.rule == ALL_RULES else "the rule is snoozed"
        until = self.snooze.until
        end = "" if until is None else f" until {clock(until, zone)} in {town(zone)}"
        return f"{what}{end}{f' by {self.snooze.by}' if self.snooze.by else ''}"


class _Held(msgspec.Struct, frozen=True):
    """A statement, and the time from which it counts here."""

    begin: int
    mode: Mode

    def holds(self, time: int) -> bool:
        until = self.mode.until
        return self.mode.mode != AUTO and (until is None or time < until)


class _Statements:
    """The statements about the mode of the site, or about one rule; the last begun one counts."""

    def __init__(self) -> None:
        self._held: list[_Held] = []  # ascending by begin; of two at once the later one counts
        self._newest = (BEFORE_ALL, BEFORE_ALL)  # ns; `said` and `start` of the newest statement

    def repeats(self, mode: Mode) -> bool:
        """Whether the record came before: a killed worker publishes its last ones again."""
        if (mode.said, mode.start) <= self._newest:
            return True
        self._newest = mode.said, mode.start
        return False

    def add(self, mode: Mode, promised: int) -> None:
        """Adds a statement; it does not change the time before `promised`, which was judged."""
        last = self._held[-1] if self._held else None
        if last is None or not _same(last.mode, mode):
            begin = max(mode.start, promised, last.begin if last else BEFORE_ALL)
            self._held.append(_Held(begin, mode))

    def at(self, time: int) -> Mode | None:
        """Returns the statement in force at `time`, if there is one."""
        i = bisect_right(self._held, time, key=lambda held: held.begin) - 1
        return self._held[i].mode if i >= 0 and self._held[i].holds(time) else None

    def forget(self, floor: int) -> None:
        """Drops statements that ended by `floor`."""
        held = self._held
        while len(held) > 1 and held[1].begin <= floor:
            del held[0]
        if len(held) == 1 and held[0].begin <= floor and not held[0].holds(floor):
            held.clear()


class SiteModes:
    """What is known of one site's modes and snoozes; all times are event times, ns.

    The memory is bounded by what holds after the floor that `forget` is given.
    """

    def __init__(self, plan: ModePlan) -> None:
        self.plan = plan
        self._site = _Statements()
        self._rules: dict[str, _Statements] = {}  # by rule, and for all rules

    def push(self, mode: Mode, promised: int = BEFORE_ALL) -> str:
        """Takes a record; `promised` is what its source had promised before.

        Returns why the record means nothing here, or "".
        """
        if wrong := self.plan.refusal(mode):
            return wrong
        of = self._rules.setdefault(mode.rule, _Statements()) if mode.rule else self._site
        if of.repeats(mode):
            return ""
        ends_all = mode.rule == ALL_RULES and mode.mode == AUTO
        for each in self._rules.values() if ends_all else (of,):
            each.add(mode, promised)
        return ""

    def by_hand(self, time: int) -> Mode | None:
        """Returns the mode that a person set and that is in force at `time`."""
        return self._site.at(time)

    def at(self, time: int) -> str:
        """Returns the mode of the site at `time`."""
        given = self._site.at(time)
        return given.mode if given else self.plan.scheduled_at(time)

    def named(self, record: Record) -> Record:
        """Returns an anomaly with the mode of the site at its start; other records as they are."""
        if not isinstance(record, Anomaly):
            return record
        return msgspec.structs.replace(record, mode=self.at(record.start))

    def snoozes(self, time: int) -> Mapping[str, Mode]:
        """Returns the snoozes in force at `time`, by rule."""
        found = ((rule, of.at(time)) for rule, of in sorted(self._rules.items()))
        return {rule: mode for rule, mode in found if mode}

    def watches(self, rule: str, modes: frozenset[str], time: int) -> bool:
        """Whether a rule that holds in `modes` (none: all) judges what begins at `time`."""
        return self.off(rule, modes, time) is None

    def off(self, rule: str, modes: frozenset[str], time: int) -> Off | None:
        """Why a rule that holds in `modes` (none: all) does not judge what begins at `time`."""
        if modes and (mode := self.at(time)) not in modes:
            return Off("mode", mode, modes)
        if not self._rules:
            return None
        snoozed = (of for name in (ALL_RULES, rule) if (of := self._rules.get(name)))
        found = next((given for of in snoozed if (given := of.at(time))), None)
        return Off("snoozed", found.mode, modes, found) if found else None

    def forget(self, floor: int) -> None:
        """Drops what cannot matter to anything that begins at `floor` or later."""
        for of in (self._site, *self._rules.values()):
            of.forget(floor)


def followed(held: Mapping[str, Mode], mode: Mode) -> dict[str, Mode]:
    """Returns the statements of a site by rule after one more; `auto` ends what was set."""
    ends_all = mode.rule == ALL_RULES and mode.mode == AUTO
    kept = {
        rule: each for rule, each in held.items() if rule != mode.rule and not (ends_all and rule)
    }
    return kept if mode.mode == AUTO else {**kept, mode.rule: mode}


def in_force(held: Mapping[str, Mode], time: int) -> dict[str, Mode]:
    """Returns those statements of `held` that have not ended by `time`, ns."""
    return {r: mode for r, mode in held.items() if mode.until is None or mode.until > time}


def _same(one: Mode, other: Mode) -> bool:
    """Whether two records are one statement, said twice."""
    return msgspec.structs.replace(one, said=0) == msgspec.structs.replace(other, said=0)
