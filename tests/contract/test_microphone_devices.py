"""Which microphone is meant by a name, and what a PortAudio that breaks down gives."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.errors import SourceLost
from workers.capture.clock import UtcClock
from workers.config.source_address import parse

pytest.importorskip("pyaudio", reason="extra `microphone` is not installed")

from workers.capture.microphone import MicrophoneSource, select_device

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
    assert select_device(DEVICES, wanted, 5)["index"] == index


@pytest.mark.parametrize(
    ("wanted", "told"), [("usb", "several"), ("9", "no such"), ("yeti", "no such")]
)
def test_a_device_that_is_not_clear_is_lost(wanted: str, told: str) -> None:
    with pytest.raises(SourceLost, match=told):
        select_device(DEVICES, wanted, 5)
    with pytest.raises(SourceLost, match="no microphone"):
        select_device([], "default", None)


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
