"""A real sound server with a virtual microphone: it hears what is played, or is unplugged."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk
from tests import reels
from tests.live.servers import eventually, virtual_microphone
from workers.capture.clock import UtcClock
from workers.config.source_address import parse

pyaudio = pytest.importorskip("pyaudio", reason="extra `microphone` is not installed")

from workers.capture.microphone import MicrophoneSource, chosen, microphones  # noqa: E402

DEVICES: list[Mapping[str, object]] = [
    {"index": 0, "name": "HDA Intel: ALC (hw:0,0)", "maxInputChannels": 2},
    {"index": 3, "name": "USB Audio: - (hw:1,0)", "maxInputChannels": 1},
    {"index": 5, "name": "USB Audio: - (hw:2,0)", "maxInputChannels": 1},
    {"index": 7, "name": "pulse", "maxInputChannels": 32},
]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("default", 5),
        ("3", 3),
        ("pulse", 7),
        ("PULSE", 7),
        ("usb audio: - (hw:1,0)", 3),
        ("ALC", 0),
    ],
)
def test_a_device_is_found_by_index_name_or_part_of_a_name(wanted: str, index: int) -> None:
    assert chosen(DEVICES, wanted, 5)["index"] == index


@pytest.mark.parametrize(
    ("wanted", "told"), [("usb", "several"), ("9", "no such"), ("yeti", "no such")]
)
def test_a_device_that_is_not_clear_is_lost(wanted: str, told: str) -> None:
    with pytest.raises(SourceLost, match=told):
        chosen(DEVICES, wanted, 5)
    with pytest.raises(SourceLost, match="no microphone"):
        chosen([], "default", None)


class Broken:
    """A PortAudio that opens a stream and then breaks down."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream

    def get_device_count(self) -> int:
        return len(DEVICES)

    def get_device_info_by_index(self, index: int) -> Mapping[str, object]:
        return {**DEVICES[index], "defaultSampleRate": 16_000.0}

    def get_default_input_device_info(self) -> Mapping[str, object]:
        return DEVICES[0]

    def is_format_supported(self, rate: int, **_: object) -> bool:
        return True

    def open(self, **_: object) -> Broken:
        if not self.stream:
            raise OSError(-9996, "Invalid input device")
        return self

    def is_active(self) -> bool:
        raise OSError(-9988, "Stream closed")

    def close(self) -> None:
        raise OSError(-9988, "Stream closed")

    def terminate(self) -> None:
        pass


def broken(port: object) -> MicrophoneSource:
    return MicrophoneSource(
        parse("device:0", "microphone"),
        "office",
        "room",
        clock=UtcClock(),
        count=print,
        port=lambda: port,
    )


def test_a_microphone_whose_library_breaks_is_lost_and_no_bug() -> None:
    source = broken(Broken(stream=True))
    with pytest.raises(SourceLost, match="unplugged"):
        list(source)
    source.close()
    with pytest.raises(SourceLost, match="Invalid input device"):
        broken(Broken(stream=False))


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


@pytest.mark.live
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


@pytest.mark.live
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
