"""Real media, with the real models: a clip gives what a scene file of it gives."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from workers.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights")]

OFFICE = Path(__file__).resolve().parents[2] / "deploy/examples/office.yaml"
START = "2026-01-05T22:00:00Z"
SCENE = """
site: office
start: 2026-01-05T22:00:00Z
microphones:
  room: [{{file: {file}}}]
"""


def replayed(out: Path, *words: str | Path) -> tuple[list[dict[str, Any]], bytes]:
    """What the command says by --json, and the lines that it wrote."""
    said = io.StringIO()
    given = ["replay", str(OFFICE), *map(str, words), "--out", str(out), "--json"]
    with redirect_stdout(said):
        assert main(given) == 0
    return json.loads(said.getvalue()), out.read_bytes() if out.is_file() else b""


def test_a_sound_gives_the_same_bytes_as_its_scene(tmp_path: Path, media: Path) -> None:
    shot = media / "audio/sesa_train/gunshot_011.flac"
    (row,), lines = replayed(
        tmp_path / "clip.jsonl", shot, "--microphone", "room", "--start", START
    )
    assert row["labels"] == ["gunshot"]
    assert "chosen" not in row
    scene = tmp_path / "scene.yaml"
    scene.write_text(SCENE.format(file=shot))
    assert replayed(tmp_path / "scene.jsonl", scene)[1] == lines
    (row,), again = replayed(tmp_path / "again.jsonl", shot, "--start", START)
    assert again == lines
    assert row["chosen"] == ["its sound goes to the microphone room of the site office"]


def test_a_video_alerts_and_a_later_span_is_told_to_hold_nothing(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = media / "video/office_a.mp4"
    (row,), lines = replayed(tmp_path / "a.jsonl", film, "--camera", "desk", "--start", START)
    assert row["labels"] == ["intrusion"]
    assert lines
    inputs = [str(film), str(media / "audio/sesa_train/gunshot_011.flac"), "--start", START]
    span = ["--since", "2026-01-05T23:00:00Z", "--until", "2026-01-05T23:30:00Z"]
    both = tmp_path / "both"
    assert main(["replay", str(OFFICE), *inputs, *span, "--out", f"{both}/"]) == 2
    said = capsys.readouterr().err
    assert said.count("has nothing between --since and --until") == 2
    assert "none of the 2 inputs can be used" in said
    assert not list(both.glob("*"))
