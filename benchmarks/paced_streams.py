"""Live streams for a benchmark: H.264 in MPEG-TS over HTTP, paced by the clock, without an end.

    python -m benchmarks.paced_streams MEDIA CAMERAS

Each is one of FILMS in a loop at FPS in SIZE, begun elsewhere and at another moment of the frame
period. They are encoded once, and sent as they are. Prints the port; the streams are /0, /1, ...
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av

from workers.media.containers import open_file, picture_track

ROOT = Path(__file__).parents[1]
FILMS = ("vtest_first25s.mp4", "Retail02_short.mp4", "office_a.mp4")
SIZE, FPS, GOP = (640, 360), 5, 10


def packets(video: Path) -> list[tuple[bytes, bool]]:
    """One round of a video as H.264 at FPS in SIZE: the bytes of each frame, and if it is a key."""
    made: list[tuple[bytes, bool]] = []
    with open_file(video) as file:
        track = picture_track(file)
        step = round(track.average_rate / FPS)
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height = SIZE
        encoder.pix_fmt, encoder.gop_size = "yuv420p", GOP
        encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
        encoder.options = {"preset": "veryfast", "bf": "0", "tune": "zerolatency", "crf": "23"}
        encoder.thread_count = 1
        taken = [f for number, f in enumerate(file.decode(track)) if number % step == 0]
        for number, frame in enumerate(taken[: len(taken) // GOP * GOP]):
            small = frame.reformat(*SIZE, format="yuv420p", interpolation="AREA")
            small.pts, small.time_base = number, encoder.time_base
            small.pict_type = av.video.frame.PictureType.NONE
            made += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(small)]
        made += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(None)]
    return made


def serve(media: Path, cameras: int) -> None:
    """Serves the streams at /0, /1, ...; prints its port."""
    rounds = [packets(media / "video" / name) for name in FILMS]
    began = time.monotonic()

    class Stream(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            number = int(self.path.strip("/"))
            try:
                self.play(rounds[number % len(rounds)], number)
            except (OSError, av.error.FFmpegError):
                return  # who watched is gone

        def play(self, film: Sequence[tuple[bytes, bool]], number: int) -> None:
            first = number * 7 * GOP % len(film)
            phase = number / cameras / FPS
            due = math.ceil((time.monotonic() - began - phase) * FPS)
            with av.open(Pipe(self.wfile), "w", format="mpegts") as out:
                stream = out.add_stream("libx264", rate=FPS)
                stream.width, stream.height = SIZE
                stream.pix_fmt = "yuv420p"
                for shown in range(sys.maxsize):
                    time.sleep(max(0.0, began + phase + (due + shown) / FPS - time.monotonic()))
                    data, key = film[(first + shown) % len(film)]
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = stream, Fraction(1, FPS)
                    packet.pts = packet.dts = shown
                    packet.is_keyframe = key
                    out.mux(packet)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


class Pipe:
    """A socket as PyAV writes to it."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        """Sends at once."""
        self.file.write(data)
        self.file.flush()
        return len(data)


@contextmanager
def served(media: Path, cameras: int) -> Iterator[list[str]]:
    """Runs the server in a process of its own; gives the addresses."""
    command = [sys.executable, "-m", "benchmarks.paced_streams", str(media), str(cameras)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            yield [f"http://127.0.0.1:{port}/{number}" for number in range(cameras)]
        finally:
            server.kill()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
