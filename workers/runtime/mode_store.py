"""The modes and snoozes that persons have set, in memory and in the file `modes.json`.

The file is in the state folder, so a restart keeps them. It is private, and it is replaced as a
whole: after a power cut it holds what it held before, or what was written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline.bus.private import private_file
from pipeline.config.schema import Site
from pipeline.config.site_modes import AUTO
from pipeline.errors import DiskFull, OutsideError
from pipeline.judge.modes import ALL_RULES, ModePlan, followed, in_force
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import Mode

log = logging.getLogger("fusewatch")

MODE_FILE = "modes.json"


class Snooze(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that judges nothing for some time; `*` is all rules of the site."""

    rule: str
    since: int  # ns
    until: int | None  # ns
    by: str


class SiteMode(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force at a site: its mode, and the rules that are snoozed."""

    mode: str
    by_hand: bool  # a person has set it; else the schedule
    since: int | None = None  # ns; none: as long as the schedule reaches back
    until: int | None = None  # ns; none: without end
    by: str = ""  # who has set it
    snoozed: tuple[Snooze, ...] = ()

    @property
    def words(self) -> str:
        """The mode, and what is snoozed, in few words."""
        rules = [each.rule for each in self.snoozed]
        if ALL_RULES in rules:
            return f"{self.mode}, all rules snoozed"
        return f"{self.mode}, snoozed: {', '.join(rules)}" if rules else self.mode


class ModeStore:
    """The statements in force at each site; not thread safe.

    Without a `folder` they are kept in memory alone. Raises OutsideError for a file that cannot be
    read. Statements that mean nothing under the present config are dropped with a warning; those of
    other sites stay in the file.
    """

    def __init__(self, sites: Mapping[str, Site], folder: Path | None = None) -> None:
        self._plans = {name: ModePlan.of(site) for name, site in sites.items()}
        self._path = folder / MODE_FILE if folder else None
        self._held: dict[str, dict[str, Mode]] = {name: {} for name in sites}
        self._others: list[Mode] = []
        # A site without statements says so once: what it said before may be lost with the file.
        self._unsaid = set(self._held) if folder else set[str]()
        for mode in self._read():
            plan = self._plans.get(mode.site)
            if plan is None:
                self._others.append(mode)
            elif wrong := plan.refusal(mode):
                of = f"the snooze of {mode.rule}" if mode.rule else f"the mode {mode.mode}"
                log.warning("%s: %s holds no more: %s", mode.site, of, wrong)
            else:
                self._held[mode.site][mode.rule] = mode

    def plan(self, site: str) -> ModePlan:
        """The modes and rules that the site has by its config."""
        return self._plans[site]

    def statements(self, site: str, said: int) -> list[Mode]:
        """Returns what is in force at `said`, ns, to be said then."""
        held = in_force(self._held[site], said)
        if site in self._unsaid:
            self._unsaid.discard(site)
            if "" not in held:
                held[""] = _auto(site, "", said)
            if held.keys() == {""}:
                held[ALL_RULES] = _auto(site, ALL_RULES, said)
        return [
            msgspec.structs.replace(mode, said=said, start=min(mode.start, said))
            for mode in held.values()
        ]

    def retract(self, site: str) -> None:
        """Notes that the last statements of a site could not be published."""
        if self._path is not None:
            self._unsaid.add(site)

    def put(self, mode: Mode, publish: Callable[[], None]) -> None:
        """Takes a new statement, which `publish` publishes; both are durable on return.

        Raises DiskFull or what `publish` raises, and the statement is not taken then.
        """
        before = self._held[mode.site]
        self._held[mode.site] = followed(in_force(before, mode.said), mode)
        try:
            self._replace(publish)
        except BaseException:
            self._held[mode.site] = before
            raise

    def state(self, site: str, now: int) -> SiteMode:
        """Returns what is in force at `now`, ns."""
        held, plan = in_force(self._held[site], now), self._plans[site]
        given = held.pop("", None)
        snoozed = tuple(
            Snooze(rule=rule, since=mode.start, until=mode.until, by=mode.by)
            for rule, mode in sorted(held.items())
        )
        if given is None:
            return SiteMode(mode=plan.scheduled_at(now), by_hand=False, snoozed=snoozed)
        return SiteMode(
            mode=given.mode,
            by_hand=True,
            since=given.start,
            until=given.until,
            by=given.by,
            snoozed=snoozed,
        )

    def _read(self) -> Sequence[Mode]:
        if self._path is None:
            return ()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[Mode, ...])
        except FileNotFoundError:
            return ()
        except OSError as error:
            msg = f"{self._path}: cannot be read: {error.strerror}"
            raise OutsideError(msg) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            msg = (
                f"{self._path}: holds no modes ({error}); delete it, start again, and set the "
                "modes of your sites: fusewatch mode SITE MODE"
            )
            raise OutsideError(msg) from error

    def _replace(self, publish: Callable[[], None]) -> None:
        """Replaces the file. What is new is on the disk before `publish`: after it the file only
        gets its name."""
        if self._path is None:
            publish()
            return
        part = self._path.with_suffix(".json.part")
        modes = [*self._others, *(mode for held in self._held.values() for mode in held.values())]
        try:
            with os.fdopen(private_file(part, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(msgspec.json.encode(modes))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            msg = f"{part}: cannot be written: {error.strerror}"
            raise DiskFull(msg) from error
        publish()
        try:
            part.replace(self._path)
            _sync(self._path.parent)
        except OSError as error:
            log.error(
                "%s cannot be replaced: %s; the mode holds until a restart",
                self._path,
                error.strerror,
            )


def _auto(site: str, rule: str, now: int) -> Mode:
    return Mode(site=site, source=REPORTS_SOURCE, start=now, mode=AUTO, rule=rule, said=now)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
