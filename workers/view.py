"""Shows the daemon's status: a live table on a terminal, JSON lines on stderr otherwise."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from pipeline.types import SECOND, Alert
from workers.config.secrets import Redacting, Secrets
from workers.delivery.delivery import Subscriber
from workers.runtime.status import Snapshot, Status

log = logging.getLogger("fusewatch")

TABLE_EVERY = 0.5  # s between updates of the table on a terminal
LAST = 8  # alerts shown
SAID_EVERY = 60.0  # s between status lines without a terminal


class JsonLineFormatter(logging.Formatter):
    """One JSON object a line: time, level, thread, message, and the fields of `extra["data"]`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; a traceback is its field `error`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_text or record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info or (None,) * 3)
        return json.dumps(line, ensure_ascii=False)


class View:
    """Shows status and alerts to the operator; the main thread calls `tick`."""

    def __init__(self, status: Status, secrets: Secrets) -> None:
        self._status = status
        self._alerts: deque[Alert] = deque(maxlen=LAST)
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._before = (time.monotonic(), status.snapshot())
        self._said: dict[tuple[str, str], str] = {}
        self._next = 0.0
        if self._console.is_terminal:
            handler: logging.Handler = RichHandler(console=self._console, show_path=False)
        else:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(JsonLineFormatter())
        handler.addFilter(Redacting(secrets))
        log.handlers[:] = [handler]
        log.setLevel(logging.INFO)
        log.propagate = False

    def ready(self) -> None:
        """Starts the table and logs `ready`; call it when everything has started."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        log.info("ready")

    def close(self) -> None:
        """Restores the terminal; without one, logs the last counts."""
        if self._live:
            self._live.stop()
            self._live = None
        else:
            self._say(self._status.snapshot())

    def _say(self, snapshot: Snapshot) -> None:
        data = {"gauges": snapshot.gauges, "counts": snapshot.counts}
        log.info("status", extra={"data": data})

    def subscriber(self) -> Subscriber:
        """The subscriber whose alerts are shown."""
        return Subscriber(name="view", sink=self)

    def send(self, alert: Alert, trace: str = "") -> None:
        """Shows an alert (a Sink)."""
        self._alerts.append(alert)
        if not self._live:
            log.warning(
                "alert %s: %s at %s",
                alert.state,
                ", ".join(alert.labels),
                alert.site,
                extra={"data": {"alert": alert.id, "revision": alert.revision}},
            )

    def tick(self) -> None:
        """Logs changed source states, and updates the table or the status line if it is due."""
        now = time.monotonic()
        snapshot = self._status.snapshot()
        self._say_changes(snapshot)
        if now < self._next:
            return
        self._next = now + (TABLE_EVERY if self._live else SAID_EVERY)
        if self._live:
            self._live.update(self._picture(now, snapshot), refresh=True)
        else:
            self._say(snapshot)
        self._before = (now, snapshot)

    def _say_changes(self, snapshot: Snapshot) -> None:
        for site, sources in snapshot.sources.items():
            for source, state in sources.items():
                if self._said.get((site, source)) != state.state:
                    self._said[site, source] = state.state
                    why = f": {state.reason}" if state.reason else ""
                    level = logging.WARNING if state.state == "lost" else logging.INFO
                    log.log(level, "%s/%s is %s%s", site, source, state.state, why)

    def _picture(self, now: float, snapshot: Snapshot) -> Group:
        since, before = self._before
        sources = Table(title="sources", title_justify="left", expand=True)
        for column in ("site/source", "state", "captured/s", "processed/s", "dropped", "reason"):
            sources.add_column(column)
        for site, known in snapshot.counts.items():
            for source, counts in known.items():
                if source.startswith("delivery/"):
                    continue
                state = snapshot.sources.get(site, {}).get(source)
                old = before.counts.get(site, {}).get(source, {})
                span = max(now - since, 1e-3)
                captured, processed = (
                    f"{(counts.get(what, 0) - old.get(what, 0)) / span:.1f}"
                    for what in ("captured", "processed")
                )
                dropped = {w: n for w, n in counts.items() if w.startswith("dropped.")}
                sources.add_row(
                    f"{site}/{source}",
                    state.state if state else "",
                    captured,
                    processed,
                    ", ".join(f"{what[8:]} {n}" for what, n in dropped.items()),
                    state.reason if state else "",
                )
        gauges = "   ".join(f"{name} {value:g}" for name, value in sorted(snapshot.gauges.items()))
        alerts = Table(title="last alerts", title_justify="left", expand=True)
        for column in ("time", "site", "state", "labels", "severity", "score", "reasons"):
            alerts.add_column(column)
        for alert in reversed(self._alerts):
            alerts.add_row(
                datetime.fromtimestamp(alert.time / SECOND, UTC).strftime("%H:%M:%S"),
                alert.site,
                alert.state,
                ", ".join(alert.labels),
                alert.severity,
                f"{alert.score:.2f}",
                Text("; ".join(alert.reasons[-2:])),
            )
        return Group(sources, Text(gauges, style="dim"), alerts)
