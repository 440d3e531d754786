"""What is found and what is invented, by kind, is no worse than the card says (`quality.json`)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks import quality
from benchmarks.quality import Card, Seen, card, of_scene, worse
from pipeline.types import ns
from tests import make

CARD = Card(
    processor="mine",
    scenes="some",
    told={"scenes": {"siren": (5, 6), "glass": (2, 2)}, "clips": {"fall": (7, 7)}},
    false={"scenes": {"siren": (1, 24)}, "clips: daily life": {}},
)


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_nothing_is_found_less_often_or_invented_more_often_than_in_the_card(media: Path) -> None:
    assert list(worse(quality.read(), quality.measure(media))) == []


def test_equal_and_better_figures_are_good() -> None:
    better = msgspec.structs.replace(
        CARD, told={**CARD.told, "scenes": {"siren": (6, 6), "glass": (2, 2)}}, false={}
    )
    assert list(worse(CARD, CARD)) == []
    assert list(worse(CARD, better)) == []


def test_a_lost_truth_is_told_with_kind_and_both_figures_and_the_command() -> None:
    less = msgspec.structs.replace(CARD, told={**CARD.told, "clips": {"fall": (6, 7)}})
    kind, in_all = worse(CARD, less)
    assert "clips, fall: told 6, and 7 of 7 in the card" in kind
    assert quality.COMMAND in kind
    assert "worse by 1" in in_all


def test_a_new_kind_of_false_alert_is_told() -> None:
    more = msgspec.structs.replace(
        CARD, false={**CARD.false, "clips: daily life": {"fall": (1, 4)}}
    )
    assert any("clips: daily life, fall: false alerts 1" in line for line in worse(CARD, more))


def test_another_processor_may_be_worse_by_one_of_a_kind_and_three_of_a_set() -> None:
    other = msgspec.structs.replace(CARD, processor="other")
    one = msgspec.structs.replace(other, told={**CARD.told, "clips": {"fall": (6, 7)}})
    two = msgspec.structs.replace(other, told={**CARD.told, "clips": {"fall": (5, 7)}})
    assert list(worse(CARD, one)) == []
    assert any("fall: told 5" in line for line in worse(CARD, two))
    many = {kind: (1, 24) for kind in ("fall", "fight", "glass", "scream")}
    four = msgspec.structs.replace(other, false={"scenes": {"siren": (1, 24), **many}})
    assert any("worse by 4" in line for line in worse(CARD, four))


def test_a_vanished_kind_is_worse_and_other_scenes_are_no_comparison() -> None:
    gone = msgspec.structs.replace(CARD, told={"clips": {"fall": (7, 7)}})
    assert any("scenes, glass: told 0" in line for line in worse(CARD, gone))
    (said,) = worse(CARD, msgspec.structs.replace(CARD, scenes="others"))
    assert quality.COMMAND in said


def test_an_alert_is_false_if_no_truth_is_near_and_its_last_revision_counts() -> None:
    right = make.alert(id="a", label="siren", labels=("siren",), start=ns(10), end=ns(12))
    wrong = make.alert(id="b", label="glass", labels=("glass",), start=ns(30), end=ns(31))
    early = msgspec.structs.replace(right, label="glass", labels=("glass",))
    seen = of_scene([(ns(9), ns(11), "siren"), (ns(50), ns(51), "scream")], [early, right, wrong])
    assert seen.truths == (("scenes", "siren", True), ("scenes", "scream", False))
    assert seen.invented == (("scenes", "glass"),)


def test_what_a_video_shows_all_along_is_no_false_alert() -> None:
    parked = make.alert(id="a", site="plaza", label="vehicle-at-rest", labels=("vehicle-at-rest",))
    both = msgspec.structs.replace(parked, id="b", labels=("siren", "vehicle-at-rest"))
    elsewhere = msgspec.structs.replace(parked, id="c", site="office")
    assert of_scene([], [parked, both, elsewhere]).invented == (
        ("scenes", "siren"),
        ("scenes", "vehicle-at-rest"),
    )


def test_figures_are_sums_over_scenes_and_clips() -> None:
    made = card(
        [
            Seen((("scenes", "siren", True),), (("scenes", "glass"),), "scenes"),
            Seen((("scenes", "siren", False),), (), "scenes"),
            Seen((), (), "clips: ordinary"),
        ],
        processor="mine",
        scenes="some",
    )
    assert made.told == {"scenes": {"siren": (1, 2)}}
    assert made.false == {"clips: ordinary": {}, "scenes": {"glass": (1, 2)}}
