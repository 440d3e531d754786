"""The text encoder: what means the same points the same way, and no text breaks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.language.text import TEXT_SIZE, Embedding, TextEncoder, packed
from pipeline.errors import ConfigError, WeightsError
from pipeline.types import FOREVER, Described, Progress, Record, Report, Roster, ns
from workers.stages.text import TextStage


@pytest.fixture(scope="module")
def encoder(weights: Path) -> TextEncoder:
    return TextEncoder(weights / "all-MiniLM-L6-v2-int8", threads=1)


def cosine(one: Embedding, other: Embedding) -> float:
    """How alike two directions are, -1 to 1, rounded to 1e-3."""
    return round(float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other)), 3)


def test_meaning_is_near_meaning(encoder: TextEncoder) -> None:
    gun, armed, weather = encoder(["he has a gun", "the man is armed", "lovely weather today"])
    assert cosine(gun, armed) > 0.5
    assert cosine(gun, weather) < 0.2


def test_a_vector_is_float32_of_length_one(encoder: TextEncoder) -> None:
    for found in encoder(["a man is walking around the desk", "", " ", "x" * 1_000_000]):
        assert found.dtype == np.float32
        assert found.shape == (TEXT_SIZE,)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_neighbours_in_a_batch_change_nothing(encoder: TextEncoder) -> None:
    (alone,) = encoder(["help"])
    assert np.array_equal(encoder(["a much longer text than the other " * 9, "help"])[1], alone)
    assert encoder([]) == []


def test_a_text_is_cut_at_256_tokens(encoder: TextEncoder) -> None:
    whole, cut = encoder(["word " * 200_000, "word " * 254])  # and the two marks at the ends
    assert np.array_equal(whole, cut)


@pytest.mark.parametrize(
    "text", ["\ud800", "\x00", "\u202e\u0645\u0631\u062d\u0628\u0627", "🔫" * 500]
)
def test_any_text_is_text(encoder: TextEncoder, text: str) -> None:
    assert np.isfinite(encoder([text])[0]).all()


def test_a_record_carries_float16(encoder: TextEncoder) -> None:
    (found,) = encoder(["somebody is at the door"])
    assert len(packed(found)) == 2 * TEXT_SIZE
    assert cosine(np.frombuffer(packed(found), "<f2").astype(np.float32), found) == 1.0


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.onnx, tokenizer\.json not found"):
        TextEncoder(tmp_path)
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="not a sentence encoder"):
        TextEncoder(tmp_path)


def test_an_unknown_provider_is_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="'abacus' is not known"):
        TextEncoder(weights / "all-MiniLM-L6-v2-int8", providers=("abacus",))


def test_reports_of_a_poll_are_described_and_promises_pass(encoder: TextEncoder) -> None:
    batch: list[Record] = [
        Report(site="a", source="reports", start=ns(1), end=ns(2), author="guard-1", text="help"),
        Progress(site="a", source="reports", upto=ns(3)),
        Report(site="b", source="reports", start=ns(2), end=ns(3), author="", text=""),
        Roster(site="b", source="reports", sources=("reports",), start=0),
    ]
    stage = TextStage(encoder)
    state = stage.open({})
    help_, empty = encoder(["help", ""])
    one, two, three, four = zip(batch, stage.infer(batch), strict=True)
    assert state.on(*one) == [
        Described(
            site="a",
            source="reports",
            start=ns(1),
            end=ns(2),
            author="guard-1",
            text="help",
            embedding=packed(help_),
        )
    ]
    assert state.on(*two) == [batch[1]]
    (described,) = state.on(*three)
    assert isinstance(described, Described)
    assert described.embedding == packed(empty)
    assert state.on(*four) == [batch[3]]
    assert state.floor("a") == FOREVER


def test_a_poll_without_reports_needs_no_model() -> None:
    def never(batch: object) -> list[object]:
        pytest.fail("the encoder was asked")

    assert TextStage(never).infer([Progress(site="a", source="reports", upto=1)]) == [None]
