"""Sixteen cameras on two cores: `fusewatch run` with and without the gate, beside `yolo track`.

    python -m benchmarks.sixteen MEDIA WEIGHTS [--minutes 10] [--only gated,open,yolo]

The streams are H.264, 640 x 360, 10 frames/s, GOP 20. Fourteen are `office_a.mp4`, each begun
elsewhere, with 120 s of its own empty room between two rounds: the frames before anybody comes,
forwards and backwards, so that the noise is real. One is `vtest_first25s.mp4`, one is
`Retail02_short.mp4`, without a pause. They are written once, and the RTSP server of the live tests
(`tests/live/rtsp_server.py`; see deploy/apt.txt) sends them as they are. It is not counted.

`fusewatch run` looks at 5 frames/s with its default settings and is pinned to two cores. Counted is
what it and its children use from 10 s after the last camera is live. PSS is the largest of the sums
over its processes. `dropped` has every reason. `waiting` is captured and not yet done at the end.

`yolo track` is that of ultralytics with YOLO11n int8 in OpenVINO, with every second frame, on as
many streams as get 95 % of 5 frames/s. `--rival` is the Python that has it. The exit code is 3
where it is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import av
import httpx

from benchmarks.process_use import by_thread, pss, spent
from workers.media.containers import open_file, picture_track

ROOT = Path(__file__).parents[1]
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-gi belongs to
SIZE, RATE, GOP, LOOKS = (640, 360), 10, 20, 5
OFFICES, ROOMS_EMPTY, PAUSE = 14, 5, 120  # streams; s at the begin without a person; s
SETTLED = 10  # s after the last camera is live
MORE = 180  # s of film beyond the minutes that are measured
MEMORY_EVERY = 10.0  # s
TRIAL = 20.0  # s of a trial of the rival
BORNE = 0.95  # share of LOOKS that a stream of the rival must get
NAMES = [*(f"office{n:02d}" for n in range(1, OFFICES + 1)), "plaza", "shop"]


Counts = Mapping[str, Mapping[str, int]]  # camera -> what -> number


class Run(NamedTuple):
    """What one run of the daemon has used and done."""

    cores: float
    by_thread: dict[str, float]  # cores
    pss: int  # bytes
    seconds: float
    before: Counts  # at the begin of the measurement
    counts: Counts  # at its end
    alerts: int


# The films.


def pictures(video: Path) -> Iterator[Any]:
    """The frames of a video at RATE, in SIZE."""
    with open_file(video) as file:
        track = picture_track(file)
        step, number = round(track.average_rate / RATE), 0
        for number, frame in enumerate(file.decode(track)):
            if number % step == 0:
                yield frame.reformat(*SIZE, format="yuv420p", interpolation="AREA")


def encode(frames: Sequence[Any], path: Path) -> None:
    """Writes one round of a film: as many whole GOPs as there are."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.gop_size = "yuv420p", GOP
        stream.options = {"preset": "veryfast", "bf": "0", "sc_threshold": "0", "crf": "23"}
        for number, frame in enumerate(frames[: len(frames) // GOP * GOP]):
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            frame.pict_type = av.video.frame.PictureType.NONE
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def repeat(round_: Path, path: Path, begin: float, seconds: int) -> None:
    """Writes a round again and again, from the share `begin` of it on, without encoding it."""
    with av.open(str(round_)) as source, av.open(str(path), "w") as file:
        track = source.streams.video[0]
        packets = [packet for packet in source.demux(track) if packet.size]
        stream = file.add_stream_from_template(track)
        first = round(begin * len(packets) / GOP) * GOP
        data = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for number in range(seconds * RATE):
            payload, key = data[(first + number) % len(data)]
            packet = av.Packet(payload)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, key
            file.mux(packet)


def films(media: Path, folder: Path, seconds: int) -> list[Path]:
    """Writes all streams; returns their files, in the order of NAMES."""
    office = list(pictures(media / "video/office_a.mp4"))
    empty = list(range(ROOMS_EMPTY * RATE))
    around = [*empty, *reversed(empty[1:-1])]
    room = [office[around[n % len(around)]] for n in range(PAUSE * RATE)]
    kinds = {
        "office": [*office, *room],
        "plaza": list(pictures(media / "video/vtest_first25s.mp4")),
        "shop": list(pictures(media / "video/Retail02_short.mp4")),
    }
    found = []
    for kind, frames in kinds.items():
        encode([_copied(frame) for frame in frames], folder / f"round-{kind}.mp4")
    for number, name in enumerate(NAMES):
        kind = name.rstrip("0123456789")
        found.append(folder / f"{name}.mp4")
        begin = number / OFFICES if kind == "office" else 0.0
        repeat(folder / f"round-{kind}.mp4", found[-1], begin, seconds)
    return found


def _copied(frame: Any) -> Any:
    """A frame of its own: one that is shown twice has two times."""
    return av.VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p")


@contextmanager
def served(files: Sequence[Path]) -> Iterator[list[str]]:
    """Serves the films over RTSP; gives their addresses."""
    script = str(ROOT / "tests/live/rtsp_server.py")
    command = [SYSTEM_PYTHON, script, *map(str, files), "--port", "0", "--copy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline().split()
            if not ready:
                sys.exit("the RTSP server does not start: see deploy/apt.txt")
            base = f"rtsp://127.0.0.1:{ready[1]}/live"
            yield [f"{base}{number or ''}" for number in range(len(files))]
        finally:
            server.kill()


# The runs.


def config(urls: Sequence[str], gate: str, port: int) -> str:
    """One site with all cameras; nobody should be in any of them."""
    cameras = "\n".join(
        f'      {name}: {{source: "{url}", detect: {{fps: {LOOKS}, gate: {gate}}}, '
        'zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1", objects: [person]}}}'
        for name, url in zip(NAMES, urls, strict=True)
    )
    return f"""
version: 1
sites:
  house:
    cameras:
{cameras}
    rules:
      - {{rule: zone, zone: floor, objects: [person], label: intrusion, severity: high}}
api: {{listen: "127.0.0.1:{port}"}}
"""


def daemon(
    urls: Sequence[str],
    gate: str,
    minutes: float,
    folder: Path,
    cores: str,
    profile: Callable[[int], None],
) -> Run:
    """Runs the daemon on all streams; returns what it has used and done."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "house.yaml").write_text(config(urls, gate, port))
    command = [*("taskset", "-c", cores), sys.executable, "-m", "workers.cli", "run"]
    command += [str(folder / "house.yaml"), "--state", str(folder / "state")]
    said = folder / "said"
    with said.open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, stderr=err)
    try:
        _until(lambda: all(f"/{name} is live" in said.read_text() for name in NAMES), process, said)
        time.sleep(SETTLED)
        profile(process.pid)
        early = counted(folder / "state", port)
        began, before, threads = time.monotonic(), spent(process.pid), by_thread(process.pid)
        most = 0
        while (left := began + minutes * 60 - time.monotonic()) > 0:
            most = max(most, pss(process.pid))
            time.sleep(min(left, MEMORY_EVERY))
            if process.poll() is not None:
                sys.exit(f"the daemon ended: {said.read_text()[-2000:]}")
        seconds, used = time.monotonic() - began, spent(process.pid) - before
        most = max(most, pss(process.pid))
        later, counts = by_thread(process.pid), counted(folder / "state", port)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    alerts = sum(line["message"].startswith("alert ") for line in lines)
    shares = {name: (later[name] - threads.get(name, 0.0)) / seconds for name in later}
    return Run(used / seconds, shares, most, seconds, early, counts, alerts)


def counted(state: Path, port: int) -> Counts:
    """The counts of the cameras since the start of the daemon."""
    token = (state / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"http://127.0.0.1:{port}/v1/status", headers=headers, timeout=60)
    found: Counts = answer.raise_for_status().json()["counts"]["house"]
    return found


def _until(done: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    until = time.monotonic() + 120
    while not done():
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"the daemon does not see all cameras: {said.read_text()[-2000:]}")
        time.sleep(0.5)


def dropped(said: Mapping[str, int]) -> dict[str, int]:
    """The frames that nobody looked at, by reason."""
    return {k.removeprefix("dropped."): n for k, n in said.items() if k.startswith("dropped.")}


def told(name: str, run: Run) -> None:
    """Prints one run."""
    ever, early = (sum(sum(dropped(of[name]).values()) for name in NAMES)
                   for of in (run.counts, run.before))  # fmt: skip
    memory = f"PSS at most {run.pss / 1e6:.0f} MB"
    print(
        f"\n{name}: {run.seconds:.0f} s, {run.cores:.2f} cores, {memory}, "
        f"{ever - early} frames dropped ({early} before the measurement), "
        f"{run.alerts} revisions of alerts"
    )
    print(f"  {'camera':9} captured  by rate  gated  looked at  waiting  gated share  dropped")
    for camera in NAMES:
        total = run.counts[camera]
        said = {k: n - run.before[camera].get(k, 0) for k, n in total.items()}
        captured, rate, still, looked = (
            said.get(what, 0) for what in ("captured", "gated.rate", "gated.still", "processed")
        )
        spent_on = ("gated.rate", "gated.still", "processed")
        waiting = total["captured"] - sum(total.get(what, 0) for what in spent_on)
        waiting -= sum(dropped(total).values())
        drops = {k: n for k, n in dropped(said).items() if n}
        share = still / max(still + looked, 1)
        print(f"  {camera:9} {captured:8} {rate:8} {still:6} {looked:10} {waiting:8} {share:12.3f}"
              f"  {' '.join(f'{k} {n}' for k, n in drops.items()) or 'none'}")  # fmt: skip
    busiest = sorted(run.by_thread.items(), key=lambda item: -item[1])[:12]
    print("  busiest threads, cores:", ", ".join(f"{k} {v:.3f}" for k, v in busiest), flush=True)


class Rival(NamedTuple):
    """What `yolo track` has used and done."""

    streams: int
    rates: list[float]  # frames/s of each stream
    cores: float
    rss: int  # bytes, at most


def rival(
    python: Path, weights: Path, urls: Sequence[str], seconds: float, cores: str
) -> Rival | str:
    """Runs `yolo track` on as many streams as it bears; returns why not, where it cannot."""
    model = weights / "yolo11n_int8_openvino_model"
    for missing in (python, model):
        if not missing.exists():
            return f"{missing} is not there"

    def once(count: int, seconds: float) -> Rival:
        command = [*("taskset", "-c", cores), str(python), str(ROOT / "benchmarks/yolo_streams.py")]
        command += [str(model), *urls[:count], "--seconds", str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=True, timeout=seconds + 300)  # fmt: skip
        said = json.loads(done.stdout.splitlines()[-1])
        rates = [frames / said["seconds"] for frames in said["frames"]]
        return Rival(count, rates, said["cpu"] / said["seconds"], said["rss"])

    def bears(tried: Rival) -> bool:
        return min(tried.rates) >= BORNE * LOOKS

    count = max(1, min(len(urls), int(sum(once(len(urls), TRIAL).rates) / LOOKS)))
    while count < len(urls) and bears(once(count + 1, TRIAL)):
        count += 1
    while not bears(measured := once(count, seconds)) and count > 1:
        count -= 1
    return measured


def machine(asked: argparse.Namespace) -> str:
    """The machine and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    packages = ("onnxruntime", "av", "opencv-python-headless", "numpy")
    return (
        f"{model}, {os.cpu_count()} cores, pinned to {asked.cores}, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )


def main() -> int:
    """Prints the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path, help="folder of clips, with video/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--yolo-minutes", type=float, default=2)
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--only", default="gated,open,yolo", help="a part of gated,open,yolo")
    parser.add_argument("--rival", type=Path, default=ROOT / ".venv-torch/bin/python")
    parser.add_argument("--films", type=Path, help="folder that keeps the films")
    parser.add_argument("--profile", help="a command that gets the daemon's process number")
    asked = parser.parse_args()
    os.environ["FUSEWATCH_WEIGHTS"] = str(asked.weights.resolve())
    print(machine(asked), flush=True)
    runs: dict[str, Run] = {}

    def profile(pid: int) -> None:
        if asked.profile:
            subprocess.Popen([*shlex.split(asked.profile), str(pid)])

    with tempfile.TemporaryDirectory() as scratch:
        length = round(asked.minutes * 60) + MORE
        folder = (asked.films or Path(scratch)) / f"{length}s"
        files = [folder / f"{name}.mp4" for name in NAMES]
        if not all(file.exists() for file in files):
            folder.mkdir(parents=True, exist_ok=True)
            files = films(asked.media, folder, length)
        with served(files) as urls:
            for name, gate in (("gated", "auto"), ("open", "off")):
                if name in asked.only.split(","):
                    run = daemon(urls, gate, asked.minutes, Path(scratch) / name, asked.cores,
                                 profile)  # fmt: skip
                    runs[name] = run
                    told(f"fusewatch run, detect.gate: {gate}", run)
            if "yolo" not in asked.only.split(","):
                return 0
            them = rival(asked.rival, asked.weights, urls, asked.yolo_minutes * 60, asked.cores)
    if isinstance(them, str):
        print(f"NOT MEASURED: yolo track: {them}", file=sys.stderr)
        return 3
    print(f"\nyolo track, YOLO11n int8 OpenVINO 640: bears {them.streams} streams, slowest"
          f" {min(them.rates):.2f} frames/s, {them.cores:.2f} cores, RSS at most"
          f" {them.rss / 1e6:.0f} MB")  # fmt: skip
    print(f"  {'what':22} streams  cores  cores a stream  ours needs")
    theirs = them.cores / them.streams
    print(f"  {'yolo track':22} {them.streams:7} {them.cores:6.2f} {theirs:15.3f}")
    for name, run in runs.items():
        each = run.cores / len(NAMES)
        print(f"  {'fusewatch, ' + name:22} {len(NAMES):7} {run.cores:6.2f} {each:15.3f}"
              f"  1/{theirs / each:.1f} of it")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
