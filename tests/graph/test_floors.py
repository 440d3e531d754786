"""What a restart reads again is bounded, whatever the log still holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from models.hearing.transcript import Transcript
from pipeline.config.schema import Hear
from pipeline.host import Host
from pipeline.ports import Assigned, Stage
from pipeline.types import FOREVER, DeadLetter, ns
from tests import make
from tests.fakes import FakeText
from workers.stages.fusion import FusionStage
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage

KNOWN = {("office", "room"): Hear()}


def quiet(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.zeros(len(one) // 512, np.float32) for one in batch]


def unsaid(batch: Sequence[np.ndarray]) -> list[Transcript]:
    return [Transcript("", "en", 0.0) for _ in batch]


EARS = {
    "sound": SoundStage(quiet, lambda scores: {}, None, KNOWN),
    "speech": SpeechStage(quiet, unsaid, FakeText(), None, KNOWN),
}


def test_a_site_that_left_the_config_does_not_hold_its_partition_back() -> None:
    host = Host(FusionStage({}), Assigned(0, 0, b""))  # type: ignore[arg-type]
    for offset in range(100):
        (dead,) = host.feed(offset, make.sound(1e6 + offset, site="left"), None)
        assert isinstance(dead, DeadLetter)
    assert host.safe == 100


@pytest.mark.parametrize("stage", EARS.values(), ids=EARS)
@pytest.mark.parametrize(("site", "source"), [("left", "room"), ("office", "gone")])
def test_a_microphone_that_left_the_config_says_nothing_and_holds_nothing_back(
    stage: Stage, site: str, source: str
) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    for offset in range(10):
        assert host.feed(offset, make.audio(1e6 + offset / 2, site=site, source=source), None) == []
    gone = make.progress(1e6 + 5, site=site, source=source)
    assert host.feed(10, gone, None) == []
    assert host.safe == 11
    room = [make.audio(1e6 + 10 + offset / 2) for offset in range(10)]
    said = [host.feed(11 + offset, chunk, None) for offset, chunk in enumerate(room)]
    assert any(said)
    assert 11 < host.safe < 21


def test_the_floor_of_a_site_is_that_of_its_known_microphones() -> None:
    for stage in EARS.values():
        state = stage.open({})
        for at in (1.0, 1.5, 2.0):
            state.on(make.audio(1e6 + at, source="gone"), None)
        assert state.floor("office") == state.floor("left") == FOREVER
        for at in (101.0, 101.5, 102.0):
            state.on(make.audio(1e6 + at), None)
        assert state.floor("office") >= ns(1e6 + 99)
