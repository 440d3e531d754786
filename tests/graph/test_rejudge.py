"""What was observed, judged again, gives what was told; other rules give what they would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import topics
from pipeline.bus.log_search import between
from pipeline.errors import OutsideError
from pipeline.types import ns
from tests.graph.conftest import FAKES, run_edge
from workers.cli import main
from workers.config import loader
from workers.delivery.cloudevent import event
from workers.replay.observation_replay import rejudge, span

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s


def judged(config: Path, since: float, until: float) -> list[dict[str, Any]]:
    settings = loader.load(config)
    start, end = ns(BEGIN + since), ns(BEGIN + until)
    folder = config.parent / "state" / "log"
    entries = between(folder, topics.OBSERVATIONS, *span(settings, start, end))
    alerts = rejudge(settings, FAKES, entries, start, end).alerts
    return [json.loads(json.dumps(event(alert))) for alert in alerts]


def test_what_was_observed_is_judged_as_it_was(config: Path, scene: Callable[..., Path]) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    assert told
    assert judged(config, 0, 20) == told


def test_only_incidents_of_the_span_are_given(config: Path, scene: Callable[..., Path]) -> None:
    told = run_edge(config, scene(person=(3, 5)))
    assert told
    assert judged(config, 4, 20) == told
    assert judged(config, 0, 3) == []
    assert judged(config, 60, 90) == []


def test_other_rules_say_what_they_would_have_said(
    config: Path, scene: Callable[..., Path]
) -> None:
    assert run_edge(config, scene(loud=(8, 9)))
    config.write_text(config.read_text().replace("gunshot: 0.5", "gunshot: 0.999"))
    assert judged(config, 0, 20) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "yesterday"], "a time like 2026-01-05T22:00:00Z"),
        (["--since", "2026-01-05T22:00:00"], "a time like 2026-01-05T22:00:00Z"),
        (
            ["--since", "2026-01-05T22:00:00Z", "--until", "2026-01-05T21:00:00Z"],
            "is not before",
        ),
    ],
)
def test_a_wrong_span_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    out = str(config.parent / "out.jsonl")
    assert main(["replay", str(config), *options, "--out", out]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_a_log_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"observations\.v1\.db cannot be read"):
        list(between(tmp_path / "nowhere", topics.OBSERVATIONS, 0, 1))


@pytest.mark.parametrize("given", [[], ["scene.yaml", "--since", "2026-01-05T22:00:00Z"]])
def test_scenes_and_a_span_exclude_each_other(
    config: Path, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert main(["replay", str(config), *given, "--out", "x"]) == 2
    assert "either scenes, or --since TIME" in capsys.readouterr().err


def test_a_span_before_now_is_a_time_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", str(config), "--since", "10m", "--out", str(config.parent / "out.jsonl")]
    assert main([*words, "--until", "20m"]) == 2
    assert "--since 10m is not before --until 20m" in capsys.readouterr().err
