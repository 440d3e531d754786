"""Writes the output of `compose`: scene files, their config, their table, and noise files."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.fusion.labels import SPLITS
from models.hearing.waveform import RATE
from workers.media.pcm import to_s16
from workers.training.scene_mixer import NOISE_DB, Mixed, noise_length

OWN_FILES = (
    *(f"{split}/*.yaml" for split in SPLITS),
    "noise/*.wav",
    "config.yaml",
    "scenes.jsonl",
    "compose.json",
)

_SITE = """\
  {site}:
    timezone: UTC
    cameras:
      cam:
        source: "device:0"               # never opened: the scenes are played
        detect: {{fps: 5, min_score: 0.4, poses: 4}}  # behaviours are features
        zones:
          floor: {{coordinates: "0,0, 1,0, 1,1, 0,1", objects: [person]}}
    microphones:
      mic: {{source: "device:default"}}
    rules:
      - {{rule: zone, zone: floor, objects: [person], schedule: "22:00-06:00", label: intrusion, severity: high}}
      - {{rule: sound, labels: {{gunshot: 0.9, explosion: 0.9, glass: 0.9, scream: 0.9, siren: 0.9}}, severity: critical}}
"""  # noqa: E501


class Composed(msgspec.Struct, frozen=True, kw_only=True):
    """The content of compose.json."""

    seed: int
    arguments: dict[str, object]
    manifest: str
    manifest_sha256: str
    splits: dict[str, int]  # scenes
    sites: dict[str, int]
    scenes_with_anomalies: int
    anomalies: dict[str, int]  # by label
    modalities: dict[str, int]  # modalities of the anomalies: `sound+report`
    distractors: int
    anomalies_in_two_modalities: float  # share
    distractors_in_one_modality: float  # share
    seconds: float  # of all scenes


def write(
    out: Path, media: Path, sites: Sequence[str], made: Sequence[Mixed], told: Composed
) -> None:
    """Writes everything to `out` and replaces earlier output of `compose`.

    compose.json is written first, so that the output of a killed run may be replaced.
    """
    for old in [path for pattern in OWN_FILES for path in sorted(out.glob(pattern))]:
        old.unlink()
    for folder in (*told.splits, "noise"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(told), indent=2)
    (out / "compose.json").write_bytes(text + b"\n")
    config = "".join(_SITE.format(site=site) for site in sites)
    (out / "config.yaml").write_text(f"version: 1\nsites:\n{config}", "utf-8")
    seconds = max((noise_length(each.row.duration) for each in made), default=1)
    for split in told.splits:
        rng = np.random.default_rng([told.seed, 2**32, SPLITS.index(split)])
        white = rng.standard_normal(seconds * RATE)
        _wave(out / "noise" / f"{split}-white.wav", white)
        _wave(out / "noise" / f"{split}-pink.wav", _pink(rng.standard_normal(seconds * RATE)))
    for each in made:
        path = out / each.row.split / f"{each.row.name}.yaml"
        path.write_text(scene_text(each, path.parent, out, media), "utf-8")
    rows = b"".join(msgspec.json.encode(each.row) + b"\n" for each in made)
    (out / "scenes.jsonl").write_bytes(rows)


def scene_text(each: Mixed, folder: Path, out: Path, media: Path) -> str:
    """Returns the scene file in `folder`; JSON's strings and numbers are valid YAML."""

    def away(base: Path, file: str) -> str:
        return Path(os.path.relpath(base.resolve() / file, folder.resolve())).as_posix()

    row = each.row
    camera: dict[str, object] = {"file": away(media, row.video)}
    if each.loop:
        camera["loop"] = True
    for kind, spans in (("black", row.corruption.black), ("dark", each.dark)):
        if spans:
            camera[kind] = spans
    clips = [
        {"file": away(base, clip.file), "at": clip.at, "gain_db": clip.gain_db}
        for base, laid in ((media, each.clips), (out, each.noise))
        for clip in laid
    ]
    lines = [
        f"# composed, not recorded: {row.name} of {row.split}",
        f"site: {row.site}",
        f"start: {row.start}",
        f"duration: {_json(row.duration)}",
        "cameras:",
        f"  cam: {_json(camera)}",
    ]
    if not row.corruption.dead_microphone:
        lines += ["microphones:", *_items("  mic", clips)]
    reports = [{"at": said.at, "author": said.author, "text": said.text} for said in each.reports]
    lines += _items("reports", reports)
    truth = [{"start": a.start, "end": a.end, "label": a.label} for a in row.anomalies]
    lines += _items("truth", truth)
    return "\n".join(lines) + "\n"


def _items(name: str, items: Iterable[object]) -> list[str]:
    written = [f"    - {_json(item)}" for item in items]
    return [f"{name}:", *written] if written else [f"{name}: []"]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pink(white: np.ndarray) -> np.ndarray:
    """Returns pink noise: power falls with frequency, nothing below 20 Hz."""
    spectrum = np.fft.rfft(white)
    hertz = np.fft.rfftfreq(len(white), 1 / RATE)
    shaped = np.where(hertz >= 20, spectrum / np.sqrt(np.maximum(hertz, 20)), 0)
    return np.fft.irfft(shaped, len(white))


def _wave(path: Path, noise: np.ndarray) -> None:
    """Writes 16 kHz mono at an RMS of NOISE_DB."""
    level = np.sqrt(np.mean(noise**2))
    samples = (noise / level * 10 ** (NOISE_DB / 20)).astype(np.float32)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(to_s16(samples))
