"""Measures the latency from a sound's onset, and from a frame's capture, to the webhook receiver.

    python -m benchmarks.latency MEDIA [--events 20]

A real RTSP server plays a video made of MEDIA's office (empty for 8 s, then a person for 4 s,
repeated). A virtual microphone hears a gunshot that is played while the person is there. The daemon
runs as a process of its own, and a receiver on loopback notes when each alert comes. The onset is
the start of the player plus the position of the shot in its file, so the player's own delay counts
against us. Windows: from the onset to the first revision that the fused window caused.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from models.hearing.waveform import RATE
from tests.live.daemon import SECRET, daemon, office, said
from tests.live.servers import eventually, rtsp_server, virtual_microphone
from workers.delivery.receiver import Receiver
from workers.media.recordings import AudioMix

EMPTY, PERSON, FPS = 8, 4, 10
EMPTY_FROM, PERSON_FROM = 0.5, 30.0  # s in office_a.mp4
LOUD = 0.1  # of the peak; the first louder sample is the onset of the shot


def film(source: Path, path: Path, cycles: int) -> Path:
    """Writes a video with the empty room and the person in turn, cut from the office's video."""
    with av.open(str(source)) as file:
        frames = [frame.to_ndarray(format="bgr24") for frame in file.decode(video=0)]
    empty = frames[round(EMPTY_FROM * FPS)]
    person = frames[round(PERSON_FROM * FPS) : round((PERSON_FROM + PERSON) * FPS)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.height, stream.width = empty.shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in ([empty] * (EMPTY * FPS) + person) * cycles:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        out.mux(stream.encode(None))
    return path


def onset(clip: Path) -> float:
    """The position of the first loud sample in the clip, s."""
    import numpy as np

    samples = (
        np.frombuffer(
            AudioMix([(clip, Fraction(0), 0.0, 1)], 2 * RATE, lambda what, n: None).between(
                0, 2 * RATE
            ),
            "<i2",
        )
        / 32768
    )
    return float(np.argmax(np.abs(samples) > LOUD * np.abs(samples).max())) / RATE


class Times:
    """Collects the latencies of revisions, by their cause."""

    def __init__(self) -> None:
        self.seen: list[float] = []  # s from a frame's capture to its receipt
        self.heard: list[float] = []
        self.fused: list[float] = []
        self.shot = 0.0  # unix s of the last onset
        self.person = threading.Event()
        self._known: dict[str, tuple[set[str], set[str]]] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Notes the latency of each new cause in a received event."""
        now, data = time.time(), event["data"]
        labels, rules = self._known.setdefault(data["alert_id"], (set(), set()))
        new = set(data["labels"]) - labels
        if "intrusion" in new:
            end = datetime.fromisoformat(f"{event['time'][:26]}+00:00").timestamp()
            captured = end - 0.2  # the frame's start; five a second
            self.seen.append(now - captured)
            self.person.set()
        if "gunshot" in new and self.shot:
            self.heard.append(now - self.shot)
        if "fusion" in set(data["rules"]) - rules and self.shot:
            self.fused.append(now - self.shot)
        labels.update(data["labels"])
        rules.update(data["rules"])


def told(name: str, values: list[float], aim: str = "") -> None:
    """Prints the count, median and 95th percentile of latencies."""
    if len(values) < 2:
        print(f"{name:34} {len(values)} events: too few")
        return
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    p50 = statistics.median(ordered)
    print(f"{name:34} {len(values):3} events   p50 {p50:.2f} s   p95 {p95:.2f} s   {aim}")


def main() -> None:
    """Runs the daemon, plays the events and prints the latencies."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("media", type=Path)
    ask.add_argument("--events", type=int, default=20)
    given = ask.parse_args()
    shot = given.media / "audio/cc0_events/sounds_rifle_fire_01.ogg"
    times, chance = Times(), random.Random(1)  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = film(given.media / "video/office_a.mp4", folder / "film.mp4", given.events + 8)
        delay = onset(shot)
        with (
            virtual_microphone(folder) as play,
            rtsp_server(video) as camera,
            Receiver(SECRET, heard=times.take) as receiver,
            daemon(
                office(
                    folder,
                    camera=camera,
                    microphone="device:pulse",
                    url=receiver.url,
                    close_after=1,
                ),
                folder / "state",
            ) as process,
        ):
            eventually(
                lambda: any(s["message"] == "ready" for s in said(folder / "state")), within=60
            )
            for _ in range(given.events):
                times.person.clear()
                assert times.person.wait(60), "no person was seen within 60 s"
                time.sleep(chance.uniform(0.2, 1.2))  # anywhere in the second's grid
                times.shot = time.time() + delay
                play(shot)
            time.sleep(5)
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    told("frame captured -> received", times.seen, "(aim: p95 under 1.5 s)")
    told("sound's onset -> received", times.heard, "(aim: p95 under 1.5 s)")
    told("sound's onset -> window's verdict", times.fused)
    print(
        f"peak RSS of the daemon, one camera and one microphone: {peak / 1024:.0f} MB (aim: < 900)"
    )


if __name__ == "__main__":
    main()
