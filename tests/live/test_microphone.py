"""A real sound server with a virtual microphone: it hears what is played, or is unplugged."""

from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk
from tests import reels
from tests.live.servers import eventually, virtual_microphone
from workers.capture.clock import UtcClock
from workers.config.source_address import parse

pytest.importorskip("pyaudio", reason="extra `microphone` is not installed")

from workers.capture.microphone import MicrophoneSource, microphones

pytestmark = pytest.mark.live


def hear(seconds: float, device: str) -> list[AudioChunk]:
    address, clock = parse(f"device:{device}", "microphone"), UtcClock()
    source = MicrophoneSource(address, "office", "room", clock=clock, count=print)
    heard: list[AudioChunk] = []
    with contextlib.closing(source):
        for chunk in source:
            heard.append(chunk)
            if chunk.end - heard[0].start > seconds * SECOND:
                break
    assert abs(clock() - heard[-1].end) < SECOND
    return heard


@pytest.mark.parametrize(("rate", "device"), [(48_000, "pulse"), (22_050, "default")])
def test_a_gunshot_that_is_played_is_in_the_chunks(
    tmp_path: Path, media: Path, rate: int, device: str
) -> None:
    with virtual_microphone(tmp_path, rate) as play:
        assert any("pulse" in line for line in microphones())
        shot = media / "audio/sesa_train/gunshot_011.flac"
        player = threading.Thread(target=play, args=(shot,))
        player.start()
        heard = hear(4, device)
        player.join()
    assert all(a.end == b.start for a, b in itertools.pairwise(heard))
    assert all((c.rate, c.channels) == (16_000, 1) for c in heard)
    loudness = np.abs(reels.samples(heard).astype(int))
    assert loudness.max() > 15_000
    assert len(loudness) == pytest.approx(4 * 16_000, rel=0.05)


def test_a_microphone_that_is_unplugged_is_lost(tmp_path: Path) -> None:
    plugged = virtual_microphone(tmp_path)
    plugged.__enter__()
    address = parse("device:pulse", "microphone")
    source = MicrophoneSource(address, "office", "room", clock=UtcClock(), count=print)
    chunks = iter(source)
    assert eventually(lambda: next(chunks), within=10)
    plugged.__exit__(None, None, None)
    with contextlib.closing(source), pytest.raises(SourceLost, match="unplugged"):
        list(chunks)
