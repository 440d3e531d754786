"""What a head sees of a window: each number is what its name says, and absence is told apart."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from models.fusion import features
from models.fusion.behaviour_features import BEHAVIOURS
from models.fusion.features import NAMES, SIZES, HeadQuery
from models.fusion.query import FrameSummary, Object, newest
from pipeline.behaviour.evidence import Evidence
from pipeline.judge.align import Aligner
from pipeline.judge.rules import RuleFinding, TrackedFrame
from pipeline.tracking.track import Point, Track
from pipeline.types import SECOND, Box, Observation, Presence, Record, Window, ns
from pipeline.zones import Polygon
from tests import make
from tests.windows import ALL_THERE, window

SCORES = np.linspace(0, 1, 521).astype("<f2").tobytes()
WORDS = np.eye(1, 384, dtype="<f2").tobytes()


def asked(*observations: Observation, **more: object) -> HeadQuery:
    return HeadQuery(window(*observations), **{"findings": (), **more})  # type: ignore[arg-type]


def numbers(question: HeadQuery, modality: str) -> dict[str, float]:
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
    made = features.tokens(HeadQuery(window(presence=presence), ()))
    assert made.states["speech"] is Presence.LOST
    assert made.states["report"] is Presence.SILENT


def test_where_nobody_could_have_spoken_everything_is_lost() -> None:
    made = features.tokens(HeadQuery(window(presence={}), ()))
    assert set(made.states.values()) == {Presence.LOST}


def test_reports_that_cannot_come_are_lost() -> None:
    presence = {**ALL_THERE, "reports": Presence.LOST}
    made = features.tokens(HeadQuery(window(presence=presence), ()))
    assert made.states["report"] is Presence.LOST
    assert made.states["speech"] is Presence.SILENT


def test_one_of_two_microphones_is_enough_to_have_listened() -> None:
    presence = {**ALL_THERE, "room/speech": Presence.LOST, "yard/speech": Presence.SILENT}
    made = features.tokens(HeadQuery(window(presence=presence), ()))
    assert made.states["speech"] is Presence.SILENT


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


@pytest.mark.parametrize(
    "embedding",
    [b"", b"\0" * 10, np.full(384, np.nan, "<f2").tobytes(), np.full(384, np.inf, "<f2").tobytes()],
    ids=["none", "short", "nan", "inf"],
)
def test_words_without_a_meaning_are_as_if_nobody_had_spoken(embedding: bytes) -> None:
    said = msgspec.structs.replace(make.utterance(1), embedding=embedding)
    told = msgspec.structs.replace(make.described(1), embedding=embedding)
    made = features.tokens(asked(said, told))
    assert made.vectors == {}
    assert (made.states["speech"], made.states["report"]) == (Presence.SILENT, Presence.SILENT)


def test_of_several_sentences_those_with_a_meaning_count() -> None:
    told = [
        msgspec.structs.replace(make.described(at), embedding=embedding)
        for at, embedding in ((1, WORDS), (2, b""))
    ]
    got = numbers(asked(*told), "report")
    assert got["text.0"] == 1
    assert got["count"] == pytest.approx(np.log1p(2), abs=1e-3)


def test_no_finite_number_of_a_record_becomes_an_infinite_one() -> None:
    made = features.tokens(asked(seen(0, sharpness=1e12), second(0, loudness_db=1e12)))
    assert all(np.isfinite(vector).all() for vector in made.vectors.values())


def tracked(id_: int, label: str, path: tuple[tuple[float, float], ...], last: float = 1) -> Track:
    """A track of boxes a fifth of the picture high; `path` is of (second, x of its feet)."""
    x = path[-1][1]
    return Track(
        id=id_,
        label=label,
        score=0.9,
        box=Box(label=label, score=0.9, x1=x - 0.05, x2=x + 0.05, y1=0.3, y2=0.5),
        first_seen=ns(path[0][0]),
        last_seen=ns(last),
        path=tuple(Point(ns(at), where, 0.5) for at, where in path),
        aspect=2.0,
    )


def frame_of(*tracks: Track, still: frozenset[int] = frozenset()) -> TrackedFrame:
    return TrackedFrame(source="desk", start=ns(1), end=ns(1.2), tracks=tracks, still=still)


def test_a_speed_is_of_the_last_half_second_in_heights_of_the_object() -> None:
    walker = tracked(1, "person", ((0, 0.1), (0.5, 0.4), (1, 0.5)))
    (found,) = features.frame_summary(frame_of(walker), ()).objects
    assert found.speed == pytest.approx(0.1 * 2 / 0.2 / 0.5)
    assert found.area == pytest.approx(0.02)


def test_what_was_seen_once_has_no_speed() -> None:
    (found,) = features.frame_summary(frame_of(tracked(1, "person", ((1, 0.5),))), ()).objects
    assert found.speed == 0


def test_who_is_missing_in_this_frame_is_not_counted() -> None:
    missed = tracked(1, "person", ((0, 0.5),), last=0.8)
    assert features.frame_summary(frame_of(missed), ()).objects == ()


def test_an_object_is_in_a_zone_by_its_feet_and_still_by_its_track() -> None:
    zone = Polygon.parse("0,0, 0.5,0, 0.5,1, 0,1")
    inside, outside = tracked(1, "car", ((1, 0.3),)), tracked(2, "zebra", ((1, 0.7),))
    objects = features.frame_summary(
        frame_of(inside, outside, still=frozenset({1})), [zone]
    ).objects
    assert [(o.group, o.in_zone, o.still) for o in objects] == [
        ("vehicle", True, True),
        ("other", False, False),
    ]


def test_counts_speeds_and_zones_are_those_of_the_frames() -> None:
    walker = Object(group="person", speed=1.0, area=0.1, in_zone=True, still=False)
    parked = Object(group="vehicle", speed=0.0, area=0.2, in_zone=False, still=True)
    sights = (
        FrameSummary(source="desk", start=0, end=SECOND // 5, objects=(walker, walker, parked)),
        FrameSummary(source="desk", start=SECOND // 5, end=SECOND, objects=()),
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


def behaviour(at: float, seen: Evidence | None) -> FrameSummary:
    start, end = ns(at), ns(at + 0.2)
    return FrameSummary(source="desk", start=start, end=end, objects=(), behaviour=seen)


def test_behaviours_are_the_most_of_any_frame_and_shares_of_the_persons() -> None:
    calm = Evidence(persons=2, posed=1, limbs=0.5)
    fall = Evidence(
        persons=1, posed=1, down=1, fall=0.8, lying=0.6, tilt=45.0, limbs=1.5,
        outline=1.0, energy=0.25, nearness=0.5, overlap=0.125, approach=1.0,
    )  # fmt: skip
    sights = (behaviour(0, calm), behaviour(0.2, fall), behaviour(0.4, Evidence()))
    got = numbers(asked(seen(0), seen(0.2), seen(0.4), sights=sights), "vision")
    told = {name: got[f"behaviour.{name}"] for name in BEHAVIOURS}
    assert told == pytest.approx(
        {
            "known": 1,
            "posed.share": 2 / 3,
            "fall.most": 0.8,
            "lying.most": 0.6,
            "down.share": 1 / 3,
            "tilt.most": 0.5,
            "limbs.most": np.log1p(1.5),
            "limbs.mean": np.log1p(1.0),
            "outline.most": np.log1p(1),
            "energy.most": 0.25,
            "nearness.most": 0.5,
            "overlap.most": 0.125,
            "approach.most": np.log1p(1),
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    "shown", [None, Evidence(), Evidence(persons=2, fall=0.9, lying=0.9, down=2, outline=3.0)]
)
def test_without_any_pose_no_behaviour_is_known(shown: Evidence | None) -> None:
    got = numbers(asked(seen(0), sights=(behaviour(0, shown),)), "vision")
    assert {got[f"behaviour.{name}"] for name in BEHAVIOURS} == {0.0}


def test_what_a_rule_forbids_is_seen_and_for_how_long() -> None:
    forbidden = RuleFinding(
        rule="zone", label="intrusion", severity="high", modality="vision", source="desk",
        start=ns(1), end=ns(1.2), score=0.9, sure=True,
    )  # fmt: skip
    got = numbers(asked(seen(0), findings=(forbidden,)), "vision")
    assert got["forbidden.most"] == pytest.approx(0.9, abs=1e-3)
    assert got["forbidden.share"] == 0.25


def test_a_finding_that_reaches_out_of_the_window_counts_inside_it() -> None:
    long = RuleFinding(
        rule="zone", label="intrusion", severity="high", modality="vision", source="desk",
        start=ns(2.5), end=ns(9), score=0.5, sure=True,
    )  # fmt: skip
    assert numbers(asked(seen(0), findings=(long,)), "vision")["forbidden.share"] == 0.5


def test_what_is_heard_is_not_forbidden_to_be_seen() -> None:
    shot = RuleFinding(
        rule="sound", label="gunshot", severity="high", modality="sound", source="room",
        start=ns(1), end=ns(2), score=0.9, sure=True,
    )  # fmt: skip
    assert numbers(asked(seen(0), findings=(shot,)), "vision")["forbidden.most"] == 0


def test_old_news_says_how_old_it_is() -> None:
    assert numbers(asked(second(0)), "sound")["stale"] == 0.75
    assert numbers(asked(second(3)), "sound")["stale"] == 0


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


def test_a_gated_second_is_a_quiet_one_and_not_a_lost_one() -> None:
    gated = {
        "gated": True,
        "labels": {"siren": 0.0},
        "embedding": b"",
        "loudness_db": -50.0,
        "floor_db": -52.0,
    }
    silent = {"loudness_db": -90.0, "floor_db": -52.0}
    alone, quiet = (numbers(asked(second(0, **how)), "sound") for how in (gated, silent))
    classes = [name for name in alone if name.startswith("yamnet.")]
    assert [alone[name] for name in classes] == [quiet[name] for name in classes]
    assert alone["loudness.most"] == pytest.approx(-50 / 60, abs=1e-3)
    assert alone["floor"] == quiet["floor"]
    beside = numbers(asked(second(0, **gated), second(1)), "sound")
    loud = numbers(asked(second(1)), "sound")
    assert [beside[name] for name in classes] == [loud[name] for name in classes]


def test_a_second_that_is_all_but_silent_says_nothing_of_classes() -> None:
    got = numbers(asked(second(0, loudness_db=-90.0)), "sound")
    assert len({got[f"yamnet.{i}"] for i in range(521)}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_how_sources_are_interleaved_changes_nothing(seed: int) -> None:
    sources: list[list[Record]] = [
        [seen(at / 5, luma=at / 20) for at in range(20)],
        [second(at, loudness_db=-60.0 + 10 * at) for at in range(4)],
        [msgspec.structs.replace(make.utterance(1), embedding=WORDS)],
        [msgspec.structs.replace(make.described(at), embedding=WORDS) for at in (0.5, 2)],
    ]
    plain = [record for source in sources for record in source]
    chance, mixed = random.Random(seed), list[Record]()
    left = [list(reversed(source)) for source in sources]
    while some := [source for source in left if source]:
        mixed.append(chance.choice(some).pop())
    one, other = (
        features.tokens(HeadQuery(closed(plain), ())),
        features.tokens(HeadQuery(closed(mixed), ())),
    )
    assert one.states == other.states
    assert {m: v.tobytes() for m, v in one.vectors.items()} == {
        m: v.tobytes() for m, v in other.vectors.items()
    }
    assert set(one.vectors) == set(NAMES)


def closed(records: list[Record]) -> Window:
    """The window `[0, 4)` as the aligner gives it."""
    aligner = Aligner("office", ns(4), ns(1))
    promises = [make.progress(4, source=s) for s in ("desk", "room", "room/speech", "reports")]
    outs = [o for record in [make.roster(), *records, *promises] for o in aligner.push(record)]
    return next(o for o in outs if isinstance(o, Window) and o.start == 0)


def test_the_newest_hop_is_what_ends_in_it() -> None:
    part = newest(asked(seen(0), seen(3.5), second(2), second(3)), SECOND)
    assert [o.start for o in part.window.observations] == [ns(3.5), ns(3)]
    assert (part.window.start, part.window.end) == (ns(3), ns(4))


def test_findings_and_sights_of_before_are_not_in_the_newest_hop() -> None:
    def found(start: float) -> RuleFinding:
        return RuleFinding(
            rule="zone", label="intrusion", severity="high", modality="vision", source="desk",
            start=ns(start), end=ns(start + 0.5), score=0.9, sure=True,
        )  # fmt: skip

    def sight(start: float) -> FrameSummary:
        return FrameSummary(source="desk", start=ns(start), end=ns(start + 0.2), objects=())

    part = newest(asked(findings=(found(1), found(3)), sights=(sight(1), sight(3))), SECOND)
    assert [f.start for f in part.findings] == [ns(3)]
    assert [s.start for s in part.sights] == [ns(3)]


def test_a_window_without_a_modality_is_one_in_which_that_is_lost() -> None:
    made = features.tokens(asked(seen(0), second(0))).without("sound", "report")
    assert set(made.vectors) == {"vision"}
    assert made.states["sound"] is made.states["report"] is Presence.LOST
    assert made.states["speech"] is Presence.SILENT


def test_another_layout_has_another_name() -> None:
    assert features.schema(NAMES, features.VERSION) == features.SCHEMA
    renamed = {**NAMES, "vision": ("most.persons", *NAMES["vision"][1:])}
    swapped = {**NAMES, "vision": (*NAMES["vision"][1::-1], *NAMES["vision"][2:])}
    others = {features.schema(names, features.VERSION) for names in (renamed, swapped)}
    others.add(features.schema(NAMES, features.VERSION + 1))
    assert len(others | {features.SCHEMA}) == 4


def test_a_network_is_told_what_is_there() -> None:
    made = features.tokens(asked(second(0)))
    inputs = features.arrays([made, made.without("sound")])
    assert inputs["sound"][0].any()
    assert not inputs["sound"][1].any()
    assert inputs["state"][0].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert inputs["state"][1, 1].tolist() == [0, 0, 1]
