"""What a restart reads again is bounded, whatever the log still holds."""

from __future__ import annotations

from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import DeadLetter
from tests import make
from workers.fusion import FusionStage


def test_a_site_that_left_the_config_does_not_hold_its_partition_back() -> None:
    host = Host(FusionStage({}, None), Assigned(0, 0, b""))  # type: ignore[arg-type]
    for offset in range(100):
        (dead,) = host.feed(offset, make.sound(1e6 + offset, site="left"), None)
        assert isinstance(dead, DeadLetter)
    assert host.safe == 100
