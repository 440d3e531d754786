"""Measures the memory of `fusewatch run` and of its parts, and the disk of the light install.

    python -m benchmarks.memory MEDIA WEIGHTS [--seconds 60] [--only run|parts|disk]
        [--python .venv/bin/python] [--constraints constraints.txt]

- run: the daemon, as a process of its own, plays a film that is its camera and its microphone. The
  film shows the office of MEDIA again and again, with spoken words and a shot, so that each model
  works. A receiver on loopback notes the alerts; the run fails unless the detector, the sound model
  and the speech model each caused one. The memory is read `--seconds` after that, and the largest
  of each second before it is printed too. The mappings of the process say what it holds.
- parts: what a part adds. Each row is a fresh process that loads all rows above it first, in the
  order of the daemon, and uses each model once.
- disk: a fresh virtual environment with the light install, without the constraints of this folder
  unless `--constraints` names them; the 15 largest packages, of their own RECORD.

`--python` is the interpreter of another environment, such as that of a light install, for `run` and
`parts`. RSS counts a shared page in full, PSS a share of it, USS only pages of no other process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
RATE = 16_000  # samples per second of the film's sound
BLOCK = 1024  # samples of a frame of AAC
WORDS, WORDS_AT = "speech/jfk.flac", 2  # s in each round of the film
SHOT, SHOT_AT = "audio/cc0_events/sounds_rifle_fire_01.ogg", 20
START = 120.0  # s that the models get to cause their alerts
CONFIG = """
version: 1
sites:
  office:
    cameras:
      desk: {{source: "{film}", zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}}}
    microphones:
      room: {{source: "{film}"}}
    rules:
      - {{rule: zone, zone: floor, label: intrusion, severity: high}}
      - {{rule: sound, labels: {{gunshot: 0.5, explosion: 0.5}}, severity: critical}}
      - {{rule: keyword, name: spoken, label: spoken, severity: high, on: [speech, report],
          words: {{en: ["country"]}}}}
      - {{rule: phrase, name: meant, label: meant, severity: high, min_similarity: 0.5,
          phrases: ["somebody is breaking in"]}}
api: {{listen: "127.0.0.1:0"}}
webhooks:
  - {{url: "{url}", secret: "{secret}", name: subscriber}}
"""
WANTED = {"intrusion": "detector", "gunshot": "sound", "spoken": "speech and text"}


# ---------------------------------------------------------------- what a process holds


def memory(pid: int | str = "self") -> dict[str, float]:
    """RSS, PSS, USS and the peak of RSS of a process, MiB."""
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
    status = _fields(Path(f"/proc/{pid}/status").read_text())
    found = {
        "RSS": rollup["Rss"],
        "PSS": rollup["Pss"],
        "USS": rollup["Private_Clean"] + rollup["Private_Dirty"],
        "anonymous": rollup["Anonymous"],
        "peak": status["VmHWM"],
    }
    return {name: kib / 1024 for name, kib in found.items()}


def cpu(pid: int) -> float:
    """Seconds of user and system time of a process."""
    row = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK")


def _fields(text: str) -> dict[str, int]:
    """The fields of a file of /proc that are in kB."""
    rows = (line.split() for line in text.splitlines())
    return {row[0][:-1]: int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


def mappings(pid: int) -> dict[str, tuple[float, float]]:
    """What a process maps, by kind or package: RSS and its dirty part, MiB."""
    rss, dirty, owner = Counter[str](), Counter[str](), ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        row = line.split()
        if "-" in row[0] and not row[0].endswith(":"):
            owner = _owner(row[5] if len(row) > 5 else "", row[1])
        elif row[0] == "Rss:":
            rss[owner] += int(row[1])
        elif row[0] in ("Private_Dirty:", "Shared_Dirty:"):
            dirty[owner] += int(row[1])
    return {name: (rss[name] / 1024, dirty[name] / 1024) for name, _ in rss.most_common()}


def _owner(path: str, mode: str) -> str:
    if "site-packages/" in path:
        return path.split("site-packages/")[1].split("/", maxsplit=1)[0].removesuffix(".libs")
    if path in ("", "[heap]") or path.startswith("[anon"):
        return "heap and arenas" if "x" not in mode else "compiled kernels"
    if path.startswith("["):
        return path
    return "python and its libraries" if "python" in path.lower() else Path(path).name


# ---------------------------------------------------------------- run


def film(media: Path, path: Path, seconds: int) -> Path:
    """Writes the office again and again, with spoken words and a shot in each round."""
    import av

    with av.open(str(media / "video/office_a.mp4")) as source, av.open(str(path), "w") as out:
        pictures = source.streams.video[0]
        base = pictures.time_base
        copied = out.add_stream_from_template(pictures)
        sound = out.add_stream("aac", rate=RATE, layout="mono")
        packets = [packet for packet in source.demux(pictures) if packet.dts is not None]
        length = Fraction(len(packets)) / Fraction(pictures.average_rate or 10)
        step, times = round(length / base), [(packet.dts, packet.pts) for packet in packets]
        heard, played = _round(media, int(length * RATE)), 0
        for turn in range(-(-seconds // int(length))):
            for packet, (dts, pts) in zip(packets, times, strict=True):
                packet.dts, packet.pts = dts + turn * step, pts + turn * step
                packet.time_base, packet.stream = base, copied
                out.mux(packet)
                until = float((dts + turn * step) * base) * RATE
                while played < until:
                    block = np.take(heard, range(played, played + BLOCK), mode="wrap")
                    frame = av.AudioFrame.from_ndarray(block[None], "fltp", "mono")
                    frame.sample_rate, frame.pts, played = RATE, played, played + BLOCK
                    frame.time_base = Fraction(1, RATE)
                    out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def _round(media: Path, samples: int) -> np.ndarray:
    """The sound of one round: words and a shot over faint noise."""
    import av

    heard = np.random.default_rng(1).normal(0, 1e-3, samples).astype(np.float32)
    for clip, at in ((WORDS, WORDS_AT), (SHOT, SHOT_AT)):
        line = av.AudioResampler("flt", "mono", RATE)
        with av.open(str(media / clip)) as file:
            blocks = [
                each.to_ndarray().ravel()
                for frame in (*file.decode(audio=0), None)
                for each in line.resample(frame)
            ]
        found = np.concatenate(blocks)
        heard[at * RATE :][: len(found)] += found
    return np.clip(heard, -1, 1)


def run(media: Path, seconds: int, python: str) -> None:
    """Runs the daemon until each model caused an alert, and prints what it holds later."""
    from tests.live.daemon import SECRET, daemon, said
    from tests.live.servers import eventually
    from workers.delivery.receiver import Receiver

    labels = set[str]()

    def heard(event: dict[str, Any]) -> None:
        labels.update(event["data"]["labels"])

    with tempfile.TemporaryDirectory() as name, Receiver(SECRET, heard=heard) as receiver:
        folder = Path(name)
        played = film(media, folder / "film.mp4", int(START) + seconds + 60)
        config = folder / "office.yaml"
        config.write_text(CONFIG.format(film=played, url=receiver.url, secret=SECRET))
        with daemon(config, folder / "state", python) as process:

            def ready() -> bool:
                return any(s["message"] == "ready" for s in said(folder / "state"))

            began = time.monotonic()
            eventually(ready, within=90)
            started = memory(process.pid)
            print(f"ready after {time.monotonic() - began:.1f} s")
            eventually(lambda: labels >= set(WANTED), within=START, every=0.5)
            seen, busy = [], cpu(process.pid)
            for _ in range(seconds):
                seen.append(memory(process.pid))
                time.sleep(1)
            held, now, busy = mappings(process.pid), memory(process.pid), cpu(process.pid) - busy
            threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    print(f"\n{'MiB':26}{'RSS':>8}{'PSS':>8}{'USS':>8}{'peak':>8}")
    most = {name: max(each[name] for each in seen) for name in now}
    rows = (("ready", started), (f"after {seconds} s", now), ("largest second", most))
    for what, row in rows:
        print(f"{what:26}" + "".join(f"{row[n]:8.0f}" for n in ("RSS", "PSS", "USS", "peak")))
    print(f"alerts by: {', '.join(sorted(labels))}; {threads} threads")
    print(f"{busy / seconds:.1%} of a core")
    print(f"\n{'mappings, MiB':34}{'RSS':>8}{'dirty':>8}")
    for what, (rss, dirty) in list(held.items())[:16]:
        print(f"{what:34}{rss:8.1f}{dirty:8.1f}")


# ---------------------------------------------------------------- parts


def _imports(*names: str) -> Callable[[], object]:
    return lambda: [import_module(name) for name in names]


def _models(weights: Path) -> list[tuple[str, Callable[[], object]]]:
    os.environ["FUSEWATCH_WEIGHTS"] = str(weights)
    quiet = np.zeros(RATE, np.float32)
    noise = np.random.default_rng(1).normal(0, 0.05, 4 * RATE).astype(np.float32)

    def load(part: str) -> Any:
        from pipeline.config import schema
        from workers.stages.encoders import adapted

        return adapted(part, getattr(schema.Models(), part))

    def head() -> object:
        from models.fusion.learned_head import SHIPPED_FOLDER, LearnedHead

        return LearnedHead.read(SHIPPED_FOLDER)

    def voice() -> object:
        from models.hearing.voice_activity import VoiceActivity

        made = VoiceActivity()
        made([quiet])
        return made

    def used(part: str, with_: object) -> Callable[[], object]:
        def both() -> object:
            model = load(part)
            model([with_])
            return model

        return both

    return [
        ("model: YOLOX-Nano", used("detector", np.zeros((432, 768, 3), np.uint8))),
        ("model: YAMNet", used("sound", quiet)),
        ("model: Silero voice activity", voice),
        ("model: Whisper tiny.en", used("speech", noise)),
        ("model: MiniLM", used("text", "somebody is breaking in")),
        ("model: shipped fusion head", head),
    ]


def _parts(weights: Path) -> list[tuple[str, Callable[[], object]]]:
    """What the daemon loads, in its order."""
    return [
        ("numpy", _imports("numpy")),
        ("msgspec, PyYAML, SQLite", _imports("msgspec", "yaml", "sqlite3")),
        ("typer and the command line", _imports("workers.cli")),
        ("rich", _imports("rich.console", "rich.live", "rich.logging")),
        ("httpx", _imports("httpx")),
        ("PyAV (FFmpeg)", _imports("av")),
        ("OpenCV", _imports("cv2")),
        ("soxr, simplejpeg", _imports("soxr", "simplejpeg")),
        ("the daemon's own modules", _imports("workers.daemon")),
        ("onnxruntime", _imports("onnxruntime")),
        ("LiteRT", _imports("ai_edge_litert.interpreter")),
        ("CTranslate2", _imports("ctranslate2")),
        ("tokenizers", _imports("tokenizers")),
        ("models' modules", _imports("models.hearing.speech", "models.hearing.voice_activity")),
        *_models(weights),
    ]


def part(weights: Path, number: int) -> None:
    """Loads the parts up to one, and prints what the last one added, as JSON."""
    from models import heap

    heap.bound()  # as the daemon does
    parts = _parts(weights)
    kept = [make() for _, make in parts[:number]]
    heap.trim()
    before = memory()
    kept.append(parts[number][1]())
    heap.trim()
    after = memory()
    print(json.dumps({name: after[name] - before[name] for name in after} | {"all": after["RSS"]}))
    assert kept


def parts(media: Path, weights: Path, python: str) -> None:
    """Prints what each part adds."""
    print(f"\n{'part, MiB':34}{'RSS':>8}{'USS':>8}{'anon.':>8}{'in all':>8}")
    for number, (name, _) in enumerate(_parts(weights)):
        command = [python, "-m", "benchmarks.memory", str(media), str(weights)]
        said = subprocess.check_output([*command, "--part", str(number)], cwd=ROOT, text=True)
        row = json.loads(said.splitlines()[-1])
        shown = "".join(f"{row[key]:8.1f}" for key in ("RSS", "USS", "anonymous", "all"))
        print(f"{name:34}{shown}", flush=True)


# ---------------------------------------------------------------- disk


def disk(constraints: Path | None) -> None:
    """Prints the disk of a fresh light install, and of its largest packages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels, fresh = folder / "wheels", folder / "venv"
        pip = ("-m", "pip", "-q", "--disable-pip-version-check")
        subprocess.run([sys.executable, "-m", "venv", str(fresh)], check=True)
        python = str(fresh / "bin/python")
        empty = _size(fresh)
        subprocess.run(
            [python, *pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)], check=True
        )
        (wheel,) = wheels.glob("fusewatch-*.whl")
        held = ["-c", str(constraints)] if constraints else []
        subprocess.run([python, *pip, "install", *held, str(wheel)], check=True)
        (site,) = fresh.glob("lib/python*/site-packages")
        sizes = {d.name: _package(d) for d in metadata.distributions(path=[str(site)])}
        print(f"\nlight install: {_size(fresh) / MIB:.0f} MiB on disk, {len(sizes)} packages")
        print(f"of this, the empty environment: {empty / MIB:.0f} MiB")
        top = sorted(sizes.items(), key=lambda item: -item[1])[:15]
        for what, size in top:
            print(f"{what:34}{size / MIB:8.1f}")
        print(f"{'the others':34}{(sum(sizes.values()) - sum(s for _, s in top)) / MIB:8.1f}")


def _size(folder: Path) -> int:
    """Bytes that a folder takes on disk, as `du` counts them."""
    said = subprocess.check_output(["du", "-s", "--block-size=1", str(folder)], text=True)
    return int(said.split()[0])


def _package(which: metadata.Distribution) -> int:
    """Bytes on disk of the files that a package has installed, with their compiled modules."""
    paths = {Path(str(which.locate_file(file))) for file in which.files or ()}
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def main() -> None:
    """Measures what is asked for."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--seconds", type=int, default=60)
    ask.add_argument("--only", choices=("run", "parts", "disk"))
    ask.add_argument("--python", default=sys.executable)
    ask.add_argument("--constraints", type=Path)
    ask.add_argument("--part", type=int, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.part is not None:
        part(given.weights, given.part)
        return
    os.environ["FUSEWATCH_WEIGHTS"] = str(given.weights.resolve())
    if given.only in (None, "run"):
        run(given.media, given.seconds, given.python)
    if given.only in (None, "parts"):
        parts(given.media, given.weights.resolve(), given.python)
    if given.only in (None, "disk"):
        disk(given.constraints)


if __name__ == "__main__":
    main()
