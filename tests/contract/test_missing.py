"""What a right config names and this machine lacks: warned of by `check`, and by `run` first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.registry import REGISTRY
from pipeline.config.fields import OBJECTS
from pipeline.errors import ConfigError
from pipeline.stages import WORKERS
from workers import daemon
from workers.cli import main
from workers.config.findings import NOTE, WARNING, ConfigFinding
from workers.config.loader import examine
from workers.config.missing import concerning
from workers.config.words import words

CONFIG = """\
version: 1
state: state
sites:
  shop:
    cameras:
      door: {source: "rtsp://ops:${DOOR}@127.0.0.1:1/x"}
      till: {source: {url: "rtsp://h/x", username: "${USER_OF_TILL}", password: "file:till"}}
      film: {source: "file:film.mp4"}
      still: {source: "http://127.0.0.1:1/snapshot.JPG?n=1"}
      bare: {source: "10.0.0.5/h264"}
    microphones:
      room: {source: "file:room.wav"}
    rules: [{rule: phrase, phrases: [help]}]
    fusion: {head: heads/mine}
webhooks:
  - {url: "https://example.org/${HOOK}", secret: ["file:${FOLDER}/one", "file:two"]}
api: {token: "file:token"}
models: {detector: {kind: yolox, weights: yolox_giant}, text: {kind: minilm, weights: my/minilm}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shop.yaml"
    path.write_text(CONFIG)
    return path


def told(file: Path, level: str = WARNING, **env: str) -> list[str]:
    """The warnings, or notes, from the line on, without the folder of the file."""
    given = {"XDG_CACHE_HOME": str(file.parent / "cache"), **env}
    found = examine(file, given)
    assert found.problems == ()
    lines = [str(each) for each in found.warnings if each.level == level]
    begin = f"{file}:"
    assert all(line.startswith(begin) for line in lines)
    return [line.removeprefix(begin).replace(f"{file.parent}", ".") for line in lines]


def test_all_that_is_missing_is_told_with_line_and_path(file: Path) -> None:
    assert told(file) == [
        "6: warning: sites.shop.cameras.door.source: the environment variable DOOR is not set",
        "7: warning: sites.shop.cameras.till.source.password: the secret's file ./till is not "
        "there",
        "7: warning: sites.shop.cameras.till.source.username: the environment variable "
        "USER_OF_TILL is not set",
        "8: warning: sites.shop.cameras.film.source: the file is not there",
        "9: warning: sites.shop.cameras.still.source: leads to a single picture, which is no "
        "source; give a stream (rtsp:, or MJPEG or MPEG-TS over http:) or a video file",
        "10: warning: sites.shop.cameras.bare.source: the file is not there; the address begins "
        "with a host; write rtsp:// or http:// before it",
        "12: warning: sites.shop.microphones.room.source: the file is not there",
        "14: warning: sites.shop.fusion.head: ./heads/mine is no folder of a head",
        "16: warning: webhooks[0].secret: the environment variable FOLDER is not set",
        "16: warning: webhooks[0].secret: the secret's file ./two is not there",
        "16: warning: webhooks[0].url: the environment variable HOOK is not set",
        "17: warning: api.token: the secret's file ./token is not there",
        "18: warning: models.detector.weights: is no registered name, and ./yolox_giant is not "
        "there; did you mean `yolox_nano`?",
        "18: warning: models.text.weights: is no registered name, and ./my/minilm is not there; "
        f"registered are {', '.join(REGISTRY)}",
    ]


def test_what_is_there_is_not_told(file: Path) -> None:
    for name in ("till", "film.mp4", "room.wav", "one", "two", "token"):
        (file.parent / name).write_text("something")
    (file.parent / "heads/mine").mkdir(parents=True)
    (file.parent / "my/minilm").mkdir(parents=True)
    (file.parent / "yolox_giant").write_text("a model")
    set_ = {name: "x" for name in ("DOOR", "USER_OF_TILL", "HOOK")}
    left = told(file, FOLDER=str(file.parent), **set_)
    assert [line.partition(": warning")[0] for line in left] == ["9", "10"]
    (file.parent / "two").write_text("")
    assert "16: warning: webhooks[0].secret: the secret's file ./two is empty" in told(
        file, FOLDER=str(file.parent), **set_
    )


def test_no_warning_shows_a_value(file: Path) -> None:
    secrets = {"DOOR": "hunter2hunter2", "HOOK": "hunter2hunter2", "FOLDER": "hunter2hunter2"}
    assert "hunter2" not in "".join(told(file, **{**secrets, "FOLDER": ""}))


def test_weights_that_will_be_downloaded_are_a_note_that_strict_allows(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(
        'version: 1\nsites: {shop: {microphones: {room: {source: "rtsp://127.0.0.1/x"}}}}\n'
    )
    notes = told(file, NOTE)
    assert [line.partition(";")[0] for line in notes] == [
        "1: note: models.speech.weights: `faster-whisper-tiny.en` is not here yet",
        "1: note: models.text.weights: `all-MiniLM-L6-v2-int8` is not here yet",
    ]
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parent / "cache"))
    monkeypatch.delenv("FUSEWATCH_WEIGHTS", raising=False)
    assert main(["check", str(file), "--strict"]) == 0
    assert "`run` downloads it" in capsys.readouterr().err


def test_strict_fails_where_something_warns(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr()
    assert "right, with warnings" in said.out
    assert len(said.err.splitlines()) >= 14
    assert main(["check", str(file), "--strict"]) == 1
    assert main(["check", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ok"]
    assert found["warnings"][0] == {
        "level": "warning",
        "file": str(file),
        "line": 6,
        "path": "sites.shop.cameras.door.source",
        "message": "the environment variable DOOR is not set",
    }
    assert main(["check", str(file), "--json", "--strict"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_what_is_missing_is_told_beside_what_is_wrong(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(CONFIG.replace("[help]", "[]"))
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr().err
    assert "phrases: is empty" in said
    assert "variable DOOR is not set" in said


def test_a_worker_is_told_what_it_needs_itself(file: Path) -> None:
    found = examine(file, {})
    assert found.config is not None
    told = {
        stage: {
            each.path.partition(".")[0].partition("[")[0] + (".fusion" * ("fusion" in each.path))
            for each in concerning(
                found.config,
                found.warnings,
                stages=stages,
                sources=stage == "capture",
                deliveries=stage == "delivery",
            )
            if each.level == WARNING
        }
        for stage, stages in WORKERS.items()
    }
    assert told == {
        "capture": {"sites", "api"},
        "vision": {"models"},
        "hearing": {"models"},
        "text": {"models"},
        "fusion": {"models", "sites.fusion"},
        "alert": set(),
        "delivery": {"webhooks"},
    }


def test_run_warns_before_it_loads_a_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="webhooks"):  # what it looks up before it loads models
        daemon.run(file)
    said = capsys.readouterr().err
    assert "yolox_giant is not there; did you mean `yolox_nano`?" in said
    assert "variable DOOR is not set" in said


def test_a_person_can_list_the_words_that_a_config_may_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--words"]) == 0
    said = capsys.readouterr().out
    for word in (*OBJECTS, "gunshot", "de (german)", "loitering", "yolox_nano", "critical"):
        assert word in said
    assert len(dict(words())) == len(list(words()))


def test_a_finding_without_a_path_is_about_the_file() -> None:
    finding = ConfigFinding(file="a.yaml", line=3, path="", message="is empty")
    assert str(finding) == "a.yaml:3: is empty"


def test_both_streams_of_a_camera_are_looked_through(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "version: 1\nstate: state\nsites:\n  shop:\n    cameras:\n      door:\n        streams:\n"
        "          detect: 'rtsp://ops:${DOOR}@h/small'\n"
        "          record: {url: 'rtsp://h/large', username: ops, password: 'file:large'}\n"
    )
    assert [line for line in told(file) if "cameras" in line] == [
        "8: warning: sites.shop.cameras.door.streams.detect: the environment variable DOOR is not "
        "set",
        "9: warning: sites.shop.cameras.door.streams.record.password: the secret's file ./large "
        "is not there",
    ]


CAREFUL = """\
version: 1
sites:
  shop:
    cameras:
      door: {source: "rtsp://h/x", detect: {fps: 5, tiles: 2}}
      hall:
        source: "rtsp://h/y"
        detect: {decode: keyframes, tiles: 3}
        zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
      yard: {source: "rtsp://h/z", detect: {fps: 1, width: 320}}
    rules:
      - {rule: behaviour, labels: {fall: 0.5, lying: 0.5}, zone: floor}
      - {rule: behaviour, zone: floor, labels: {abandoned-object: 0.5, vehicle-at-rest: 0.6}}
"""


def test_what_may_work_badly_is_warned_of_where_a_rule_looks(file: Path) -> None:
    file.write_text(CAREFUL)
    assert told(file) == [
        "8: warning: sites.shop.cameras.hall.detect.decode: a rule judges behaviours at this "
        "camera, and they were measured at 5 frames/s; keyframes come every second or two; write "
        "`all` or `auto`",
        "13: warning: sites.shop.rules[1].labels.abandoned-object: has not been measured on real "
        "videos; watch its alerts before you rely on it",
        "13: warning: sites.shop.rules[1].labels.vehicle-at-rest: has not been measured on real "
        "videos; watch its alerts before you rely on it",
    ]
    found = examine(file, {})
    assert found.config is not None
    for stage, lines in (("fusion", [13, 13]), ("capture", [8]), ("delivery", [])):
        concerned = concerning(
            found.config,
            found.warnings,
            stages=WORKERS[stage],
            sources=stage == "capture",
            deliveries=stage == "delivery",
        )
        sites = [f.line for f in concerned if f.path.startswith("sites") and f.level == WARNING]
        assert sites == lines


def test_what_tiles_cost_is_a_note(file: Path) -> None:
    file.write_text(CAREFUL)
    notes = [line for line in told(file, NOTE) if "tiles" in line]
    assert notes == [
        "5: note: sites.shop.cameras.door.detect.tiles: the detector runs 3 (16:9) or 5 (4:3) "
        "times for each frame that is looked at; `fusewatch weights recommend` measures what that "
        "costs",
        "8: note: sites.shop.cameras.hall.detect.tiles: the detector runs 7 (16:9) or 7 (4:3) "
        "times for each frame that is looked at; `fusewatch weights recommend` measures what that "
        "costs",
    ]
