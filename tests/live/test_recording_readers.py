"""Another program reads our recordings: the MCAP library of Foxglove for JavaScript."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline import topics
from pipeline.types import FrameChunk, ns
from tests.live.servers import missing, need
from tests.recorded import BEGIN, entries, entry, write
from workers.media.jpeg import decoded, encoded
from workers.recordings.file_index import read_index

pytestmark = [pytest.mark.live, pytest.mark.slow]

PACKAGES = ("@mcap/core@2.2.2", "fzstd@0.1.1", "protobufjs@8.8.1")
SCRIPT = Path(__file__).with_name("read_recording.mjs")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds the library."""
    need("node", "npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text("{}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"the npm registry does not answer: {done.stderr[-300:]}")
    return folder


def read(packages: Path, file: Path, picture: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(SCRIPT), str(file), str(picture)]
    return subprocess.run(
        command, cwd=packages, capture_output=True, text=True, check=False, timeout=120
    )


def test_all_is_found_and_the_picture_decodes(packages: Path, tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    jpeg = encoded(pixels)
    frame = FrameChunk(
        site="office", source="door", start=ns(BEGIN), end=ns(BEGIN + 1), seq=1,
        width=64, height=48, data=jpeg,
    )  # fmt: skip
    made = [*entries(20), (topics.FRAMES, entry(frame, 900, topics.FRAMES))]
    (file,) = write(tmp_path / "out", [made[-1], *made[:-1]])
    picture = tmp_path / "picture.jpg"
    done = read(packages, file, picture)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    media = Counter(topic for topic, _ in made)
    assert told["streamed"] == len(made) + media[topics.FRAMES] + media[topics.AUDIO]
    assert sum(told["counts"].values()) == told["streamed"]
    assert told["done"] is True
    assert told["profile"] == "fusewatch"
    assert told["counts"]["/office/door/frames/picture"] == 1
    assert told["counts"]["/office/room/audio/sound"] == 40
    assert picture.read_bytes() == jpeg
    assert decoded(picture.read_bytes(), 64, 48).shape == (48, 64, 3)


@pytest.mark.parametrize("number", range(4))
def test_a_flipped_bit_is_told(packages: Path, tmp_path: Path, number: int) -> None:
    (file,) = write(tmp_path / "out", entries(20))
    chunk = read_index(file).chunks[number]
    content = bytearray(file.read_bytes())
    content[chunk.at + chunk.length // 2] ^= 4
    file.write_bytes(content)
    done = read(packages, file, tmp_path / "picture.jpg")
    assert done.returncode != 0
    assert "Error" in done.stderr
