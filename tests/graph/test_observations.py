"""`fusewatch observations`: what was seen, heard and said, of the log and of scenes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipeline import topics
from pipeline.bus.log import LocalLog
from pipeline.types import SECOND, Box, Record, ns, rfc3339
from tests import make
from tests.graph.conftest import FAKES, run_edge
from workers.bus.publish import publish_all
from workers.cli import main
from workers.commands import study
from workers.tuning.observation_lines import KINDS, Reading, local_time

ROOT = Path(__file__).resolve().parents[2]
BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s
SINCE = ("--since", "2026-01-05T22:00:00Z")


def words(config: Path, *options: str) -> list[str]:
    return ["observations", str(config), "--state", str(config.parent / "state"), *SINCE, *options]


def lines(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    capsys.readouterr()
    assert main(words(config, *options)) == 0
    return capsys.readouterr().out.splitlines()


def rows(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(config, capsys, "--json", *options)]


def test_the_words_of_kind_are_those_that_there_are() -> None:
    assert study.KINDS == KINDS


def test_what_was_seen_heard_and_said_has_a_line_each(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(person=(3, 6), loud=(8, 9), spoken=(12, 14)))
    shown = lines(config, capsys)
    assert {line.split()[2] for line in shown} >= {"seen", "heard", "said"}
    (first,) = [line for line in shown if " seen " in line][:1]
    assert first.startswith("2026-01-05T22:00:03.000Z  office/desk")
    assert "person 0." in first
    gun = [line for line in shown if "gunshot" in line]
    assert gun
    assert all(" office/room " in line and " dB" in line for line in gun)
    assert any(line.startswith("2026-01-05T22:00:08.000Z") for line in gun)


def test_a_selection_shows_less(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(person=(3, 6), loud=(8, 9), spoken=(12, 14)))
    assert {row["source"] for row in rows(config, capsys, "--source", "desk")} == {"desk"}
    heard = {row["source"] for row in rows(config, capsys, "--source", "room")}
    assert heard == {"room", "room/speech"}
    assert {row["kind"] for row in rows(config, capsys, "--kind", "said")} == {"said"}
    until = rows(config, capsys, "--until", "2026-01-05T22:00:05Z", "--kind", "seen", "--all")
    assert [row["time"] for row in until][-1] == "2026-01-05T22:00:04.800000000Z"
    every = rows(config, capsys, "--all", "--kind", "seen")
    assert len(every) == 100
    assert sum(bool(row["objects"]) for row in every) == len(rows(config, capsys, "--kind", "seen"))


def test_json_has_scores_and_places_and_no_embedding(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(person=(3, 6), loud=(8, 9), spoken=(12, 14)))
    by_kind = {row["kind"]: row for row in rows(config, capsys)}
    seen = by_kind["seen"]
    assert set(seen["objects"][0]) == {"label", "score", "box", "pose"}
    assert (seen["site"], seen["source"], len(seen["objects"][0]["box"])) == ("office", "desk", 4)
    assert seen["end"] > seen["time"]
    assert 0 <= by_kind["heard"]["labels"]["gunshot"] <= 1
    assert {"text", "language", "confidence"} <= set(by_kind["said"])
    assert all("embedding" not in row for row in by_kind.values())


def test_times_are_those_of_the_site_or_utc(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(person=(3, 6)))
    config.write_text(config.read_text().replace("office:", "office:\n    timezone: Asia/Kolkata"))
    assert lines(config, capsys)[0].startswith("2026-01-06T03:30:03.000+05:30  ")
    assert lines(config, capsys, "--utc")[0].startswith("2026-01-05T22:00:03.000Z  ")
    assert rows(config, capsys)[0]["time"] == "2026-01-05T22:00:03.000000000Z"
    # A time that was printed can be given back.
    again = ["observations", str(config), "--state", str(config.parent / "state")]
    assert main([*again, "--since", "2026-01-06T03:30:05.000+05:30"]) == 0
    assert capsys.readouterr().out.startswith("2026-01-06T03:30:05")


def test_the_hour_that_a_clock_shows_twice_is_told_apart_by_its_offset() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    summer, winter = ns(1_792_888_200), ns(1_792_888_200 + 3600)  # 2026-10-25, 02:30 twice
    assert local_time(summer, berlin) == "2026-10-25T02:30:00.000+02:00"
    assert local_time(winter, berlin) == "2026-10-25T02:30:00.000+01:00"
    assert local_time(summer, None) == "2026-10-25T00:30:00.000Z"


def test_words_of_strangers_do_not_command_the_terminal(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(
        config,
        make.utterance(BEGIN + 2, "\x1b[2J\x1b]0;owned\x07help"),
        make.described(BEGIN + 3, "first\nsecond\u202e"),
    )
    out = "\n".join(lines(config, capsys))
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "help" in out
    assert len(out.splitlines()) == 2
    assert "\\u001b" in "".join(lines(config, capsys, "--json"))


def stored(config: Path, *records: Record) -> None:
    with closing(LocalLog(config.parent / "state" / "log", clock=lambda: ns(BEGIN))) as bus:
        publish_all(bus, topics.OBSERVATIONS, records)


def test_a_source_that_is_lost_and_back_is_told_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes: list[Box] = [make.box()]
    stored(
        config,
        make.detections(BEGIN + 1, *boxes),
        *(make.progress(BEGIN + n, alive=False, reason="no route") for n in (2, 3, 4)),
        make.roster("desk", start=BEGIN + 4),
        make.progress(BEGIN + 5),
        make.detections(BEGIN + 6, *boxes),
    )
    kinds = [(line.split()[2], line.split()[3:4]) for line in lines(config, capsys)]
    assert [kind for kind, _ in kinds] == ["seen", "lost", "back", "seen"]
    assert "no route" in lines(config, capsys, "--kind", "lost")[0]


def test_a_mode_is_told_when_it_is_set_and_again_only_if_all_is_wanted(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make.mode("armed", BEGIN + 1)
    again = make.mode("armed", BEGIN + 1, said=BEGIN + 11)
    stored(config, make.detections(BEGIN), first, again, make.detections(BEGIN + 20))
    (line,) = lines(config, capsys, "--kind", "mode")
    assert line.endswith("office/reports      mode      armed by ann")
    assert len(lines(config, capsys, "--kind", "mode", "--all")) == 2


def test_a_record_that_says_nothing_gives_no_line() -> None:
    assert list(Reading().read(make.roster("desk"))) == []
    assert list(Reading().read(make.progress(1))) == []


def test_a_closed_pipe_ends_quietly(config: Path) -> None:
    boxes = [make.box() for _ in range(5)]
    stored(config, *(make.detections(BEGIN + n / 5, *boxes) for n in range(5000)))
    command = [sys.executable, "-m", "workers.cli", *words(config)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("2026-01-05T22:00:00.000Z  office/desk")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_wrong_use_says_what_to_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, wanted in (
        (["observations", str(config)], "name files, or --since TIME"),
        (words(config, "--source", "dsk"), "--source dsk: the config has no such source; did you"),
        (words(config, "--site", "ofice"), "--site ofice: the config has no such site"),
        (words(config, "--kind", "sen"), "'sen' is none of seen, heard, said"),
        (words(config, "--until", "2026-01-05T21:00:00Z"), "is not before --until"),
    ):
        assert main(options) == 2
        assert wanted in capsys.readouterr().err


@pytest.mark.live
def test_brokers_show_the_same_as_the_log(
    kafka: str,
    config: Path,
    scene: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.live import brokered  # kafka-python is an extra

    path = scene(person=(3, 6), loud=(8, 9), spoken=(12, 14))
    began = time.time_ns() // SECOND * SECOND - 20 * SECOND  # as if it were live
    since, until = (f"{rfc3339(began + ns(s))[:19]}Z" for s in (0, 20))
    path.write_text(path.read_text().replace("2026-01-05T22:00:00Z", since))
    over = brokered.over_kafka(config, kafka)
    brokered.play(over, path, FAKES, faust=())
    run_edge(config, path)
    selected = ["--since", since, "--until", until]
    capsys.readouterr()
    assert main(["observations", str(over), *selected]) == 0
    shown = capsys.readouterr().out.splitlines()
    state = ["--state", str(config.parent / "state")]
    assert main(["observations", str(config), *selected, *state]) == 0
    assert sorted(shown) == sorted(capsys.readouterr().out.splitlines())
    assert shown


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_the_demo_scene_is_seen_and_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ROOT / "workers/demo/scene"
    options = ["--source", "desk", "--kind", "seen", "--json"]
    assert (
        main(["observations", str(folder / "site.yaml"), str(folder / "scene.yaml"), *options]) == 0
    )
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found
    assert {row["source"] for row in found} == {"desk"}
    assert "person" in {each["label"] for row in found for each in row["objects"]}
