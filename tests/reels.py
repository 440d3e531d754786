"""Builds small videos and sounds for tests; their content identifies the frame or sample."""

from __future__ import annotations

import contextlib
import http.server
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import cv2
import numpy as np

from pipeline.types import AudioChunk, FrameChunk

STEP = 16  # gray levels between frames: more than the error of JPEG


def film(
    path: Path,
    shots: Iterable[tuple[float, int]],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "ffv1",
    rate: int = 1000,
) -> Path:
    """Writes a video of flat gray pictures: (time in s, number) each; a time may be negative."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = 1
        for at, number in shots:
            gray = np.full((size[1], size[0]), number * STEP, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "gray")
            frame.pts, frame.time_base = round(at * rate), Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def sound(path: Path, samples: Sequence[float] | np.ndarray, rate: int = 16_000) -> Path:
    """Writes a WAV of float32 samples, one row a channel; samples may be NaN or infinite."""
    rows = np.atleast_2d(np.asarray(samples, "<f4"))
    data = rows.T.tobytes()
    channels = len(rows)
    head = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 3, channels, rate, rate * channels * 4, channels * 4, 32
    )
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


def picture(chunk: FrameChunk) -> np.ndarray:
    """Returns the pixels of a chunk and asserts their size."""
    pixels = cv2.imdecode(np.frombuffer(chunk.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (chunk.height, chunk.width, 3)
    return pixels


def number(chunk: FrameChunk) -> int:
    """The number of the shot of `film` in the chunk."""
    return round(float(picture(chunk).mean()) / STEP)


def samples(chunks: Iterable[AudioChunk]) -> np.ndarray:
    """Joins the samples of chunks of 16 kHz mono, as int16."""
    return np.concatenate([np.frombuffer(chunk.data, "<i2") for chunk in chunks])


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A camera that sends the JPEGs in `parts` 50 times, as fast as it can; then it ends."""

    parts: tuple[bytes, ...] = ()
    busy: ClassVar[list[int]] = []  # an entry for each request that is still refused

    def do_GET(self) -> None:
        if self.busy:
            self.busy.pop()
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(50):
                for data in self.parts:
                    self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\n")
                    self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextlib.contextmanager
def mjpeg(*parts: bytes, busy: int = 0) -> Iterator[str]:
    """Runs the camera and yields its address; the first `busy` requests are refused."""
    handler = type("Handler", (Mjpeg,), {"parts": parts, "busy": [0] * busy})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://ops:s3cretpw@127.0.0.1:{server.server_port}/mjpg?token=s3cretpw"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
