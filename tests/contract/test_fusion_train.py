"""Training: it learns, it can be killed, it gives the same again, and what it ships agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="extra `train` is not installed: NOT tested here")
pytest.importorskip("sklearn", reason="extra `train` is not installed: NOT tested here")
pytest.importorskip("safetensors", reason="extra `train` is not installed: NOT tested here")

import msgspec
import torch

from models.fusion.features import KNOWN, NAMES, SIZES, Tokens, arrays
from models.fusion.labels import LABELS, MODALITIES
from models.fusion.learned_head import SHIPPED_FOLDER, LearnedHead
from models.training import dataset, export_head, fit, rehearsal
from models.training.batches import WindowArrays
from models.training.fit import FitSettings
from models.training.metrics import average_precision
from models.training.networks import NETWORKS
from pipeline.errors import ConfigError, WeightsError
from pipeline.types import Presence
from tests.windows import row, tiny_head, tokens
from workers.cli import main
from workers.training import evaluate, train

QUICK = FitSettings(epochs=15, patience=15, members=2, drop=0.1, swap=0.0, rate=3e-3)


def made(scenes: int, seed: int, split: str = "train") -> list[dataset.WindowRow]:
    """Scenes of ten windows; in windows 4 to 6 of every other one a sound and a report tell."""
    chance = np.random.default_rng(seed)
    return list(_made(scenes, chance, f"{split}{seed}", split))


def _made(
    scenes: int, chance: np.random.Generator, name: str, split: str
) -> Iterator[dataset.WindowRow]:
    for scene in range(scenes):
        label = LABELS[scene // 2 % 2] if scene % 2 else ""
        for second in range(10):
            there = bool(label) and 4 <= second <= 6
            sound = chance.normal(0, 0.005, SIZES["sound"]).astype(np.float32)
            report = chance.normal(0, 0.005, SIZES["report"]).astype(np.float32)
            if there:
                sound[10 + LABELS.index(label)] += 3
                report[20 + LABELS.index(label)] += 1
            yield row(
                f"{name}-{scene}", second, truth=label if there else "", split=split,
                vectors={"sound": sound, "report": report},
            )  # fmt: skip


@pytest.fixture(scope="module")
def learned() -> fit.Trained:
    return fit.fit(WindowArrays(made(24, 1)), WindowArrays(made(12, 2, "val")), QUICK)


def test_both_networks_learn_and_are_small() -> None:
    given, val = WindowArrays(made(24, 1)), WindowArrays(made(12, 2, "val"))
    for kind in NETWORKS:
        got = fit.fit(given, val, msgspec.structs.replace(QUICK, network=kind))
        assert got.ap > 0.9, kind
        assert sum(p.numel() for p in got.network.parameters()) < 1_000_000


def watched(chance: np.random.Generator, count: int, *, known: bool) -> list[dataset.WindowRow]:
    """Windows of vision alone; in every other scene the limbs tell, where poses are known."""
    limbs = NAMES["vision"].index("behaviour.limbs.most")
    rows = []
    for number in range(count):
        vision = chance.normal(0, 0.3, SIZES["vision"]).astype(np.float32)
        vision[KNOWN:] = chance.random(SIZES["vision"] - KNOWN) if known else 0
        vision[KNOWN] = known
        vision[limbs] += 2 * known * (number % 2)
        split = "val" if number % 4 > 1 else "train"
        truth = LABELS[0] if number % 2 else ""
        rows.append(row(f"v{number}", 0, truth=truth, split=split, vectors={"vision": vision}))
    return rows


def test_behaviours_are_learned_and_change_nothing_where_they_are_not_known() -> None:
    rows = watched(np.random.default_rng(5), 400, known=True)
    given, val = (WindowArrays([r for r in rows if r.split == s]) for s in ("train", "val"))
    settings = msgspec.structs.replace(QUICK, modalities="V", poseless=0.3)
    got = fit.fit(given, val, settings)
    assert got.ap > 0.9
    network = got.network
    unknown = {name: values.copy() for name, values in val.inputs.items()}
    unknown["vision"][:, KNOWN:] = 0
    other = {name: values.copy() for name, values in unknown.items()}
    other["vision"][:, KNOWN + 1 :] = 7
    assert np.array_equal(fit.forward(network, unknown)[0], fit.forward(network, other)[0])
    assert not np.array_equal(fit.forward(network, unknown)[0], fit.forward(network, val.inputs)[0])


def test_who_never_sees_behaviours_gives_them_no_weight() -> None:
    rows = watched(np.random.default_rng(5), 200, known=True)
    given, val = (WindowArrays([r for r in rows if r.split == s]) for s in ("train", "val"))
    settings = msgspec.structs.replace(QUICK, modalities="V", poseless=1.0, epochs=2)
    for member in fit.fit(given, val, settings).network.members:
        assert not member.encoders.embeds["behaviours"].weight.any()


def test_it_stays_useful_when_a_modality_is_missing(learned: fit.Trained) -> None:
    test = WindowArrays(made(12, 3, "test"))
    for modalities in ("A", "T"):
        answers = fit.scored(learned, test, modalities)
        assert average_precision(test.anomaly, answers.score) > 0.6, modalities


def test_the_same_seed_gives_the_same_weights() -> None:
    given, val = WindowArrays(made(12, 1)), WindowArrays(made(6, 2, "val"))
    settings = msgspec.structs.replace(QUICK, epochs=2)
    one, two = (fit.fit(given, val, settings).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = fit.fit(given, val, msgspec.structs.replace(settings, seed=2)).network.state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    given, val = WindowArrays(made(12, 1)), WindowArrays(made(6, 2, "val"))
    settings = msgspec.structs.replace(QUICK, epochs=5)
    whole = fit.fit(given, val, settings, folder=tmp_path / "whole")

    def kill(done: int, *_: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit.fit(given, val, settings, folder=tmp_path / "killed", told=kill)
    epochs: list[int] = []
    again = fit.fit(
        given, val, settings, folder=tmp_path / "killed", told=lambda done, *_: epochs.append(done)
    )
    assert epochs == [4, 5]
    one, two = whole.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "killed")]
    assert lines[0] == lines[1]
    assert lines[0].startswith("epoch,loss,val_ap\n1,")


def test_what_training_measures_is_what_the_daemon_would_say(
    learned: fit.Trained, tmp_path: Path
) -> None:
    export_head.write_head(
        tmp_path, learned, name="x", version="1", threshold=0.5, per_hour=1, config="c", about={}
    )
    head = LearnedHead.read(tmp_path)
    windows = WindowArrays(list(worded()))
    said = [head.probabilities(r.tokens())[0] for r in windows.rows]
    assert np.abs(fit.scored(learned, windows).score - said).max() < 0.002


def worded() -> Iterator[dataset.WindowRow]:
    """Each choice of modalities twice: what is missing is silent, or lost."""
    chance = np.random.default_rng(5)
    for number in range(32):
        there = [m for bit, m in enumerate(MODALITIES) if number >> bit & 1]
        vectors = {m: chance.normal(0, 1, SIZES[m]).astype(np.float32) for m in there}
        made = row("words", number, vectors=vectors)
        silent = Presence.SILENT if number >= 16 else Presence.LOST
        states = {m: Presence.PRESENT if m in there else silent for m in MODALITIES}
        yield msgspec.structs.replace(made, states=states)


def test_onnx_and_torch_agree(learned: fit.Trained, tmp_path: Path) -> None:
    export_head.write_head(
        tmp_path, learned, name="x", version="1", threshold=0.5, per_hour=1, config="c", about={}
    )
    head = LearnedHead.read(tmp_path)
    windows = WindowArrays(made(3, 9))
    given = [r.tokens() for r in windows.rows]
    given += [tokens(sound=0.1), tokens(vision=0.2, report=0.1), tokens(speech=0.1)]
    inputs = arrays(given)
    logit, classes = fit.forward(learned.network, inputs)
    score = 1 / (1 + np.exp(-logit / learned.temperature))
    for size in (1, 7, len(given)):
        got, shares = head.scores(given[:size])
        assert np.abs(got - score[:size]).max() < 1e-4
        assert np.abs(shares - classes[:size]).max() < 1e-4
    assert (tmp_path / "head.onnx").stat().st_size < 3_000_000


def test_a_scene_that_shows_something_somewhere_teaches_where() -> None:
    strong = made(24, 1)
    shown = {r.scene for r in strong if r.truth}
    label = {r.scene: r.truth for r in strong if r.truth}
    weak = [
        msgspec.structs.replace(r, truth=label[r.scene], whole=True) if r.scene in shown else r
        for r in strong
    ]
    got = fit.fit(WindowArrays(weak), WindowArrays(made(12, 2, "val")), QUICK)
    test = WindowArrays([r for r in made(12, 3, "test") if r.scene.endswith(("1", "3", "5"))])
    assert average_precision(test.anomaly, fit.scored(got, test).score) > 0.8


def test_a_damaged_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    given, val = WindowArrays(made(6, 1)), WindowArrays(made(6, 2, "val"))
    settings = msgspec.structs.replace(QUICK, epochs=1)
    whole = fit.fit(given, val, settings, folder=tmp_path).network.state_dict()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    again = fit.fit(given, val, settings, folder=tmp_path).network.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_training_with_other_data_does_not_go_on_with_the_old(tmp_path: Path) -> None:
    val, settings = WindowArrays(made(6, 2, "val")), msgspec.structs.replace(QUICK, epochs=2)
    epochs: list[int] = []
    for seed in (1, 3):
        fit.fit(
            WindowArrays(made(6, seed)), val, settings, folder=tmp_path,
            told=lambda done, *_: epochs.append(done),
        )  # fmt: skip
    assert epochs == [1, 2, 1, 2]


def test_a_device_that_is_not_there_is_refused() -> None:
    given, val = WindowArrays(made(6, 1)), WindowArrays(made(6, 2, "val"))
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used"):
        fit.fit(given, val, msgspec.structs.replace(QUICK, device="abacus"))


def test_without_validation_there_is_no_training() -> None:
    with pytest.raises(ConfigError, match="split val: there must be windows"):
        fit.fit(WindowArrays(made(6, 1)), WindowArrays([]), QUICK)


def test_a_training_split_without_anomalies_is_refused() -> None:
    quiet = [r for r in made(6, 1) if not r.truth]
    with pytest.raises(ConfigError, match="split train: there must be windows with an anomaly"):
        fit.fit(WindowArrays(quiet), WindowArrays(made(6, 2, "val")), QUICK)


def test_a_split_without_anomalies_is_refused() -> None:
    quiet = [r for r in made(6, 1) if not r.truth]
    with pytest.raises(ConfigError, match="split val: there must be windows with an anomaly"):
        fit.fit(WindowArrays(made(6, 1)), WindowArrays(quiet), QUICK)


@pytest.fixture
def base(learned: fit.Trained, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    export_head.write_head(
        folder, learned, name="x", version="1", threshold=0.5, per_hour=1, config="c", about={}
    )
    return folder


def reviewed(path: Path, *, verdicts: bool = True) -> Path:
    """Thirty alerts, a third of them false; what was false looks like label 0."""
    rows = []
    for alert in range(30):
        false = alert % 3 == 0
        for r in _made(2, np.random.default_rng(alert), f"alert{alert}", "train"):
            if r.scene.endswith("-1"):
                rows.append(
                    msgspec.structs.replace(
                        r,
                        scene=f"alert{alert}",
                        alert=f"alert{alert}",
                        truth=None,
                        verdict=not false if verdicts else None,
                        label="gunshot",
                    )
                )
    dataset.write(path, rows)
    return path


def test_thirty_reviewed_alerts_train_a_head_on(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    told = train.train(
        [reviewed(tmp_path / "reviewed.jsonl")], out, base=str(base), network="concat", seed=1,
        epochs=3, per_hour=1, device="cpu", name="site",
    )  # fmt: skip
    head = LearnedHead.read(out)
    assert head.version.startswith("site ")
    assert (told["windows"], told["validation"]) == (220, 80)
    assert head.card.about["base"] == f"{base}: x 1"


def test_alerts_that_nobody_reviewed_are_left_out(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    rows = dataset.read([reviewed(path)])
    some = {f"alert{number}" for number in range(10)}
    dataset.write(
        path, [msgspec.structs.replace(r, verdict=r.verdict if r.scene in some else None)
               for r in rows],
    )  # fmt: skip
    told = train.train(
        [path], tmp_path / "out", base=str(base), network="concat", seed=1,
        epochs=1, per_hour=1, device="cpu", name="site",
    )  # fmt: skip
    assert int(str(told["windows"])) + int(str(told["validation"])) == 100


def test_what_was_called_false_is_told_less_and_what_was_right_is_not(
    base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "reviewed.jsonl"
    rows = [
        msgspec.structs.replace(
            r, scene=f"alert{number}", alert=f"alert{number}", truth=None,
            verdict=number % 3 > 0, label=LABELS[0],
        )
        for number in range(30)
        for r in alert_like(LABELS[number % 3 == 0], number)
    ]  # fmt: skip
    dataset.write(path, rows)
    train.train(
        [path], tmp_path / "site", base=str(base),
        network="concat", seed=1, epochs=10, per_hour=1, device="cpu", name="site",
    )  # fmt: skip
    heads = [LearnedHead.read(folder) for folder in (base, tmp_path / "site")]
    for label, falls in ((LABELS[0], False), (LABELS[1], True)):
        new = alert_like(label, 99)[4:7]
        before, after = (
            np.mean([head.probabilities(r.tokens())[0] for r in new]) for head in heads
        )
        assert (after < before - 0.1) == falls, (label, before, after)


def alert_like(label: str, seed: int) -> list[dataset.WindowRow]:
    """Ten windows, of which 4 to 6 show it."""
    made = _made(4, np.random.default_rng(seed), "alert", "train")
    return [r for r in made if r.scene.endswith(f"-{2 * LABELS.index(label) + 1}")]


def test_alerts_that_nobody_reviewed_teach_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="review the alerts first"):
        train.train(
            [reviewed(tmp_path / "new.jsonl", verdicts=False)], tmp_path / "out", base=str(base),
            network="concat", seed=1, epochs=1, per_hour=1, device="cpu", name="site",
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_alerts_of_one_kind_alone_are_refused(base: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "one.jsonl"
    rows = dataset.read([reviewed(path)])
    dataset.write(path, [msgspec.structs.replace(r, verdict=kind == "right") for r in rows])
    with pytest.raises(ConfigError, match=f"one.jsonl: every window is of a {kind} alert"):
        train.train(
            [path], tmp_path / "out", base=str(base), network="concat", seed=1, epochs=1,
            per_hour=1, device="cpu", name="site",
        )  # fmt: skip


@pytest.mark.parametrize("right", [True, False])
def test_alerts_of_one_kind_teach_where_the_base_has_windows_to_rehearse(
    base: Path, tmp_path: Path, right: bool
) -> None:
    kept = [*made(40, 11), *made(20, 12, "val")]
    dataset.write(base / rehearsal.REHEARSAL_FILE, rehearsal.select_windows([kept], seed=1))
    path, out = tmp_path / "one.jsonl", tmp_path / "site"
    rows = [
        msgspec.structs.replace(
            r if right else humming(r), scene=f"alert{number}", alert=f"alert{number}",
            truth=None, verdict=right, label=LABELS[1],
        )
        for number in range(12)
        for r in alert_like(LABELS[1], number)
    ]  # fmt: skip
    dataset.write(path, rows)
    told = train.train(
        [path], out, base=str(base), network="concat", seed=1, epochs=10, per_hour=1,
        device="cpu", name="site",
    )  # fmt: skip
    assert (told["alerts"], told["agrees_before"]) == (12, 12 * right)
    assert told["agrees_after"] == 12
    assert (out / rehearsal.REHEARSAL_FILE).read_bytes() == (
        base / rehearsal.REHEARSAL_FILE
    ).read_bytes()
    head = LearnedHead.read(out)
    for label in LABELS[:2]:  # what nobody has called false is told as before
        assert head.probabilities(alert_like(label, 99)[5].tokens())[0] > 0.5


def humming(given: dataset.WindowRow) -> dataset.WindowRow:
    """With the sound of a machine that is always there when the alert is wrong."""
    seen = given.tokens()
    sound = seen.vectors["sound"].copy()
    sound[100:110] += 3
    return msgspec.structs.replace(
        given, vectors=dataset.packed(Tokens({**seen.vectors, "sound": sound}, seen.states))
    )


def test_a_file_without_a_val_split_is_not_stopped_by_windows_of_elsewhere(
    base: Path, tmp_path: Path
) -> None:
    kept = [*made(40, 11), *made(20, 12, "val")]
    dataset.write(base / rehearsal.REHEARSAL_FILE, rehearsal.select_windows([kept], seed=1))
    dataset.write(tmp_path / "scenes.jsonl", made(6, 3))
    with pytest.raises(ConfigError, match="split val: there must be windows"):
        train.train(
            [tmp_path / "scenes.jsonl"], tmp_path / "out", base=str(base), network="concat",
            seed=1, epochs=1, per_hour=1, device="cpu", name="site",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"seed": -1}, "--seed -1: "),
        ({"seed": 10**20}, f"--seed {10**20}: "),
        ({"per_hour": float("nan")}, "--per-hour nan: "),
        ({"per_hour": -5.0}, "--per-hour -5.0: "),
        ({"device": "meta"}, "device 'meta' cannot be used: it is neither cpu nor cuda"),
    ],
)
def test_options_that_are_none_leave_the_head_that_is_there(
    base: Path, tmp_path: Path, wrong: dict[str, Any], says: str
) -> None:
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    dataset.write(tmp_path / "rows.jsonl", [*made(6, 1), *made(6, 2, "val")])
    given = {"seed": 1, "per_hour": 1.0, "device": "cpu", **wrong}
    with pytest.raises(ConfigError, match=says):
        train.train(
            [tmp_path / "rows.jsonl"], base, base="none", network="concat", epochs=1, name="x",
            **given,
        )  # fmt: skip
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_a_head_is_not_trained_on_in_place(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (base, tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"--out .*: is a file, or the base itself"):
            train.train(
                [reviewed(tmp_path / "rows.jsonl")], out, base=str(base), network="concat",
                seed=1, epochs=1, per_hour=1, device="cpu", name="x",
            )  # fmt: skip


def test_too_few_alerts_are_said_to_be(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = dataset.read([reviewed(tmp_path / "rows.jsonl")])
    dataset.write(tmp_path / "two.jsonl", [r for r in rows if r.scene in ("alert0", "alert1")])
    told = train.train(
        [tmp_path / "two.jsonl"], tmp_path / "out", base=str(base), network="concat", seed=1,
        epochs=1, per_hour=1, device="cpu", name="x",
    )  # fmt: skip
    assert told["windows"] == told["validation"] == 20
    assert "too few alerts to hold some back" in caplog.text


def test_a_head_that_would_be_too_large_leaves_the_one_that_is_there(
    base: Path, learned: fit.Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_head, "MAX_HEAD_BYTES", 1000)
    before = LearnedHead.read(base).version
    with pytest.raises(WeightsError, match=r"the head has [0-9]+ bytes"):
        export_head.write_head(
            base, learned, name="y", version="2", threshold=0.5, per_hour=1, config="c", about={}
        )
    assert LearnedHead.read(base).version == before


def test_a_new_head_stays_as_sure_as_its_base_of_what_that_knew(base: Path, tmp_path: Path) -> None:
    kept = [*made(40, 11), *made(20, 12, "val")]
    dataset.write(base / rehearsal.REHEARSAL_FILE, rehearsal.select_windows([kept], seed=1))
    train.train(
        [reviewed(tmp_path / "reviewed.jsonl")], tmp_path / "site", base=str(base),
        network="concat", seed=1, epochs=10, per_hour=1, device="cpu", name="site",
    )  # fmt: skip
    heads = [LearnedHead.read(folder) for folder in (base, tmp_path / "site")]
    rows = [row for row in rehearsal.read(base) if row.truth == LABELS[1]]
    before, after = (
        np.mean([np.log(1 / max(1e-4, 1 - head.probabilities(r.tokens())[0])) for r in rows])
        for head in heads
    )
    assert after == pytest.approx(before, rel=0.3)
    assert heads[0].card.temperature != heads[1].card.temperature
    assert heads[1].card.per_hour == heads[0].card.per_hour


def test_the_version_of_a_head_tells_what_it_was_trained_on_from(
    base: Path, learned: fit.Trained, tmp_path: Path
) -> None:
    export_head.write_head(
        tmp_path / "other", msgspec.structs.replace(learned, temperature=2.0), name="x",
        version="2", threshold=0.5, per_hour=1, config="c", about={},
    )  # fmt: skip
    file = reviewed(tmp_path / "reviewed.jsonl")
    versions = set()
    for name in ("base", "other"):
        train.train(
            [file], tmp_path / f"on-{name}", base=str(tmp_path / name), network="concat", seed=1,
            epochs=1, per_hour=1, device="cpu", name="site",
        )  # fmt: skip
        versions.add(LearnedHead.read(tmp_path / f"on-{name}").card.version)
    assert len(versions) == 2


def test_windows_of_two_alerts_count_once_and_disputed_ones_not_at_all() -> None:
    def of(alert: str, seconds: range, right: bool) -> list[dataset.WindowRow]:
        return [
            row(alert, s, truth=None, alert=alert, verdict=right, label="siren") for s in seconds
        ]

    rows = [*of("a", range(5), True), *of("b", range(3, 8), True), *of("c", range(7, 10), False)]
    left = train._undisputed(rows)
    assert [(r.alert, r.start // 10**9) for r in left] == [
        *(("a", s) for s in range(5)), ("b", 5), ("b", 6), ("c", 8), ("c", 9),
    ]  # fmt: skip


def test_a_quiet_hour_has_false_alarms_and_no_average_precision(base: Path, tmp_path: Path) -> None:
    quiet = [r for r in made(6, 5, "test") if r.scene.endswith(("0", "2", "4"))]
    dataset.write(tmp_path / "quiet.jsonl", quiet)
    told = evaluate.evaluate([tmp_path / "quiet.jsonl"], str(base), None, None)
    assert (told["ap"], told["auc"], told["event_recall"]) == (None, None, None)
    assert told["false_alarms_per_hour"] == 0
    assert told["split"] == "test"
    words = ["evaluate", str(tmp_path / "quiet.jsonl"), "--head", str(base)]
    assert main([*words, "--report", str(tmp_path / "quiet.html")]) == 0
    assert "All windows are of one class" in (tmp_path / "quiet.html").read_text()
    assert main([*words, "--least", "0.1"]) == 1


def test_what_is_no_input_to_evaluate_is_told(base: Path, tmp_path: Path) -> None:
    for name in ("card.json", "rows.csv"):
        with pytest.raises(ConfigError, match=rf"{name}: is neither a file of windows"):
            evaluate.evaluate([tmp_path / name], str(base), None, None)
    with pytest.raises(ConfigError, match=r"--clips .*none: there is no such folder"):
        evaluate.evaluate_clips(tmp_path / "none", str(base), None)
    with pytest.raises(ConfigError, match=r"--report .*none/r\.html: an .html file in a folder"):
        evaluate.evaluate([tmp_path / "a.jsonl"], str(base), None, tmp_path / "none/r.html")


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no head to train on from"):
        export_head.load_base(tmp_path)


def test_a_base_for_other_features_is_refused_with_what_they_are(base: Path) -> None:
    card = json.loads((base / "card.json").read_text())
    (base / "card.json").write_text(json.dumps({**card, "schema": "0-before"}))
    with pytest.raises(WeightsError, match=r"features 0-before, and this .*fusewatch train"):
        export_head.load_base(base)


def test_the_shipped_head_can_be_trained_on() -> None:
    network, card = export_head.load_base(SHIPPED_FOLDER)
    assert len(network.members) == card.members


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command says that ends with 2."""
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_a_bad_file_stops_a_training_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [*made(2, 1), row("bad", truth="gunshoot")])
    said = refused(capsys, "train", path, "--base", "none", "--out", tmp_path / "out")
    assert f"{path}:21: truth 'gunshoot'" in said
    assert not (tmp_path / "out").exists()


def test_no_epoch_is_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [*made(4, 1), *made(4, 2, "val")])
    words = ("train", path, "--base", "none", "--out", tmp_path / "out", "--epochs", 0)
    assert "--epochs 0: a head learns nothing" in refused(capsys, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "holds no window"),
        ([row(), row()], ":2: this window of scene 'one' is in"),
    ],
    ids=["none", "twice"],
)
def test_what_cannot_be_measured_is_told_in_a_line(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dataset.WindowRow],
    says: str,
) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, rows)
    said = refused(capsys, "evaluate", path, "--head", base)
    assert str(path) in said
    assert says in said


def test_a_figure_of_nothing_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, head = tmp_path / "rows.jsonl", tiny_head(tmp_path / "deaf", {})
    dataset.write(path, [row(second=at, truth="siren" if at > 5 else "") for at in range(9)])
    assert main(["evaluate", str(path), "--head", str(head), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["event_recall"], told["detect_median_s"]) == (0, None)


def test_the_commands_train_and_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    dataset.write(rows, [*made(16, 1), *made(8, 2, "val")])
    out = tmp_path / "head"
    assert main(["train", str(rows), "--base", "none", "--epochs", "12", "--out", str(out),
                 "--json"]) == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["validation_ap"] > 0.8
    test = tmp_path / "test.jsonl"
    dataset.write(test, made(10, 3, "test"))
    page = tmp_path / "report.html"
    words = ["evaluate", str(test), "--head", str(out), "--json"]
    assert main([*words, "--report", str(page)]) == 0
    assert json.loads(capsys.readouterr().out)["ap"] > 0.7
    assert "<svg" in page.read_text()
    assert main([*words, "--least", "1.1"]) == 1
    capsys.readouterr()
    test.write_text('{"format": 1}\n')
    assert main(words) == 2
    assert f"{test}:1: " in capsys.readouterr().err
