"""Reads microphones by PyAudio; any rate and channel count become 100 ms chunks of 16 kHz mono."""

from __future__ import annotations

import contextlib
import ctypes
import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyaudio

from pipeline.config.schema import Hear
from pipeline.errors import SourceLost
from pipeline.types import AudioChunk
from workers.capture.clock import Clock
from workers.config.source_address import Address
from workers.media.pcm import Chunks, from_s16

BLOCKS_A_SECOND = 10  # blocks a second
UNPLUGGED_AFTER = 3.0  # s without a block until the device counts as unplugged
# s without a block until PortAudio is asked whether the device is still there
DEVICE_ASKED_AFTER = 0.5
MAX_BLOCKS_WAITING = 50  # blocks between PortAudio's thread and the reader
_RATES = (48_000, 44_100, 16_000)

_ALSA_SAYS = ctypes.CFUNCTYPE(  # file, line, function, error, format
    None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
)
_JACK_SAYS = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_hushed_alsa = _ALSA_SAYS(lambda *_: None)
_hushed_jack = _JACK_SAYS(lambda *_: None)

Block = tuple[bytes, int, bool]  # s16le, ns at its end, whether PortAudio lost some before it


class MicrophoneSource:
    """One connection to a microphone; raises SourceLost when it is missing or unplugged.

    `count(source, what)` counts overruns: blocks that came while the buffer was full because the
    reader was late, and blocks before which PortAudio reports dropped input.
    """

    def __init__(
        self,
        address: Address,
        site: str,
        name: str,
        *,
        clock: Clock,
        count: Callable[[str, str], None],
        hear: Hear | None = None,
        port: Callable[[], Any] | None = None,
    ) -> None:
        self._site = site
        self._name = name
        self._clock = clock
        self._count = count
        self._hear = hear
        self._blocks: queue.Queue[Block] = queue.Queue(MAX_BLOCKS_WAITING)
        try:
            self._port = (port or _port)()  # new for each connection: PortAudio lists devices here
        except OSError as error:
            msg = f"PortAudio does not start: {_reason(error)}"
            raise SourceLost(msg) from error
        try:
            device = select_device(_inputs(self._port), address.target, _default(self._port))
            self._rate, self._channels = self._format(device)
            self._stream = self._port.open(
                format=pyaudio.paInt16,
                channels=self._channels,
                rate=self._rate,
                input=True,
                input_device_index=int(device["index"]),
                frames_per_buffer=self._rate // BLOCKS_A_SECOND,
                stream_callback=self._heard,
            )
        except (OSError, ValueError) as error:
            self._port.terminate()
            msg = f"the microphone cannot be opened: {_reason(error)}"
            raise SourceLost(msg) from error
        except SourceLost:
            self._port.terminate()
            raise

    def __iter__(self) -> Iterator[AudioChunk]:
        chunks = Chunks(self._site, self._name, self._rate, hear=self._hear)
        while True:
            data, ended, overrun = self._block()
            if overrun:
                self._count(self._name, "overrun")
            ahead = chunks.ahead
            chunk = chunks.push(from_s16(data, self._channels), ended)
            if chunks.ahead > ahead:
                self._count(self._name, "ahead")
            if chunk is not None:
                yield chunk

    def _block(self) -> Block:
        for _ in range(round(UNPLUGGED_AFTER / DEVICE_ASKED_AFTER)):
            with contextlib.suppress(queue.Empty):
                return self._blocks.get(timeout=DEVICE_ASKED_AFTER)
            if not self._active():
                msg = "the microphone is gone: is it unplugged?"
                raise SourceLost(msg)
        msg = f"the microphone gave nothing for {UNPLUGGED_AFTER:g} s: is it unplugged?"
        raise SourceLost(msg)

    def _active(self) -> bool:
        try:
            return bool(self._stream.is_active())
        except OSError:  # PortAudio raises it for a stream that broke down
            return False

    def close(self) -> None:
        """Closes the device."""
        with contextlib.suppress(OSError):  # it is gone already
            self._stream.close()
        self._port.terminate()

    def _heard(
        self, data: bytes | None, _frames: int, _times: Mapping[str, float], flags: int
    ) -> tuple[None, int]:
        """Runs in PortAudio's thread: passes the block to the reader and never waits."""
        block = (data or b"", self._clock(), bool(flags & pyaudio.paInputOverflow))
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            self._count(self._name, "overrun")
        return None, pyaudio.paContinue

    def _format(self, device: Mapping[str, Any]) -> tuple[int, int]:
        """Rate and channels that the device supports: its own rate first, and fewest channels."""
        most = int(device["maxInputChannels"])
        for rate in dict.fromkeys((int(device["defaultSampleRate"]), *_RATES)):
            for channels in dict.fromkeys((1, min(2, most), most)):
                if self._takes(int(device["index"]), rate, channels):
                    return rate, channels
        msg = "the microphone takes neither its own rate nor a usual one"
        raise SourceLost(msg)

    def _takes(self, index: int, rate: int, channels: int) -> bool:
        try:
            return bool(
                self._port.is_format_supported(
                    rate,
                    input_device=index,
                    input_channels=channels,
                    input_format=pyaudio.paInt16,
                )
            )
        except ValueError:
            return False


def microphones() -> list[str]:
    """The names of the connected microphones, `*` before the default one; for `doctor`."""
    port = _port()
    try:
        default = _default(port)
        marks = {default: "*"}
        return [
            f"{marks.get(device['index'], ' ')} device:{device['index']}  {device['name']}"
            for device in _inputs(port)
        ]
    finally:
        port.terminate()


def select_device(
    devices: list[Mapping[str, Any]], wanted: str, default: int | None
) -> Mapping[str, Any]:
    """The device for `wanted`: `default`, an index, a name, or a part of only one name.

    Raises SourceLost when no device matches, or several do.
    """
    if not devices:
        msg = "there is no microphone on this machine"
        raise SourceLost(msg)
    if wanted == "default":
        found = [device for device in devices if device["index"] == default] or devices[:1]
    elif wanted.isdecimal():
        found = [device for device in devices if device["index"] == int(wanted)]
    else:
        names = [(str(device["name"]).casefold(), device) for device in devices]
        word = wanted.casefold()
        found = [device for name, device in names if name == word][:1]
        found = found or [device for name, device in names if word in name]
    if len(found) != 1:
        msg = "several microphones have that name" if found else "there is no such microphone"
        raise SourceLost(msg + "; `fusewatch doctor` lists them")
    return found[0]


def _port() -> pyaudio.PyAudio:
    """Starts PortAudio without the hundred lines that ALSA and JACK log about missing devices."""
    for library, function, handler in (
        ("libasound.so.2", "snd_lib_error_set_handler", _hushed_alsa),
        ("libjack.so.0", "jack_set_error_function", _hushed_jack),
        ("libjack.so.0", "jack_set_info_function", _hushed_jack),
    ):
        with contextlib.suppress(OSError, AttributeError):  # not this library on this machine
            getattr(ctypes.CDLL(library), function)(handler)
    return pyaudio.PyAudio()


def _inputs(port: Any) -> list[Mapping[str, Any]]:
    devices = (port.get_device_info_by_index(i) for i in range(port.get_device_count()))
    return [device for device in devices if int(device["maxInputChannels"]) > 0]


def _default(port: Any) -> int | None:
    try:
        return int(port.get_default_input_device_info()["index"])
    except OSError:
        return None


def _reason(error: Exception) -> str:
    """PortAudio's message, as `Invalid input device` of `[Errno -9996] Invalid input device`."""
    return str(error.args[-1]) if error.args and isinstance(error.args[-1], str) else str(error)
