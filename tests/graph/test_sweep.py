"""`fusewatch sweep`: settings on what was observed, each as `replay` judges it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.training import dataset
from pipeline.config.schema import Config
from tests.graph.conftest import FAKES, run_edge
from tests.windows import row
from workers.cli import main
from workers.config import loader
from workers.replay.inputs import Given
from workers.stages.encoders import Encoders
from workers.tuning.sweep import Swept, sweep

ROOT = Path(__file__).resolve().parents[2]
BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s
GUN = "sites.office.rules.sound.labels.gunshot"
FLOOR = "sites.office.rules.zone-floor.min_score"


@pytest.fixture
def observed(config: Path, scene: Callable[..., Path]) -> Path:
    """A log with a person for three seconds, and a shot later."""
    run_edge(config, scene(person=(2, 5), loud=(17, 18)))
    return config


class Models:
    """The models of scenes; they are fakes here."""

    asked = 0

    def for_scenes(self, settings: Config) -> Encoders:
        self.asked += 1
        return FAKES


def given(config: Path) -> Given:
    return Given(since="2026-01-05T22:00:00Z", state=config.parent / "state")


def run(config: Path, *options: str, **more: Any) -> Swept:
    return sweep(config, given(config), options, processes=1, **more)


def verdicts(folder: Path, **right: bool | None) -> Path:
    """A reviewed file: the alert of a label, at its time, and what a person said of it."""
    at = {"intrusion": 2, "gunshot": 16}
    rows = [
        row(
            f"{n}" * 16, BEGIN + at[label], truth=None, alert=f"{n}" * 16, label=label, verdict=said
        )
        for n, (label, said) in enumerate(right.items())
    ]
    path = folder / "reviewed.jsonl"
    dataset.write(path, rows)
    return path


def test_each_setting_gives_what_replay_gives_by_it(
    observed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = (0.5, 0.95)
    swept = run(observed, f"{GUN}={','.join(map(str, values))}", f"{FLOOR}=0,0.95")
    counts = {tuple(each.values.values()): each.outcome.incidents for each in swept.tried}
    rules = observed.read_text()
    for gun in values:
        for floor in (0, 0.95):
            changed = rules.replace("gunshot: 0.5", f"gunshot: {gun}")
            observed.write_text(
                changed.replace("zone: floor,", f"zone: floor, min_score: {floor},")
            )
            out = observed.parent / "out.jsonl"
            words = ["replay", str(observed), "--since", "2026-01-05T22:00:00Z", "--out", str(out)]
            assert main([*words, "--state", str(observed.parent / "state"), "--json"]) == 0
            found = json.loads(capsys.readouterr().out)
            assert counts[gun, floor] == found["incidents"]
    assert sorted(counts.values()) == [0, 1, 1, 2]
    assert [each.as_now for each in swept.tried] == [True, False, False, False]


def test_verdicts_say_what_is_right_and_wrong(observed: Path) -> None:
    reviewed = verdicts(observed.parent, intrusion=False, gunshot=True)
    swept = run(observed, f"{FLOOR}=0,0.95", verdicts=reviewed)
    assert [(e.outcome.recall, e.outcome.false, e.unbeaten) for e in swept.tried] == [
        (1.0, 1, False),
        (1.0, 0, True),
    ]
    unknown = run(observed, f"{FLOOR}=0", verdicts=verdicts(observed.parent, gunshot=True))
    assert unknown.tried[0].outcome.unreviewed == 1


def test_without_truth_the_incidents_are_counted(
    observed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", str(observed), "--since", "2026-01-05T22:00:00Z"]
    words += ["--state", str(observed.parent / "state"), "--set", f"{GUN}=0.5,0.95"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "sound.labels.gunshot",
        "recall",
        "false/h",
        "alert",
        "after",
        "incidents",
    ]
    assert lines[1].split() == ["0.5", "-", "-", "-", "2", "as", "now"]
    assert lines[2].split() == ["0.95", "-", "-", "-", "1"]
    assert "no truth is known" in lines[-1]
    picture = observed.parent / "trade.svg"
    assert main([*words, "--picture", str(picture)]) == 2
    assert "the inputs have no truth" in capsys.readouterr().err


def test_the_command_names_what_no_other_beats_and_draws_it(
    observed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewed = verdicts(observed.parent, intrusion=False, gunshot=True)
    picture = observed.parent / "trade.svg"
    words = ["sweep", str(observed), "--since", "2026-01-05T22:00:00Z", "--set", f"{FLOOR}=0,0.95"]
    words += ["--state", str(observed.parent / "state"), "--verdicts", str(reviewed)]
    assert main([*words, "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "no other setting beats:"
    assert lines[-1].startswith("  zone-floor.min_score=0.95: 1 of 1 events, 0.00 false alerts an")
    assert picture.read_text().startswith("<svg ")
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["unbeaten"] for each in told["tried"]] == [False, True]
    assert told["tried"][1]["values"] == {FLOOR: 0.95}
    assert told["cases"][0]["truth"]["wrong"]


def test_a_scene_is_seen_and_heard_once_and_judged_by_its_truth(
    config: Path, scene: Callable[..., Path]
) -> None:
    more = "truth:\n  - {start: 17, end: 18, label: gunshot}\n"
    path = scene(person=(2, 5), loud=(17, 18), more=more)
    models = Models()
    options = [f"{FLOOR}=0,0.95", f"{GUN}=0.5,0.95"]
    swept = sweep(config, Given(paths=[path]), options, processes=1, models=models)
    assert models.asked == 1
    assert [(e.outcome.recall, e.outcome.false) for e in swept.tried] == [
        (1.0, 1),
        (0.0, 1),
        (1.0, 0),
        (0.0, 0),
    ]
    assert [each.unbeaten for each in swept.tried] == [False, False, True, False]
    assert swept.cases[0].length == 20 * 10**9
    assert swept.tried[0].outcome.alert_after_s is not None


def test_a_selection_judges_less(observed: Path) -> None:
    of = Given(since="2026-01-05T22:00:00Z", state=observed.parent / "state", sources=["room"])
    (one,) = sweep(observed, of, [f"{GUN}=0.5"], processes=1).tried
    assert one.outcome.incidents == 1
    span = Given(
        since="2026-01-05T22:00:10Z", until="2026-01-05T22:00:30Z", state=observed.parent / "state"
    )
    (late,) = sweep(observed, span, [f"{GUN}=0.5"], processes=1).tried
    assert late.outcome.incidents == 1


def test_wrong_use_says_what_to_do(
    observed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["sweep", str(observed), "--state", str(observed.parent / "state")]
    since, option = ["--since", "2026-01-05T22:00:00Z"], ["--set", f"{GUN}=0.5"]
    none = verdicts(tmp_path, gunshot=None)
    for words, wanted in (
        ([*base, *since], "missing option '--set'"),
        ([*base, *since, "--set", f"{GUN}=2"], f"--set {GUN}=2: sites.office.rules[1].labels"),
        ([*base, *option], "name files, or --since TIME"),
        ([*base, *since, *option, "--picture", "x.png"], "--picture x.png: an .svg file, please"),
        ([*base, *since, *option, "--picture", "no/x.svg"], "a file in a folder that exists"),
        ([*base, *since, *option, "--verdicts", str(none)], "no alert is reviewed"),
        (
            [*base, "--since", "2026-01-04T00:00:00Z", "--until", "2026-01-04T01:00:00Z", *option],
            "nothing that was observed then is stored",
        ),
    ):
        assert main(words) == 2, wanted
        assert wanted in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_the_demo_scene_has_a_setting_that_no_other_beats(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = ROOT / "workers/demo/scene"
    words = ["sweep", str(folder / "site.yaml"), str(folder / "scene.yaml"), "--json"]
    assert main([*words, "--set", f"{FLOOR}=0.3,0.99"]) == 0
    low, high = json.loads(capsys.readouterr().out)["tried"]
    assert low["outcome"]["recall"] == 1.0
    assert low["outcome"]["recall"] >= high["outcome"]["recall"]
    assert low["unbeaten"]


def test_a_head_that_cannot_be_used_ends_with_a_clear_line(
    observed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", str(observed), "--since", "2026-01-05T22:00:00Z"]
    words += ["--state", str(observed.parent / "state")]
    assert main([*words, "--set", "sites.office.fusion.head=rules,/no/head"]) == 3
    assert "/no/head" in capsys.readouterr().err


def test_the_settings_of_a_config_do_not_change_by_a_sweep(observed: Path) -> None:
    before = observed.read_bytes(), loader.load(observed)
    run(observed, f"{GUN}=0.5,0.95")
    assert (observed.read_bytes(), loader.load(observed)) == before
