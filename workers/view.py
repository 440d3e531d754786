"""Shows the daemon's status: a live view on a terminal, JSON lines on stderr otherwise."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.logging import RichHandler
from rich.segment import ControlType
from rich.text import Text

from pipeline.config.schema import Site
from pipeline.types import SECOND, Alert, Presence
from workers.config.secrets import Redacting, Secrets
from workers.delivery import state_log
from workers.delivery.delivery import Subscriber
from workers.runtime import screen, stderr_log
from workers.runtime.printable import printable
from workers.runtime.screen import AlertRow, Row, Screen
from workers.runtime.status import Snapshot, SourceState, Status

log = logging.getLogger("fusewatch")

VIEW_EVERY = 0.5  # s between updates of the view on a terminal
SAID_EVERY = 60.0  # s between status lines without a terminal
RATE_SPAN = 5.0  # s over which the frames a second are counted
LAST = 8  # incidents shown
LATE = 10.0  # s; a source that is looked at so much later than it is captured is in trouble
MOST_LOST = 5  # sources named at the end with what was not looked at
RUNNING = ("live", "playing")
_CLOCK = re.compile(r"^\d\d:\d\d:\d\dZ ")  # the time of a reason: UTC, and the line has its own


class View:
    """Shows status and alerts to the operator; the main thread calls `tick`.

    `sites` are those of the config. `recorded`: a scene is played, whose own time is shown.
    """

    def __init__(
        self,
        status: Status,
        secrets: Secrets,
        sites: Mapping[str, Site] = {},
        *,
        recorded: bool = False,
    ) -> None:
        self._status, self._sites, self._recorded = status, sites, recorded
        self._secrets = secrets
        self._zones = {name: ZoneInfo(site.timezone) for name, site in sites.items()}
        self._lock = threading.Lock()  # guards the alerts, which a thread of its own sends
        self._alerts: dict[str, Alert] = {}
        self._incidents = 0
        self._said: dict[tuple[str, str], str] = {}
        self._away: dict[tuple[str, str], int] = {}  # since when a source is not live, ns
        self._was_lost: set[tuple[str, str]] = set()  # since it was live
        self._began, self._next = time.monotonic(), 0.0
        self._is_ready = False
        self._rates = deque([(self._began, status.snapshot())])
        self._live: Live | None = None
        self._drawn: list[int] = []  # the width of each line of the view
        self._size = (0, 0)
        self._after = ExitStack()
        self._is_terminal = stderr_log.on_terminal()
        self._console = Console(file=stderr_log.original(), highlight=False)
        if self._is_terminal:
            handler: logging.Handler = RichHandler(
                console=self._console, show_path=False, log_time_format=self._log_time
            )
            handler.addFilter(Redacting(secrets))
            handler.addFilter(_cleaned)
        else:
            handler = stderr_log.json_handler()
            handler.addFilter(Redacting(secrets))
            secrets.tell(stderr_log.hide)
        log.handlers[:] = [handler]
        log.setLevel(logging.INFO)
        log.propagate = False

    def ready(self) -> None:
        """Starts the view and logs `ready`; call it when everything has started."""
        if self._is_terminal and not self._console.is_dumb_terminal:
            # What C libraries print would tear the view; it is logged above it instead.
            self._after.enter_context(stderr_log.collected())
            self._console.file = stderr_log.original()
            self._secrets.tell(stderr_log.hide)
            self._fitted()
            # What is printed to stderr is cleaned on its way through the log.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stderr=False)
            self._live.start()
        self._is_ready = True
        self._next = 0.0  # the view comes at once, also where a backlog was worked off before
        log.info("ready")

    def close(self) -> None:
        """Leaves the last view, says when it stopped, and restores the terminal."""
        snapshot = self._status.snapshot()
        if self._live:
            self._paint(time.monotonic(), snapshot)
            self._live.stop()
            self._live = None
        self._after.close()
        if self._is_terminal and self._is_ready:
            self._console.file = stderr_log.original()
            for line in self._last_words(snapshot):
                self._console.print(printable(line), markup=False, soft_wrap=True)
        elif not self._is_terminal:
            self._say(snapshot)

    def _say(self, snapshot: Snapshot) -> None:
        subscribers = msgspec.to_builtins(snapshot.subscribers)
        data = {"gauges": snapshot.gauges, "counts": snapshot.counts, "subscribers": subscribers}
        log.info("status", extra={"data": data})

    def subscriber(self) -> Subscriber:
        """The subscriber whose alerts are shown."""
        return Subscriber(name="view", sink=self)

    def send(self, alert: Alert, trace: str = "") -> None:
        """Shows an alert (a Sink)."""
        with self._lock:
            self._alerts.pop(alert.id, None)
            self._alerts[alert.id] = alert
            self._incidents += alert.revision == 0
            while len(self._alerts) > LAST:
                del self._alerts[next(iter(self._alerts))]
        if not self._live:
            log.warning(
                "alert %s: %s at %s%s",
                alert.state,
                ", ".join(alert.labels),
                alert.site,
                f": {'; '.join(_causes(alert))}" if self._is_terminal else "",
                extra={"data": {"alert": alert.id, "revision": alert.revision}},
            )

    def tick(self) -> None:
        """Logs changed source states, and updates the view or the status line if it is due."""
        now = time.monotonic()
        snapshot = self._status.snapshot()
        self._say_changes(snapshot)
        if now < self._next and not self._resized():
            return
        self._next = now + (VIEW_EVERY if self._live else SAID_EVERY)
        if self._live:
            self._paint(now, snapshot)
        elif not self._is_terminal:
            self._say(snapshot)

    def _say_changes(self, snapshot: Snapshot) -> None:
        for site, sources in snapshot.sources.items():
            for source, state in sources.items():
                what = site, source
                if state.state in RUNNING:
                    self._away.pop(what, None)
                    self._was_lost.discard(what)
                else:
                    self._away.setdefault(what, self._now(snapshot))
                if state.state == "lost":
                    self._was_lost.add(what)
                if self._said.get(what) != state.state:
                    self._said[what] = state.state
                    why = f": {state.reason}" if state.reason else ""
                    level = logging.WARNING if state.state == "lost" else logging.INFO
                    log.log(level, "%s/%s is %s%s", site, source, state.state, why)

    # The terminal.

    def _resized(self) -> bool:
        return self._live is not None and self._terminal_size() != self._size

    def _terminal_size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._console.file.fileno())
        except (OSError, ValueError):  # the terminal has gone
            return self._size
        return (size.columns or 80, size.lines or 24)  # 0: a terminal that does not know

    def _fitted(self) -> None:
        """Takes the terminal's present size; lines that it has wrapped since are erased."""
        before, self._size = self._size, self._terminal_size()
        width, height = self._size
        if before == self._size:
            return
        self._console.size = (width, height)
        wrapped = sum(max(0, math.ceil(size / width) - 1) for size in self._drawn)
        if wrapped:
            up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
            self._console.control(
                Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up * wrapped)
            )

    def _paint(self, now: float, snapshot: Snapshot) -> None:
        self._rates.append((now, snapshot))
        while len(self._rates) > 2 and self._rates[1][0] <= now - RATE_SPAN:
            self._rates.popleft()
        self._fitted()
        lines = screen.lines(self._screen(now, snapshot), *self._size)
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
        self._drawn = [screen.cells(line.plain) for line in lines]
        if self._live:
            self._live.update(Group(*lines), refresh=True)

    # What is shown.

    def _screen(self, now: float, snapshot: Snapshot) -> Screen:
        with self._lock:
            alerts = list(reversed(self._alerts.values()))
        rows = list(self._rows(now, snapshot))
        ill = sum(row.troubled for row in rows)
        well = f"{ill} in trouble" if ill else "all well"
        clocks = ", ".join(self._clocks(self._now(snapshot)))
        head = f"fusewatch  {clocks}{' (a scene)' if self._recorded else ''}"
        head += f"  {len(rows)} source{'s' if len(rows) != 1 else ''}, {well}" if rows else ""
        for site, mode in snapshot.modes.items():
            head += f"  {mode.words}" if len(self._sites) == 1 else f"  {site} {mode.words}"
        head += f"  up {screen.lasting(now - self._began)}"
        shown = [self._alert(alert, snapshot) for alert in alerts]
        return Screen(head=head, rows=rows, notes=list(self._notes(snapshot)), alerts=shown)

    def _notes(self, snapshot: Snapshot) -> Iterator[str]:
        """What does not work, besides sources."""

        def clock(moment: str) -> str:
            time = round(datetime.fromisoformat(moment).timestamp()) * SECOND
            return screen.moment(time, self._own_zone(), today=self._now(snapshot) or time)

        for name, state in snapshot.subscribers.items():
            if wrong := state_log.line(name, state, clock):
                yield wrong
        for name, count in _gauges(snapshot, "lost."):
            yield f"{name} came too late for {count:g} records, which are lost"
        if lost := snapshot.gauges.get("recording.lost"):
            yield f"recording came too late for {lost:g} records, which are lost"
        if waits := snapshot.gauges.get("recording.waits"):
            yield f"nothing has been recorded for {waits:g} s: the log says why"

    def _clocks(self, time: int) -> Iterator[str]:
        """The time in each zone of the sites, once a zone."""
        if time:
            yield from dict.fromkeys(
                screen.moment(time, zone) for zone in self._zones.values() or (ZoneInfo("UTC"),)
            )

    def _now(self, snapshot: Snapshot) -> int:
        """The time of the sites, ns UTC; of a scene, the event time that was played."""
        if not self._recorded:
            return time.time_ns()
        return max(_times(snapshot, "captured"), default=0)

    def _log_time(self, time: datetime) -> Text:
        return Text(screen.moment(round(time.timestamp()) * SECOND, self._own_zone()))

    def _own_zone(self) -> ZoneInfo:
        """The zone of the first site."""
        return next(iter(self._zones.values()), ZoneInfo("UTC"))

    def _zone(self, site: str) -> ZoneInfo:
        return self._zones.get(site) or ZoneInfo("UTC")

    def _rows(self, now: float, snapshot: Snapshot) -> Iterator[Row]:
        since, before = self._rates[0]
        span = max(now - since, 1e-3)
        for site, source in _sources(snapshot):
            if "/" not in source:  # else a delivery, or the words of a microphone
                new = snapshot.counts.get(site, {}).get(source, {})
                old = before.counts.get(site, {}).get(source, {})
                captured, looked = (
                    f"{(new[what] - old.get(what, 0)) / span:.1f}/s" if what in new else ""
                    for what in ("captured", "processed")
                )
                if source in getattr(self._sites.get(site), "microphones", ()):
                    captured = looked = ""  # a microphone has no frames
                yield self._row(site, source, snapshot, captured, looked)

    def _row(self, site: str, source: str, snapshot: Snapshot, captured: str, looked: str) -> Row:
        state = snapshot.sources.get(site, {}).get(source) or SourceState("")
        presence = snapshot.presence.get(site, {}).get(source)
        behind = self._behind(site, source, snapshot)
        wrong = self._wrong(site, source, state, snapshot)
        late = behind is not None and behind > LATE and not self._recorded
        lag = "" if behind is None else f"{behind:.1f} s"
        shown = presence.value if presence else ""
        return Row(
            site=site,
            source=source,
            cells=(state.state, captured, looked, lag, shown),
            wrong=wrong,
            troubled=bool(wrong) or late or presence is Presence.LOST,
        )

    def _wrong(self, site: str, source: str, state: SourceState, snapshot: Snapshot) -> str:
        """Since when and why a source is lost; empty for one that is not."""
        away = self._away.get((site, source))
        if away is None or (site, source) not in self._was_lost or state.state == "ended":
            return ""
        now = self._now(snapshot)
        since = screen.moment(away, self._zone(site), today=now)
        if len(set(self._zones.values())) == 1:  # it stands in the head
            since = since.rpartition(" ")[0]
        return f"lost since {since}: {state.reason or 'no reason was given'}"

    def _behind(self, site: str, source: str, snapshot: Snapshot) -> float | None:
        """How much later a source is looked at than it is captured, s; None if it is not known.

        A process that does not capture compares with the clock. A microphone is heard by two
        stages: the slower one counts.
        """
        reached = snapshot.reached.get(site, {})
        looked = [
            times["processed"]
            for name, times in reached.items()
            if name.partition("/")[0] == source and "processed" in times
        ]
        captured = reached.get(source, {}).get("captured", self._now(snapshot))
        return max(0, captured - min(looked)) / SECOND if looked else None

    def _alert(self, alert: Alert, snapshot: Snapshot) -> AlertRow:
        where = f" at {alert.site}" if len(self._sites) != 1 else ""
        return AlertRow(
            time=screen.moment(alert.time, self._zone(alert.site), today=self._now(snapshot)),
            severity=alert.severity,
            what=", ".join(alert.labels) + where,
            causes=_causes(alert),
            closed=alert.state == "closed",
        )

    def _last_words(self, snapshot: Snapshot) -> Iterator[str]:
        zone = self._own_zone()
        ran = screen.lasting(time.monotonic() - self._began)
        told = f"{self._incidents} alert{'s' if self._incidents != 1 else ''}"
        yield f"stopped at {screen.moment(time.time_ns(), zone, date=True)}, ran for {ran}, {told}"
        lost = [
            f"{site}/{source} {n} of {counts.get('captured', n)}"
            for site, sources in snapshot.counts.items()
            for source, counts in sources.items()
            if (n := sum(m for what, m in counts.items() if what.startswith("dropped.")))
        ]
        more = f", and {len(lost) - MOST_LOST} more sources" if len(lost) > MOST_LOST else ""
        yield f"captured and not looked at: {', '.join(lost[:MOST_LOST]) or 'nothing'}{more}"
        for name, waiting in _gauges(snapshot, "pending."):
            plural = "s" if waiting != 1 else ""
            yield f"{waiting:g} alert{plural} for {name} will be sent at the next start"


def _causes(alert: Alert) -> tuple[str, ...]:
    return tuple(_CLOCK.sub("", reason) for reason in alert.reasons)


def _cleaned(record: logging.LogRecord) -> bool:
    """A log filter for a terminal: others may have written a part of the message."""
    record.msg, record.args = printable(record.getMessage(), newlines=True), ()
    if record.exc_text:
        record.exc_text = printable(record.exc_text, newlines=True)
    return True


def _times(snapshot: Snapshot, what: str) -> Iterator[int]:
    for sources in snapshot.reached.values():
        for times in sources.values():
            if what in times:
                yield times[what]


def _sources(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Site and name of all that has a state, a count or a time, in that order."""
    known = [
        *((site, name) for site, names in snapshot.sources.items() for name in names),
        *((site, name) for site, names in snapshot.counts.items() for name in names),
        *((site, name) for site, names in snapshot.reached.items() for name in names),
    ]
    yield from dict.fromkeys(known)


def _gauges(snapshot: Snapshot, prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in sorted(snapshot.gauges.items()):
        if name.startswith(prefix) and value:
            yield name.removeprefix(prefix), value
