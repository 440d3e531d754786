"""A site with cameras alone: nothing that hears or reads is loaded, downloaded or asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pipeline.types import Described
from tests import make
from tests.live.daemon import daemon, said
from tests.live.servers import eventually
from workers import graph
from workers.cli import main
from workers.config import loader
from workers.runtime.status import Status
from workers.stages.absent_encoders import no_embedding
from workers.stages.encoders import load_encoders
from workers.stages.text import TextStage

CONFIG = """
version: 1
api: {listen: "127.0.0.1:0"}
sites:
  office:
    cameras: {desk: {source: "CAMERA", zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}}}
    rules:
      - {rule: zone, zone: floor, severity: high}
      - {rule: keyword, words: {en: [ladder]}, label: distress}
"""
SCENE = """
site: office
start: 2026-01-05T22:00:00Z
duration: 20
cameras: {desk: {file: desk.mkv}}
reports: [{at: 4, author: guard, text: "a man on a ladder"}]
"""
HEAVY = ("faster_whisper", "ctranslate2", "ai_edge_litert", "tokenizers")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and neither a folder of weights nor a package index. Returns the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache/fusewatch"


def config_of(folder: Path, camera: str = "device:0") -> Path:
    path = folder / "office.yaml"
    path.write_text(CONFIG.replace("CAMERA", camera))
    return path


@pytest.mark.slow
def test_a_person_is_seen_and_nothing_is_downloaded(
    tmp_path: Path, media: Path, alone: Path
) -> None:
    config = config_of(tmp_path, str(media / "video/office_a.mp4"))
    state = tmp_path / "state"
    with daemon(config, state):
        eventually((state / "alerts.jsonl").exists, within=60)
        eventually(lambda: "intrusion" in (state / "alerts.jsonl").read_text(), within=60)
    assert not [line for line in said(state) if line["level"] == "error"]
    assert not alone.exists()


def test_a_replay_and_doctor_ask_for_the_detector_alone(
    tmp_path: Path, scene: Callable[..., Path], alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, "file:desk.mkv")
    played = scene()
    played.write_text(SCENE)
    assert main(["replay", str(config), str(played), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert "distress" in (tmp_path / "out.jsonl").read_text()
    main(["doctor", str(config)])
    assert "weights yolox_nano" in (told := capsys.readouterr().out)
    assert "yamnet" not in told
    assert not alone.exists()


def test_a_process_that_loads_a_camera_s_models_imports_nothing_that_hears(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from pipeline.config.model_needs import needed_encoders\n"
        "from workers.config import loader\nfrom workers.stages.encoders import load_encoders\n"
        "config = loader.load(Path(sys.argv[1]))\n"
        "load_encoders(config.models, needed=needed_encoders(config))\n"
        "print(*sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(config_of(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "onnxruntime" in loaded
    assert not loaded & set(HEAVY)


def test_a_report_without_a_text_model_keeps_its_words() -> None:
    stage = TextStage(no_embedding)
    report = make.report(0, "a man on a ladder")
    (described,) = stage.open({}).on(report, stage.infer([report])[0])
    assert isinstance(described, Described)
    assert (described.text, described.embedding) == ("a man on a ladder", b"")


def test_frames_of_a_camera_that_left_the_config_need_no_detector(tmp_path: Path) -> None:
    settings = loader.load(config_of(tmp_path))
    office = msgspec.structs.replace(settings.sites["office"], cameras={}, rules=())
    settings = msgspec.structs.replace(settings, sites={"office": office})
    encoders = load_encoders(settings.models, needed=())
    with pytest.raises(RuntimeError, match="detector was not loaded"):
        encoders.detector([])
    (vision,) = graph.nodes(settings, encoders, Status(), recorded=False, stages=("vision",))
    left = make.frame(0)
    assert vision.stage.open({}).on(left, vision.stage.infer([left])[0]) == ()
