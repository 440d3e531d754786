"""What somebody said rides along with an anomaly of the same moment, and with no other."""

from __future__ import annotations

import pytest

from pipeline.config import schema
from pipeline.config.rule_kinds import KeywordRule, SoundRule
from pipeline.types import Anomaly, Record
from tests.fakes import FakeText
from tests.make import progress, roster, sound, utterance
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan

BEGIN = 1000  # s
SIZE = 4  # s of a window
SITE = schema.Site(
    microphones={"room": schema.Microphone(source="device:default")},
    rules=(
        SoundRule(labels={"gunshot": 0.5}, severity="critical"),
        KeywordRule(words={"en": ("help",)}, label="distress", min_confidence=0.6),
    ),
    windows=schema.Windows(size=SIZE, hop=1, horizon=900, patience=900),
)


def texts(*records: Record) -> list[str]:
    """The words that each anomaly carries."""
    state = FusionStage({"office": site_plan(SITE, FakeText(), recorded=True)}).open({})
    said: list[Record] = []
    for record in (roster("room", "room/speech", start=BEGIN, source="room"), *records):
        said += state.on(record, None)
    return [one.text for one in said if isinstance(one, Anomaly)]


def shot(at: float) -> Record:
    return sound(at, gunshot=0.9)


def words(at: float, text: str = "look at the door") -> Record:
    """A second of speech that ends a second after `at`."""
    return utterance(at, text)


def test_words_of_the_same_moment_ride_along_once() -> None:
    assert texts(words(BEGIN), shot(BEGIN + 2), shot(BEGIN + 3)) == ["look at the door", ""]


def test_words_said_minutes_ago_ride_with_no_unrelated_alert() -> None:
    assert texts(words(BEGIN), shot(BEGIN + 300)) == [""]


@pytest.mark.parametrize(
    ("gap", "carried"), [(SIZE - 0.001, "look at the door"), (SIZE, "")], ids=["within", "at"]
)
def test_words_are_of_the_same_moment_for_less_than_a_window(gap: float, carried: str) -> None:
    assert texts(words(BEGIN), shot(BEGIN + 1 + gap)) == [carried]


def test_old_words_are_dropped_and_do_not_wait_for_a_later_alert() -> None:
    assert texts(words(BEGIN), shot(BEGIN + 300), shot(BEGIN + 301)) == ["", ""]


def test_words_that_were_said_minutes_after_an_alert_wait_for_one_of_their_own_time() -> None:
    """Speech may be far ahead of another source, after an outage say."""
    early, later = shot(BEGIN + 2), shot(BEGIN + 302)
    assert texts(words(BEGIN + 300), early, later) == ["", "look at the door"]


@pytest.mark.parametrize(
    ("gap", "carried"), [(SIZE - 0.001, "look at the door"), (SIZE, "")], ids=["within", "at"]
)
def test_later_words_are_of_the_same_moment_for_less_than_a_window(
    gap: float, carried: str
) -> None:
    assert texts(words(BEGIN + 3 + gap), shot(BEGIN + 2)) == [carried]


def test_an_anomaly_of_words_carries_its_own() -> None:
    told = texts(words(BEGIN), words(BEGIN + 2, "help me"), shot(BEGIN + 3))
    assert told == ["help me", ""]


def test_promises_between_words_and_anomaly_change_nothing() -> None:
    between = [progress(BEGIN + 1 + n / 10, source="room/speech") for n in range(10)]
    assert texts(words(BEGIN), *between, shot(BEGIN + 2)) == ["look at the door"]
