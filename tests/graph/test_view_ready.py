"""The view of a daemon begins when the daemon is ready."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from workers.config.secrets import Secrets
from workers.runtime.status import Status
from workers.view import View


def test_the_first_status_comes_at_once_also_where_a_backlog_was_worked_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("fusewatch")
    before = log.handlers[:], log.level, log.propagate
    view = View(Status(), Secrets(base=tmp_path))
    log.propagate = True
    caplog.set_level(logging.INFO, "fusewatch")
    try:
        view.tick()  # while the stages work off what the log held
        view.ready()
        view.tick()
        view.tick()
    finally:
        view.close()  # says the status a last time
        log.handlers[:], log.level, log.propagate = before
    assert [r.getMessage() for r in caplog.records if r.getMessage() in ("ready", "status")] == [
        "status", "ready", "status", "status",
    ]  # fmt: skip
