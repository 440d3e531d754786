"""What a reader loses is one warning when it begins and one when it ends, with numbers."""

from __future__ import annotations

import pytest

from workers.runtime import loss_log
from workers.runtime.loss_log import OVER_AFTER, LossLog


def test_a_loss_is_told_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_log.log, "propagate", True)
    now = 0.0
    losses = LossLog("vision", "frames.v1", lambda: now)
    for second in range(300):
        now = float(second)
        losses.saw(0 if second < 10 else min(second, 30))
    assert [record.getMessage() for record in caplog.records] == [
        "vision loses entries: retention took 10 entries of frames.v1 before they were read",
        "vision loses no more entries: it lost 30 of frames.v1 in 20 s, 30 since the start",
    ]
    now += OVER_AFTER
    losses.saw(35)
    assert "took 5 entries" in caplog.records[-1].getMessage()
    now += OVER_AFTER
    losses.saw(35)
    assert "it lost 5 of frames.v1 in 0 s, 35 since" in caplog.records[-1].getMessage()
