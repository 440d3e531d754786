"""Training: it learns, it can be killed, it gives the same again, and what it ships agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train")
pytest.importorskip("sklearn", reason="the extra train")
pytest.importorskip("safetensors", reason="the extra train")

import msgspec
import torch

from models.fusion import data, train
from models.fusion.features import SIZES
from models.fusion.labels import LABELS
from models.fusion.learned import Learned
from models.fusion.metrics import average_precision
from models.fusion.nets import NETWORKS
from models.fusion.train import Settings, Windows
from pipeline.errors import ConfigError, WeightsError
from tests.windows import row, tokens
from workers import learning
from workers.cli import main

QUICK = Settings(epochs=15, patience=15, members=2, drop=0.1, swap=0.0, rate=3e-3)


def made(scenes: int, seed: int, split: str = "train") -> list[data.Row]:
    """Scenes of ten windows; in windows 4 to 6 of every other one a sound and a report tell."""
    chance = np.random.default_rng(seed)
    return list(_made(scenes, chance, f"{split}{seed}", split))


def _made(scenes: int, chance: np.random.Generator, name: str, split: str) -> Iterator[data.Row]:
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
def learned() -> train.Trained:
    return train.fit(Windows(made(24, 1)), Windows(made(12, 2, "val")), QUICK)


def test_both_networks_learn_and_are_small() -> None:
    given, val = Windows(made(24, 1)), Windows(made(12, 2, "val"))
    for kind in NETWORKS:
        got = train.fit(given, val, msgspec.structs.replace(QUICK, network=kind))
        assert got.ap > 0.9, kind
        assert sum(p.numel() for p in got.network.parameters()) < 1_000_000


def test_it_stays_useful_when_a_modality_is_missing(learned: train.Trained) -> None:
    test = Windows(made(12, 3, "test"))
    for modalities in ("A", "T"):
        answers = train.scored(learned, test, modalities)
        assert average_precision(test.anomaly, answers.score) > 0.6, modalities


def test_the_same_seed_gives_the_same_weights() -> None:
    given, val = Windows(made(12, 1)), Windows(made(6, 2, "val"))
    settings = msgspec.structs.replace(QUICK, epochs=2)
    one, two = (train.fit(given, val, settings).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = train.fit(given, val, msgspec.structs.replace(settings, seed=2)).network.state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    given, val = Windows(made(12, 1)), Windows(made(6, 2, "val"))
    settings = msgspec.structs.replace(QUICK, epochs=5)
    whole = train.fit(given, val, settings, folder=tmp_path / "whole")

    def kill(done: int, *_: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(given, val, settings, folder=tmp_path / "killed", told=kill)
    epochs: list[int] = []
    again = train.fit(
        given, val, settings, folder=tmp_path / "killed", told=lambda done, *_: epochs.append(done)
    )
    assert epochs == [4, 5]
    one, two = whole.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "killed")]
    assert lines[0] == lines[1]
    assert lines[0].startswith("epoch,loss,val_ap\n1,")


def test_onnx_and_torch_agree(learned: train.Trained, tmp_path: Path) -> None:
    train.ship(
        tmp_path, learned, name="x", version="1", threshold=0.5, per_hour=1, config="c", about={}
    )
    head = Learned.read(tmp_path)
    windows = Windows(made(3, 9))
    given = [r.tokens() for r in windows.rows]
    given += [tokens(sound=0.1), tokens(vision=0.2, report=0.1), tokens(speech=0.1)]
    inputs = train.arrays(given)
    logit, classes = train.forward(learned.network, inputs)
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
    got = train.fit(Windows(weak), Windows(made(12, 2, "val")), QUICK)
    test = Windows([r for r in made(12, 3, "test") if r.scene.endswith(("1", "3", "5"))])
    assert average_precision(test.anomaly, train.scored(got, test).score) > 0.8


def test_a_split_without_anomalies_is_refused() -> None:
    quiet = [r for r in made(6, 1) if not r.truth]
    with pytest.raises(ConfigError, match="split val: there must be windows with an anomaly"):
        train.fit(Windows(made(6, 1)), Windows(quiet), QUICK)


@pytest.fixture
def base(learned: train.Trained, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    train.ship(
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
    data.write(path, rows)
    return path


def test_thirty_reviewed_alerts_train_a_head_on(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    told = learning.train(
        [reviewed(tmp_path / "reviewed.jsonl")], out, base=str(base), network="concat", seed=1,
        epochs=3, per_hour=1, device="cpu", name="site",
    )  # fmt: skip
    head = Learned.read(out)
    assert head.version.startswith("site ")
    assert told["windows"] == 300 or int(str(told["windows"])) > 200
    assert head.card.about["base"] == str(base)


def test_alerts_that_nobody_reviewed_teach_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="review the alerts first"):
        learning.train(
            [reviewed(tmp_path / "new.jsonl", verdicts=False)], tmp_path / "out", base=str(base),
            network="concat", seed=1, epochs=1, per_hour=1, device="cpu", name="site",
        )  # fmt: skip


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no head to train on from"):
        train.base_of(tmp_path)


def test_the_commands_train_and_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    data.write(rows, [*made(16, 1), *made(8, 2, "val")])
    out = tmp_path / "head"
    assert main(["train", str(rows), "--base", "none", "--epochs", "30", "--out", str(out),
                 "--json"]) == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["validation_ap"] > 0.8
    test = tmp_path / "test.jsonl"
    data.write(test, made(10, 3, "test"))
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
