"""Where utterances begin and end, by hand and by hypothesis. A frame here lasts 50 ms."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.speech_segmenter import Segmenter, Speech, SpeechSpan
from pipeline.types import SECOND, ns

FRAME = ns(0.05)
A_SECOND = SECOND // FRAME  # frames
SILENT, MAYBE, VOICED = 0.05, 0.25, 0.9  # below `keeps`, between the two, above `opens`


def feed(segmenter: Segmenter, probabilities: list[float], start: int = 0) -> list[SpeechSpan]:
    found = []
    for number, probability in enumerate(probabilities):
        at = start + number * FRAME
        found += segmenter.push(at, at + FRAME, probability)
    return found


def frames(*parts: tuple[float, float]) -> list[float]:
    """(seconds, probability) parts as frames."""
    return [p for seconds, p in parts for _ in range(round(seconds * A_SECOND))]


def test_an_utterance_is_padded_and_told_after_the_hang() -> None:
    segmenter = Segmenter(0)
    assert feed(segmenter, frames((1, SILENT), (1, VOICED), (0.55, SILENT))) == []
    assert feed(segmenter, [SILENT], ns(2.55)) == [SpeechSpan(ns(0.7), ns(2.3))]


def test_no_padding_before_the_first_sound() -> None:
    assert feed(Segmenter(0), frames((1, VOICED), (1, SILENT)))[0].start == 0


def test_a_click_is_no_word() -> None:
    assert feed(Segmenter(0), frames((1, SILENT), (0.2, VOICED), (2, SILENT))) == []


def test_a_short_pause_does_not_end_an_utterance() -> None:
    found = feed(
        Segmenter(0), frames((1, SILENT), (0.5, VOICED), (0.5, SILENT), (0.5, VOICED), (1, SILENT))
    )
    assert found == [SpeechSpan(ns(0.7), ns(2.8))]


def test_what_may_be_speech_goes_on_but_does_not_begin() -> None:
    assert feed(Segmenter(0), frames((3, MAYBE), (1, SILENT))) == []
    found = feed(Segmenter(0), frames((1, VOICED), (1, MAYBE), (1, SILENT)))
    assert found == [SpeechSpan(0, ns(2.3))]


def test_what_may_be_speech_does_not_go_on_for_ever() -> None:
    found = feed(Segmenter(0), frames((1, VOICED), (60, MAYBE)))
    assert len(found) == 1
    assert found[0].end <= ns(3)


def test_a_monologue_is_cut_where_it_is_least_like_speech() -> None:
    probabilities = frames((19, VOICED))
    for weak in (3.5, 7.2, 11.9, 15.0):  # the second before each multiple of four
        probabilities[round(weak * A_SECOND)] = 0.4
    found = feed(Segmenter(0), probabilities)
    assert [span.end for span in found] == [ns(3.5), ns(7.2), ns(11.9), ns(15.0)]
    assert [span.start for span in found] == [0, ns(3.5), ns(7.2), ns(11.9)]


def test_an_utterance_ends_where_nothing_was_captured() -> None:
    segmenter = Segmenter(0)
    feed(segmenter, frames((1, VOICED)))
    assert segmenter.skip(ns(3)) == [SpeechSpan(0, ns(1))]
    assert segmenter.upto == ns(3)
    feed(segmenter, frames((1, VOICED)), ns(3))
    assert segmenter.upto == ns(3), "where it is open"


def test_frames_that_do_not_meet_are_two_utterances() -> None:
    segmenter = Segmenter(0)
    feed(segmenter, frames((1, VOICED)))
    assert feed(segmenter, frames((1, VOICED)), ns(2)) == [SpeechSpan(0, ns(1))]


def test_frames_out_of_order_are_refused() -> None:
    segmenter = Segmenter(0)
    feed(segmenter, [VOICED])
    with pytest.raises(ValueError, match="comes after"):
        segmenter.push(0, FRAME, VOICED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"opens": 0.1},
        {"pad": ns(0.5)},
        {"fades": ns(0.1)},
        {"fades": ns(4)},
        {"longest": ns(4)},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"does not (hold|fit)"):
        Speech(**wrong)  # type: ignore[arg-type]


# Stretches of talk and pauses, long enough that cuts, fades and pauses all happen.
_part = st.tuples(
    st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.5, 4.0, 9.0]),
    st.sampled_from([SILENT, MAYBE, 0.31, 0.6, VOICED]),
)
talk = st.lists(_part, min_size=1, max_size=25).map(lambda parts: frames(*parts))
uneven = st.lists(st.sampled_from([SILENT, MAYBE, 0.31, 0.6, 0.7, VOICED]), min_size=40)
speech = st.one_of(talk, st.builds(lambda one, other: one + other, talk, uneven))


@given(speech)
def test_utterances_are_ordered_apart_and_short(probabilities: list[float]) -> None:
    found = feed(Segmenter(0), probabilities)
    assert all(0 <= span.start < span.end <= span.start + ns(5) for span in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@given(speech)
def test_promises_hold_and_never_decrease_and_are_at_most_five_seconds_behind(
    probabilities: list[float],
) -> None:
    segmenter, promised = Segmenter(0), 0
    for number, probability in enumerate(probabilities):
        at = number * FRAME
        for span in segmenter.push(at, at + FRAME, probability):
            assert span.start >= promised
        assert segmenter.upto >= promised
        assert segmenter.heard - segmenter.upto < ns(5)
        promised = segmenter.upto


@given(speech, st.integers(0, 400), st.integers(0, 3))
def test_a_restart_at_the_anchor_or_earlier_agrees(
    probabilities: list[float], stop: int, earlier: int
) -> None:
    whole = Segmenter(0)
    stop = min(stop, len(probabilities)) // A_SECOND * A_SECOND
    feed(whole, probabilities[:stop])
    again_at = max(whole.anchor // SECOND - earlier, 0) * A_SECOND
    again = Segmenter(again_at * FRAME)
    feed(again, probabilities[again_at:stop], again_at * FRAME)
    assert again.upto == whole.upto
    rest = [*probabilities[stop:], *frames((3, SILENT))]
    assert feed(again, rest, stop * FRAME) == feed(whole, rest, stop * FRAME)


def test_a_restart_agrees_where_a_cut_fell_into_what_only_may_be_speech() -> None:
    probabilities = frames((2.5, VOICED), (1.7, MAYBE), (3.8, VOICED))
    whole = Segmenter(0)
    cuts = feed(whole, probabilities)
    assert [span.end for span in cuts] == [ns(3), ns(7)]  # the first of equals
    again_at = whole.anchor // SECOND * A_SECOND
    again = Segmenter(again_at * FRAME)
    feed(again, probabilities[again_at:], again_at * FRAME)
    assert again.upto == whole.upto == ns(7)


@given(speech)
def test_an_anchor_is_never_far_back(probabilities: list[float]) -> None:
    segmenter = Segmenter(0)
    feed(segmenter, probabilities)
    assert segmenter.heard - segmenter.anchor <= ns(5 + 5 + 2)
