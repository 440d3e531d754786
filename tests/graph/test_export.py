"""What was told, as windows to review: the alerts of the daemon, and nothing that nobody said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from models.training import dataset
from pipeline.errors import ConfigError
from pipeline.types import ns
from tests.graph.conftest import FAKES, run_edge
from tests.windows import tiny_head
from workers.cli import main
from workers.training import datasets

SINCE, BEGIN = "2026-01-05T22:00:00Z", 1_767_650_400  # the same, s
Scene = Callable[..., Path]


def exported(
    config: Path, *, since: str = SINCE, until: str | None = None
) -> list[dataset.WindowRow]:
    out = config.parent / "windows.jsonl"
    datasets.export(config, since, until, out, config.parent / "state", encoders=FAKES)
    return dataset.read([out]) if out.exists() else []


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
        dataset.write(config.parent / "reviewed.jsonl", rows)
        read = dataset.read([config.parent / "reviewed.jsonl"])
        assert {(row.answer(), row.weak) for row in read} == {(answer, bool(answer))}
        assert all("sound" in row.tokens().vectors for row in read)


def test_an_alert_of_no_label_that_is_learned_needs_one_to_be_right(
    config: Path, scene: Scene
) -> None:
    run_edge(config, scene(spoken=(4, 6)))
    rows = exported(config)
    assert {row.label for row in rows} == {""}
    path = config.parent / "reviewed.jsonl"
    dataset.write(path, [msgspec.structs.replace(row, verdict=True) for row in rows])
    with pytest.raises(ConfigError, match=r"reviewed\.jsonl:1: alert .* its label must be one of"):
        dataset.read([path])


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
    assert f"fusewatch review {out}" in said
    assert main(["review", str(out), "--all", "--wrong"]) == 0
    assert main(words) == 2, "what a person has said is not written over"
    assert "holds verdicts on 1 alerts" in capsys.readouterr().err
    assert {row.verdict for row in dataset.read([out])} == {False}
    words[3] = "2026-02-05T22:00:00Z"
    words[-1] = str(config.parent / "none.jsonl")
    assert main(words) == 1
    assert "nothing that was observed then is an alert" in capsys.readouterr().out
    assert not Path(words[-1]).exists()


def test_each_window_has_the_label_of_what_was_found_in_it(config: Path, scene: Scene) -> None:
    told = run_edge(config, scene(person=(2, 12), loud=(8, 9)))
    assert len(ids(told)) == 1
    labels = {(row.start - ns(BEGIN)) // ns(1): row.label for row in exported(config)}
    assert {second for second, label in labels.items() if label == "gunshot"} == {5, 6, 7, 8}
    assert {labels[2], labels[10]} == {"intrusion"}


@pytest.mark.parametrize("out", ["folder", "office.yaml/windows.jsonl", "office.yaml"])
def test_where_it_cannot_or_must_not_write_is_told_first(
    config: Path, scene: Scene, out: str
) -> None:
    run_edge(config, scene(loud=(8, 9)))
    (config.parent / "folder").mkdir()
    before = config.read_bytes()
    with pytest.raises(ConfigError, match=f"--out .*{out}: "):
        datasets.export(
            config, SINCE, None, config.parent / out, config.parent / "state", encoders=FAKES
        )
    assert config.read_bytes() == before


def test_the_folder_of_the_file_is_made(config: Path, scene: Scene) -> None:
    run_edge(config, scene(loud=(8, 9)))
    out = config.parent / "new/folder/windows.jsonl"
    datasets.export(config, SINCE, None, out, config.parent / "state", encoders=FAKES)
    assert dataset.read([out])
