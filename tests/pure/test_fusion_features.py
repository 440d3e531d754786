"""What a head sees of a window: each number is what its name says, and absence is told apart."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.fusion import features
from models.fusion.features import NAMES, SIZES, Question
from models.fusion.question import Object, Sight, newest
from pipeline.rules import Finding
from pipeline.types import SECOND, Observation, Presence, ns
from tests import make
from tests.windows import ALL_THERE, window

SCORES = np.linspace(0, 1, 521).astype("<f2").tobytes()
WORDS = np.eye(1, 384, dtype="<f2").tobytes()


def asked(*observations: Observation, **more: object) -> Question:
    return Question(window(*observations), **{"findings": (), **more})  # type: ignore[arg-type]


def numbers(question: Question, modality: str) -> dict[str, float]:
    vector = features.tokens(question).vectors[modality]
    return dict(zip(NAMES[modality], vector.tolist(), strict=True))


def second(at: float, **given: object) -> Observation:
    made = msgspec.structs.replace(make.sound(at), embedding=SCORES)
    return msgspec.structs.replace(made, **{"loudness_db": -20.0, **given})  # type: ignore[arg-type]


def seen(at: float, **given: object) -> Observation:
    return msgspec.structs.replace(make.detections(at), **given)


def test_a_window_of_nothing_has_no_vectors_and_says_who_could_have_spoken() -> None:
    made = features.tokens(asked())
    assert made.vectors == {}
    assert made.states == {
        "vision": Presence.LOST,
        "sound": Presence.LOST,
        "speech": Presence.SILENT,
        "report": Presence.SILENT,
    }


def test_a_dead_microphone_is_no_silent_one() -> None:
    presence = {**ALL_THERE, "room/speech": Presence.LOST}
    made = features.tokens(Question(window(presence=presence), ()))
    assert made.states["speech"] is Presence.LOST
    assert made.states["report"] is Presence.SILENT


def test_every_vector_is_as_long_as_its_names_and_fits_float16() -> None:
    made = features.tokens(
        asked(
            seen(0),
            second(0),
            msgspec.structs.replace(make.utterance(1, 2), embedding=WORDS),
            msgspec.structs.replace(make.described(1), embedding=WORDS),
        )
    )
    assert {m: len(v) for m, v in made.vectors.items()} == dict(SIZES)
    for vector in made.vectors.values():
        assert (vector == vector.astype(np.float16)).all()
        assert np.isfinite(vector).all()


@pytest.mark.parametrize(
    "embedding",
    [b"", b"\0" * 10, np.full(521, np.nan, "<f2").tobytes()],
    ids=["none", "short", "nan"],
)
def test_an_embedding_that_is_none_counts_as_nothing(embedding: bytes) -> None:
    made = features.tokens(asked(second(0, embedding=embedding)))
    assert "sound" not in made.vectors


def test_counts_speeds_and_zones_are_those_of_the_frames() -> None:
    walker = Object(group="person", speed=1.0, area=0.1, in_zone=True, still=False)
    parked = Object(group="vehicle", speed=0.0, area=0.2, in_zone=False, still=True)
    sights = (
        Sight(source="desk", start=0, end=SECOND // 5, objects=(walker, walker, parked)),
        Sight(source="desk", start=SECOND // 5, end=SECOND, objects=()),
    )
    got = numbers(asked(seen(0), seen(0.2), sights=sights), "vision")
    assert got["most.person"] == pytest.approx(np.log1p(2), abs=1e-3)
    assert got["mean.person"] == pytest.approx(np.log1p(1), abs=1e-3)
    assert got["most.vehicle"] == pytest.approx(np.log1p(1), abs=1e-3)
    assert got["speed.most"] == pytest.approx(np.log1p(1), abs=1e-3)
    assert got["motion"] == pytest.approx(np.log1p(10), abs=1e-2)
    assert got["zone.most"] == pytest.approx(np.log1p(2), abs=1e-3)
    assert got["still.share"] == pytest.approx(1 / 3, abs=1e-3)
    assert got["forbidden.most"] == 0


def test_what_a_rule_forbids_is_seen_and_for_how_long() -> None:
    forbidden = Finding(
        rule="zone", label="intrusion", severity="high", modality="vision", source="desk",
        start=ns(1), end=ns(1.2), score=0.9, sure=True,
    )  # fmt: skip
    got = numbers(asked(seen(0), findings=(forbidden,)), "vision")
    assert got["forbidden.most"] == pytest.approx(0.9, abs=1e-3)
    assert got["forbidden.share"] == 0.25


def test_quality_is_measured_or_said_to_be_not() -> None:
    got = numbers(asked(seen(0, luma=0.5, sharpness=2.0), seen(1, luma=0.1, sharpness=1.0),
                        ), "vision")  # fmt: skip
    assert got["luma.mean"] == pytest.approx(0.3, abs=1e-3)
    assert got["luma.least"] == pytest.approx(0.1, abs=1e-3)
    assert got["sharpness.mean"] == 1.5
    assert numbers(asked(seen(0)), "vision")["luma.least"] == -1


def test_loudness_and_its_onset_are_of_the_seconds() -> None:
    got = numbers(asked(second(0, loudness_db=-50.0), second(1, loudness_db=-20.0, clipped=0.1),
                        ), "sound")  # fmt: skip
    assert got["onset"] == 1
    assert got["loudness.most"] == pytest.approx(-20 / 60, abs=1e-3)
    assert got["clipped"] == pytest.approx(0.1, abs=1e-3)
    assert got["yamnet.520"] > got["yamnet.0"]


def test_a_second_that_is_all_but_silent_says_nothing_of_classes() -> None:
    got = numbers(asked(second(0, loudness_db=-90.0)), "sound")
    assert len({got[f"yamnet.{i}"] for i in range(521)}) == 1


def test_the_order_of_observations_changes_nothing() -> None:
    parts = [seen(0), seen(0.2), second(0), second(1, loudness_db=-30.0)]
    one = features.tokens(asked(*parts))
    other = features.tokens(asked(*sorted(parts, key=lambda o: o.start)))
    assert all((one.vectors[m] == other.vectors[m]).all() for m in one.vectors)


def test_the_newest_hop_is_what_ends_in_it() -> None:
    part = newest(asked(seen(0), seen(3.5), second(2), second(3)), SECOND)
    assert [o.start for o in part.window.observations] == [ns(3.5), ns(3)]
    assert (part.window.start, part.window.end) == (ns(3), ns(4))


def test_a_network_is_told_what_is_there() -> None:
    made = features.tokens(asked(second(0)))
    inputs = features.arrays([made, made.without("sound")])
    assert inputs["sound"][0].any()
    assert not inputs["sound"][1].any()
    assert inputs["state"][0].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert inputs["state"][1, 1].tolist() == [0, 0, 1]
