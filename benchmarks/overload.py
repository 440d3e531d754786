"""Overload: cameras that need three times the detector's speed, beside `yolo track`.

    python -m benchmarks.overload MEDIA WEIGHTS [--seconds 300] [--rival PYTHON] [--cameras N]

The streams are H.264 in MPEG-TS over HTTP, 640 x 360, 5 frames/s, each paced live and begun
elsewhere, made of `vtest_first25s.mp4`, `Retail02_short.mp4` and `office_a.mp4`. There are so many
that they make three times the frames that vision can look at beside their capture, as short runs
tell; `load` says how often it was in each run. `fusewatch run` is measured with `detect.gate` off
and then auto, and after it `yolo track` of ultralytics on the same streams: YOLO11n int8 in
OpenVINO, one thread a stream, as its guide says. `--rival` is the Python that has it; the exit code
is 3 where it is not measured.

- age: from the arrival of a frame until its result is stored (`yolo track`: handed out).
- unseen: the longest time of each camera without a look; with the gate, frames in which nothing
  moves need none. A fair turn is the number of cameras over the looks a second. Frames come once a
  period, so the longest time is that in whole periods at least, whoever is looked at first.
- ledger: snapshots of `GET /v1/status`, once a second. Each must close; `waiting` is the largest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paced_streams import FILMS, FPS, SIZE, served
from models.vision.detector import Detector
from pipeline import codec
from pipeline.types import SECOND, Detections, FrameChunk, ns
from workers.capture.running_daemons import running
from workers.media.containers import open_file, picture_track
from workers.media.jpeg import encoded
from workers.stages.vision import VisionStage

ROOT = Path(__file__).parents[1]
TIMES = 3  # the detector's speed
SETTLED = 15  # s after the first result
UNSEEN = 0.8  # s; the aim
TICK = 0.002  # s by which a frame's time is rounded
CALIBRATION = 20.0  # s
PATIENCE = 120.0  # s for the first result
CONFIG = """
version: 1
api: {{listen: "127.0.0.1:0"}}
storage: {{cap: 4GB}}
sites:
  hall:
    cameras:
{cameras}
    fusion: {{head: rules}}
"""
PLACES = ("gated.", "dropped.")
Gone = Mapping[str, Sequence[float]]  # camera -> when it was seen, s
Gaps = Mapping[str, Sequence[float]]  # camera -> how long it was not seen, each time, s


# What is measured.


def speed(media: Path, weights: Path, seconds: float = 5.0) -> tuple[float, float]:
    """Frames/s of the vision stage alone, with their JPEG, and the s of one inference."""
    chunks = []
    with open_file(media / "video" / FILMS[0]) as file:
        for number, frame in enumerate(file.decode(picture_track(file))):
            picture = frame.reformat(*SIZE, format="bgr24").to_ndarray()
            chunks.append(FrameChunk(site="hall", source="c0", start=ns(number / FPS),
                                     end=ns((number + 1) / FPS), seq=number, width=SIZE[0],
                                     height=SIZE[1], data=encoded(picture)))  # fmt: skip
            if number == 50:
                break
    stage = VisionStage(Detector(weights / "yolox_nano/yolox_nano.onnx"), "all")
    stage.infer(chunks[:5])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        stage.infer([chunks[done % len(chunks)]])
        done += 1
    rate = done / (time.perf_counter() - began)
    return rate, 1 / rate


def unseen(seen: Gone, cameras: Iterable[str], until: float) -> Gaps:
    """The times in which each camera was not seen, s."""
    found = {}
    for camera in cameras:
        times = sorted(seen.get(camera, []))
        found[camera] = [b - a for a, b in pairwise([*times, until])] or [math.inf]
    return found


def say(name: str, ages: Sequence[float], unseen: Gaps, aim: float) -> float:
    """Prints ages and gaps; returns the 95th percentile of the ages."""
    gaps = {camera: max(each) for camera, each in unseen.items()}
    p50, p95, most = np.percentile(ages, (50, 95, 100)) if ages else (math.nan,) * 3
    worst = max(gaps, key=gaps.__getitem__)
    print(f"{name}")
    print(f"  age of {len(ages)} frames: median {p50:.3f} s, p95 {p95:.3f} s, max {most:.3f} s;"
          f" aim p95 {aim:.3f} s")  # fmt: skip
    over = sum(gap > UNSEEN + TICK for gap in gaps.values())
    usual = np.median(list(gaps.values()))
    print(f"  longest unseen: {gaps[worst]:.2f} s ({worst}), median of the cameras {usual:.2f} s,"
          f" {over} of {len(gaps)} over {UNSEEN} s")  # fmt: skip
    return float(p95)


class Watch:
    """Takes a snapshot of a daemon's status each second and checks its ledger."""

    def __init__(self, home: Mapping[str, str], state: Path) -> None:
        self.home, self.state = home, state
        self.taken, self.broken, self.most = 0, 0, 0
        self.counts: dict[str, dict[str, int]] = {}

    def look(self) -> bool:
        """Whether the daemon answered."""
        found = running(self.home)
        try:
            call = HTTPConnection(found[0].url.removeprefix("http://"), timeout=10)
            token = (self.state / "token").read_text().strip()
            call.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"})
            with closing(call):
                now = json.loads(call.getresponse().read())
        except (IndexError, OSError, HTTPException):
            return False
        self.counts = now["counts"].get("hall", {})
        for source, waiting in now["waiting"].get("hall", {}).items():
            of = self.counts[source]
            gone = sum(n for what, n in of.items() if what.startswith(("gated.", "dropped.")))
            self.broken += waiting < 0 or (
                of["captured"] != of.get("processed", 0) + gone + waiting
            )
            self.most = max(self.most, waiting)
        self.taken += 1
        return True


class Run(NamedTuple):
    """What the daemon did in the measured time."""

    ages: list[float]
    unseen: Gaps
    counts: Counter[str]  # over all cameras
    seconds: float
    watch: Watch

    @property
    def load(self) -> float:
        """How many frames wanted a look for each that got one."""
        still = self.counts["gated.rate"] + self.counts["gated.still"]
        return (self.counts["captured"] - still) / max(self.counts["processed"], 1)

    def tell(self, name: str, aim: float) -> float:
        """Prints it; returns the 95th percentile of the ages."""
        p95, looked = say(name, self.ages, self.unseen, aim), self.counts["processed"]
        places = {w: n for w, n in sorted(self.counts.items()) if w.startswith(PLACES)}
        rate, captured = looked / self.seconds, self.counts["captured"]
        print(f"  captured {captured}, looked at {looked} ({rate:.1f}/s), load {self.load:.2f}"
              f" times; {places}")  # fmt: skip
        cost = self.seconds / max(looked, 1)
        print(f"  one look took {cost:.3f} s in this run, so two periods and a look are"
              f" {2 / FPS + cost:.3f} s")  # fmt: skip
        every = [gap for each in self.unseen.values() for gap in each if 0 < gap < math.inf]
        rounded = Counter(round(gap * FPS) / FPS for gap in every)
        shares = (f"{gap:g} s {n / len(every):.2%}" for gap, n in sorted(rounded.items()))
        print(f"  of the times unseen: {', '.join(shares)}")
        fair = len(self.unseen) * cost
        print(f"  a fair turn of {len(self.unseen)} cameras is {fair:.2f} s, so the longest time"
              f" unseen is {math.ceil(fair * FPS - 1e-6) / FPS:g} s at least")  # fmt: skip
        print(f"  ledger: {self.watch.taken} snapshots of {len(self.unseen)} cameras,"
              f" {self.watch.broken} do not close, at most {self.watch.most} frames of a camera"
              " waited")  # fmt: skip
        return p95


def fusewatch(urls: Sequence[str], gate: str, seconds: float) -> Run:
    """Runs the daemon on the streams."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = (f'      c{k}: {{source: "{url}", detect: {{fps: {FPS}, gate: "{gate}"}}}}'
                for k, url in enumerate(urls))  # fmt: skip
        config, state = folder / "hall.yaml", folder / "state"
        config.write_text(CONFIG.format(cameras="\n".join(rows)))
        home = {"HOME": name, "XDG_RUNTIME_DIR": ""}
        command = [sys.executable, "-m", "workers.cli", "run", str(config), "--state", str(state)]
        with (folder / "said").open("w") as said:
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **home}, stderr=said)
        watch = Watch(home, state)
        try:
            until = time.monotonic() + PATIENCE
            while not any(of.get("processed") for of in watch.counts.values()):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the daemon does not start: {(folder / 'said').read_text()[-2000:]}")
                watch.look()
                time.sleep(1)
            time.sleep(SETTLED)
            began, until = time.time_ns(), time.monotonic() + seconds
            watch.look()
            before = {source: Counter(of) for source, of in watch.counts.items()}
            while time.monotonic() < until:
                time.sleep(1)
                watch.look()
            ended = time.time_ns()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        ages, looks, seen = results(state / "log/observations.v1.db", began, ended)
    total = Counter[str]()
    for source, of in watch.counts.items():
        total.update(Counter(of) - before.get(source, Counter()))
    reached = seen if gate != "off" else looks
    gaps = unseen(reached, [f"c{k}" for k in range(len(urls))], (ended - SECOND // 2) / SECOND)
    return Run(ages, gaps, total, (ended - began) / SECOND, watch)


def calibrated(media: Path, alone: float) -> int:
    """How many cameras make TIMES the frames that vision looks at beside their capture.

    A short run tells how many looks the capture of one frame costs; a second one, with about the
    right number of cameras, tells it better.
    """
    cameras = max(2, math.ceil(TIMES * alone / FPS))
    for _ in range(2):
        with served(media, cameras) as urls:
            run = fusewatch(urls, "off", CALIBRATION)
        captured, looked = (run.counts[what] / run.seconds for what in ("captured", "processed"))
        cost = max(0.0, alone - looked) / captured
        print(f"with {cameras} cameras vision looks at {looked:.1f} frames/s beside {captured:.1f}"
              " captured")  # fmt: skip
        cameras = max(2, math.ceil(TIMES * alone / (1 + TIMES * cost) / FPS))
    return cameras


def results(log: Path, began: int, ended: int) -> tuple[list[float], Gone, Gone]:
    """The ages of the frames looked at, when each camera was, and with its gated frames; s."""
    ages, looks, seen = [], defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    with closing(sqlite3.connect(log)) as file:
        sql = "SELECT appended, value FROM entries WHERE start BETWEEN ? AND ? ORDER BY offset"
        for appended, value in file.execute(sql, (began, ended)):
            record = codec.decode(value)
            if isinstance(record, Detections):
                seen[record.source].append(record.start / SECOND)
                if not record.gated:
                    looks[record.source].append(record.start / SECOND)
                    ages.append((appended - record.start) / SECOND)
    return ages, looks, seen


# The rival; this part needs ultralytics.


def rival(model: str, urls: Sequence[str], seconds: float) -> None:
    """Runs `yolo track` on the streams and prints JSON: ages, and when each stream was seen."""
    os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"] = "true", "false"
    os.environ["YOLO_VERBOSE"] = "false"
    import cv2
    from ultralytics import YOLO

    class Stamped(np.ndarray[Any, Any]):
        """A picture that knows when it arrived."""

        at = 0.0

    class Capture(cv2.VideoCapture):
        """Stamps what it reads."""

        def grab(self) -> bool:
            done = bool(super().grab())
            self.at = time.time()
            return done

        def retrieve(self, *args: Any) -> Any:
            done, picture = super().retrieve(*args)
            if picture is not None:
                picture = picture.view(Stamped)
                picture.at = self.at
            return done, picture

        def read(self, *args: Any) -> Any:
            self.grab()
            return self.retrieve(*args)

    cv2.VideoCapture = Capture  # type: ignore[misc]
    told: list[list[tuple[float, float]]] = [[] for _ in urls]

    def track(number: int) -> None:
        tracked = YOLO(model, task="detect").track(urls[number], stream=True, verbose=False)
        for result in tracked:
            told[number].append((time.time(), result.orig_img.at))

    for number in range(len(urls)):
        threading.Thread(target=track, args=(number,), daemon=True).start()
    until = time.monotonic() + PATIENCE
    while not all(told) and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(SETTLED)
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    within = [[(now, at) for now, at in some if began <= at <= ended] for some in told]
    ages = [now - at for some in within for now, at in some]
    seen = {f"c{k}": [at for _, at in some] for k, some in enumerate(within)}
    print(json.dumps({"ages": ages, "seen": seen, "ended": ended}), flush=True)
    os._exit(0)  # its threads do not end by themselves


def beside(python: str, model: Path, urls: Sequence[str], seconds: float, aim: float) -> float:
    """Runs the rival in a process of its own; prints, and returns the 95th percentile."""
    command = [python, "-m", "benchmarks.overload", "-", str(model), "--seconds", str(seconds)]
    done = subprocess.run([*command, "--urls", *urls], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    gaps = unseen(found["seen"], found["seen"], found["ended"] - 0.5)
    p95 = say("yolo track, YOLO11n OpenVINO int8, 640", found["ages"], gaps, aim)
    print(f"  looked at {len(found['ages'])} ({len(found['ages']) / seconds:.1f}/s) of"
          f" {round(len(urls) * FPS * seconds)}; the others it skips without a count")  # fmt: skip
    return p95


def main() -> int:
    """Prints the comparison; returns the exit code."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--seconds", type=float, default=300)
    ask.add_argument("--cameras", type=int, default=0, help="so many, whatever the speed")
    ask.add_argument("--rival", default=sys.executable, help="a Python with ultralytics")
    ask.add_argument("--urls", nargs="+", default=[], help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.urls:
        rival(str(asked.weights), asked.urls, asked.seconds)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    rate, inference = speed(asked.media, asked.weights)
    print(f"vision alone looks at {rate:.1f} frames/s")
    cameras, aim = asked.cameras or calibrated(asked.media, rate), 2 / FPS + inference
    print(f"{cameras} cameras of {FPS} frames/s, {asked.seconds:g} s each:")
    with served(asked.media, cameras) as urls:
        ours = [
            fusewatch(urls, gate, asked.seconds).tell(f"fusewatch run, gate {gate}", aim)
            for gate in ("off", "auto")
        ]
        if subprocess.run([asked.rival, "-c", "import ultralytics, lap, openvino"],
                          capture_output=True, check=False).returncode:  # fmt: skip
            print(f"NOT MEASURED: {asked.rival} has no ultralytics, lap and openvino;"
                  " name another with --rival", file=sys.stderr)  # fmt: skip
            return 3
        model = asked.weights / "yolo11n_int8_openvino_model"
        theirs = beside(asked.rival, model, urls, asked.seconds, aim)
    print(f"age p95, yolo track over fusewatch (gate off): {theirs / ours[0]:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
