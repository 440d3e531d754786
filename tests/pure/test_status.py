"""What a status counts as lost or failing, for health checks."""

from __future__ import annotations

import pytest

from workers.runtime.status import Snapshot, Status, SubscriberState


@pytest.mark.parametrize(
    ("states", "lost"),
    [
        (["connecting"], 0),
        (["connecting", "live"], 0),
        (["connecting", "lost"], 1),
        (["connecting", "live", "lost", "connecting"], 1),
        (["connecting", "lost", "live"], 0),
        (["live", "ended"], 1),
        (["playing"], 0),
    ],
)
def test_a_source_is_lost_until_it_is_live_again(states: list[str], lost: int) -> None:
    status = Status()
    for state in states:
        status.source("office", "desk", state)
    status.source("office", "room", "live")
    assert status.snapshot().lost_sources == lost


def test_subscribers_that_do_not_take_alerts_are_counted_and_gauged() -> None:
    status = Status()
    assert status.snapshot().failing_subscribers == 0
    status.subscriber("siem", SubscriberState(state="disabled", reason="410 Gone"))
    status.subscriber("soc", SubscriberState(reason="503", attempts=1, waiting=2))
    status.subscriber("jsonl", SubscriberState())
    found = status.snapshot()
    assert found.failing_subscribers == 1
    assert {name: bool(value) for name, value in found.gauges.items()} == {
        "pending.siem": False,
        "failing.siem": True,
        "pending.soc": True,
        "failing.soc": True,
        "pending.jsonl": False,
        "failing.jsonl": False,
    }
    assert Snapshot({}, {}, {}).subscribers == {}
