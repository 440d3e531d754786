"""A graph without some of its models: the rest works, and what is absent counts as no data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.config.model_needs import ENCODERS
from pipeline.config.schema import Models
from pipeline.types import Alert
from tests.graph.conftest import CONFIG, FAKES
from workers.config import loader
from workers.replay.scene_replay import ReplayOptions, replay
from workers.stages.absent_encoders import QUIET
from workers.stages.encoders import Encoders, load_available
from workers.training.feature_extraction import RecordingHead

REPORT = 'reports: [{at: 4, author: guard, text: "help, a ladder"}]\n'
PHRASE = "      - {rule: phrase, phrases: [help me], on: [report, speech]}\n    fusion:"


def without(*models: str) -> Encoders:
    quiet = {name: part for model in models for name, part in QUIET[model].items()}
    return msgspec.structs.replace(FAKES, **quiet)


def alerts(config: Path, scene: Path, encoders: Encoders) -> list[Alert]:
    return list(replay(loader.load(config), scene, encoders).alerts)


def rules(told: list[Alert]) -> set[str]:
    return {rule for alert in told for rule in alert.rules} - {"fusion"}  # several rules together


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((), {"zone-floor", "sound", "keyword", "phrase"}),
        (("sound",), {"zone-floor", "keyword", "phrase"}),
        (("text",), {"zone-floor", "sound", "keyword"}),
        (("speech", "text"), {"zone-floor", "sound", "keyword"}),  # the report has the word
        (("detector", "speech"), {"sound", "keyword", "phrase"}),
        (("detector", "sound", "speech", "text"), {"keyword"}),
    ],
)
def test_what_needs_an_absent_model_is_not_told_and_the_rest_is(
    config: Path, scene: Callable[..., Path], gone: tuple[str, ...], left: set[str]
) -> None:
    text = CONFIG.replace("    fusion:", PHRASE).replace("help me]", '"help, a ladder"]')
    config.write_text(text)
    played = scene(person=(3, 6), loud=(8, 9), spoken=(12, 14), more=REPORT)
    assert rules(alerts(config, played, without(*gone))) == left


@pytest.mark.parametrize("gone", ["sound", "speech", "text"])
def test_a_head_is_asked_as_if_the_modality_had_no_data(
    config: Path, scene: Callable[..., Path], gone: str
) -> None:
    played = scene(person=(3, 6), loud=(8, 9), spoken=(4, 6), more=REPORT)
    notes = {}
    for name, encoders in (("whole", FAKES), ("less", without(gone))):
        notes[name] = RecordingHead()
        study = ReplayOptions(heads={"office": notes[name]})
        replay(loader.load(config), played, encoders, study=study)
    missing = {"sound": {"sound"}, "speech": {"speech"}, "text": {"speech", "report"}}[gone]
    assert {m for _, tokens in notes["less"].asked for m in tokens.vectors} == (
        {"vision", "sound", "speech", "report"} - missing
    )
    for (window, whole), (same, less) in zip(
        notes["whole"].asked, notes["less"].asked, strict=True
    ):
        assert (window.start, window.end) == (same.start, same.end)
        assert set(less.vectors) == set(whole.vectors) - missing
        assert all((less.vectors[m] == whole.vectors[m]).all() for m in less.vectors)


def test_models_that_cannot_be_had_are_named_with_their_reason(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("yolox_nano", "yamnet"):
        (tmp_path / name).symlink_to(weights / name)
    for name in ("faster-whisper-tiny.en", "all-MiniLM-L6-v2-int8"):
        (tmp_path / name).mkdir()  # the operator's folder decides: nothing is downloaded
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(tmp_path))
    encoders, absent = load_available(Models(), recorded=True)
    assert set(absent) == {"speech", "text"}
    assert all("missing" in reason and "\n" not in reason for reason in absent.values())
    assert encoders.text(["help"])[0].tobytes() == b""
    assert len(encoders.sound([np.zeros(32_000, np.float32)])[0]) == 521


def test_every_encoder_has_a_quiet_one() -> None:
    assert sorted(name for quiet in QUIET.values() for name in quiet) == sorted(ENCODERS)
    assert set(ENCODERS) == set(Encoders.__struct_fields__)
