"""What was told, as windows to review: the alerts of the daemon, and nothing that nobody said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from models.fusion import data
from pipeline.errors import ConfigError
from pipeline.types import ns
from tests.graph.conftest import FAKES, run_edge
from tests.windows import tiny_head
from workers import windows
from workers.cli import main

SINCE, BEGIN = "2026-01-05T22:00:00Z", 1_767_650_400  # the same, s
Scene = Callable[..., Path]


def exported(config: Path, *, since: str = SINCE, until: str | None = None) -> list[data.Row]:
    out = config.parent / "windows.jsonl"
    windows.export(config, since, until, out, config.parent / "state", encoders=FAKES)
    return data.read([out])


def ids(told: Sequence[dict[str, dict[str, str]]]) -> set[str]:
    return {event["data"]["alert_id"] for event in told}


def test_each_alert_that_was_told_is_there_under_its_id(config: Path, scene: Scene) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    rows = exported(config)
    assert told
    assert {row.alert for row in rows} == {row.scene for row in rows} == ids(told)


def test_its_windows_are_those_that_show_some_of_it(config: Path, scene: Scene) -> None:
    run_edge(config, scene(loud=(8, 9)))
    rows = exported(config)
    assert [(row.start - ns(BEGIN)) // ns(1) for row in rows] == [5, 6, 7, 8]


def test_nobody_has_reviewed_them_yet(config: Path, scene: Scene) -> None:
    run_edge(config, scene(loud=(8, 9)))
    rows = exported(config)
    assert {(row.verdict, row.label, row.truth) for row in rows} == {(None, "gunshot", None)}
    assert [row.answer() for row in rows] == [None] * len(rows)


def test_a_verdict_makes_them_examples(config: Path, scene: Scene) -> None:
    run_edge(config, scene(loud=(8, 9)))
    right = [msgspec.structs.replace(row, verdict=True) for row in exported(config)]
    wrong = [msgspec.structs.replace(row, verdict=False) for row in right]
    for rows, answer in ((right, "gunshot"), (wrong, "")):
        data.write(config.parent / "reviewed.jsonl", rows)
        read = data.read([config.parent / "reviewed.jsonl"])
        assert {(row.answer(), row.weak) for row in read} == {(answer, bool(answer))}
        assert all("sound" in row.tokens().vectors for row in read)


def test_an_alert_of_no_label_that_is_learned_needs_one_to_be_right(
    config: Path, scene: Scene
) -> None:
    run_edge(config, scene(spoken=(4, 6)))
    rows = exported(config)
    assert {row.label for row in rows} == {""}
    path = config.parent / "reviewed.jsonl"
    data.write(path, [msgspec.structs.replace(row, verdict=True) for row in rows])
    with pytest.raises(ConfigError, match=r"reviewed\.jsonl:1: alert .* its label must be one of"):
        data.read([path])


def test_what_a_head_told_is_exported_by_the_same_head(config: Path, scene: Scene) -> None:
    head = tiny_head(config.parent / "head", {"sound": 100}, bias=0)
    text = config.read_text().replace("gunshot: 0.5", "gunshot: 0.99")
    config.write_text(text.replace("{head: rules}", f'{{head: "{head}"}}'))
    told = run_edge(config, scene(loud=(8, 9)))
    assert [event["data"]["rules"] for event in told][-1] == ["learned"]
    assert {row.alert for row in exported(config)} == ids(told)


def test_alerts_of_another_time_are_left_out(config: Path, scene: Scene) -> None:
    run_edge(config, scene(loud=(8, 9)))
    assert exported(config, until="2026-01-05T22:00:05Z") == []
    assert exported(config, since="2026-01-05T22:01:00Z", until="2026-01-05T22:02:00Z") == []


def test_the_command_says_how_many_and_what_to_do(
    config: Path, scene: Scene, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(loud=(8, 9)))
    out, state = config.parent / "windows.jsonl", config.parent / "state"
    words = ["export", str(config), "--since", SINCE, "--state", str(state), "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"4 windows of 1 alerts -> {out}" in said
    assert "set `verdict`" in said
