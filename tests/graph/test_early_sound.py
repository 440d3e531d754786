"""Early sounds: instant rules hear the begin of a second sooner, and nobody hears it twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hearing.waveform import RATE, Samples
from pipeline.config import rule_kinds, schema
from pipeline.config.fields import SOUNDS
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import SECOND, Alert, Anomaly, AudioChunk, Progress, Record, Sound, Window, ns
from tests.fakes import FakeText
from tests.graph.conftest import Runner as Way
from tests.make import audio, early, progress, roster, sound
from workers.runtime.status import Status
from workers.stages.alert import AlertStage
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_incidents, site_plan
from workers.stages.sound import SoundStage

AT = 1_767_650_400  # s
ROOMS = schema.Site(
    microphones={"room": schema.Microphone(source="device:default")},
    rules=(rule_kinds.SoundRule(labels={"gunshot": 0.5, "glass": 0.5}, severity="critical"),),
    fusion=schema.Fusion(head="rules"),
)


class Loudest:
    """Scores that are the loudest sample of what YAMNet would hear."""

    def __init__(self) -> None:
        self.heard: list[Samples] = []

    def __call__(self, batch: Sequence[Samples]) -> list[Samples]:
        self.heard += batch
        return [np.array([np.abs(samples).max()], np.float32) for samples in batch]


def labelled(scores: Samples) -> Mapping[str, float]:
    return dict.fromkeys(SOUNDS, 0.0) | {"gunshot": round(float(scores[0]), 3)}


def stage(ear: Loudest | None = None, status: Status | None = None) -> SoundStage:
    return SoundStage(ear or Loudest(), labelled, status, None, {"office"})


def through(records: Sequence[Record], of: SoundStage | None = None) -> list[Record]:
    state = (of or stage()).open({})
    return [made for record in records for made in state.on(record, None)]


def chunks(samples: np.ndarray, cuts: Sequence[int], listen: str = "all") -> list[AudioChunk]:
    """The samples from AT on, cut there; times are exact."""
    edges = [0, *sorted({c for c in cuts if 0 < c < len(samples)}), len(samples)]
    pcm = np.round(samples * 32767).astype("<i2")
    made = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        chunk = audio(AT, pcm[low:high].tobytes(), seq=number)
        start, end = (AT * SECOND + at * SECOND // RATE for at in (low, high))
        made.append(msgspec.structs.replace(chunk, start=start, end=end, listen=listen))
    return made


def bang(at: float, seconds: float = 4.0) -> np.ndarray:
    """Silence of `seconds` with 50 ms of noise in it."""
    samples = np.zeros(round(seconds * RATE))
    samples[round(at * RATE) : round((at + 0.05) * RATE)] = 0.8
    return samples


def told(records: Sequence[Record]) -> list[tuple[float, bool, float]]:
    """(start in s after AT, early, gunshot) of the sounds."""
    return [
        (r.start / SECOND - AT, r.early, r.labels["gunshot"])
        for r in records
        if isinstance(r, Sound)
    ]


# The sound stage


def test_a_sound_in_the_first_half_of_a_second_is_told_when_that_half_is_over() -> None:
    out = through(chunks(bang(2.2), range(0, 64_000, 1600)))
    assert told(out) == [
        (0, False, 0.0), (1, False, 0.0), (1.5, True, 0.8), (2, False, 0.8), (3, False, 0.0),
    ]  # fmt: skip
    (soon,) = [r for r in out if isinstance(r, Sound) and r.early]
    assert (soon.end, soon.embedding, soon.gated) == (ns(AT + 2.5), b"", False)
    promises = [r.upto // SECOND - AT for r in out if isinstance(r, Progress)]
    assert promises == [0, 1, 2, 3, 4]


def test_a_sound_in_the_second_half_is_told_with_its_second_and_early_in_the_next() -> None:
    out = through(chunks(bang(2.7), range(0, 64_000, 1600)))
    assert told(out)[2:] == [(2, False, 0.8), (2.5, True, 0.8), (3, False, 0.0)]


def test_nothing_is_told_early_without_a_rule_or_a_label_or_in_a_gated_stretch() -> None:
    without = SoundStage(Loudest(), labelled)
    assert not any(soon for _, soon, _ in told(through(chunks(bang(2.2), []), without)))
    assert not any(soon for _, soon, _ in told(through(chunks(0.1 * bang(2.2), []))))
    ear = Loudest()
    through(chunks(bang(2.2), range(0, 64_000, 8000), listen=""), stage(ear))
    assert len(ear.heard) == 3  # second 0 and what is early around it: nothing lies before them


def test_yamnet_hears_the_same_pieces_early_and_in_the_whole_seconds() -> None:
    """So with its memory of pieces an early sound costs no run of the network."""
    ear = Loudest()
    noise = np.random.default_rng(1).normal(0, 0.1, 6 * RATE)
    through(chunks(noise, range(0, len(noise), 1600)), stage(ear))
    pieces = [{s[k * 8000 : k * 8000 + 15_600].tobytes() for k in range(3)} for s in ear.heard]
    assert len(pieces) == 12
    for k in range(4, 12, 2):  # an early one, between two whole ones
        assert pieces[k] <= pieces[k - 1] | pieces[k + 1]


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 64_000), max_size=12),
    st.lists(st.integers(1, 64_000), max_size=12),
    st.floats(0, 3.9),
)
def test_the_size_of_chunks_changes_no_sound(some: list[int], others: list[int], at: float) -> None:
    ours, theirs = (
        [r for r in through(chunks(bang(at), cuts)) if isinstance(r, Sound)]
        for cuts in (some, others)
    )
    assert ours == theirs


@settings(max_examples=60)
@given(st.lists(st.integers(1, 64_000), min_size=1, max_size=24), st.floats(0, 3.9), st.data())
def test_a_restart_anywhere_tells_the_same(cuts: list[int], at: float, data: st.DataObject) -> None:
    records: list[Record] = [*chunks(bang(at), cuts), progress(AT + 4.6, source="room")]
    del records[data.draw(st.integers(0, len(records) - 1))]
    killed = data.draw(st.integers(0, len(records)))
    steady = Host(stage(), Assigned(0, 0, b""))
    for offset, record in enumerate(records[:killed]):
        steady.feed(offset, record, None)
    again = Host(stage(), Assigned(0, steady.safe, steady.note))
    for offset in range(steady.safe, killed):
        assert again.feed(offset, records[offset], None) == []
    for offset in range(killed, len(records)):
        assert again.feed(offset, records[offset], None) == steady.feed(
            offset, records[offset], None
        )


# Fusion and incidents


def heard(*seconds: Sequence[Sound], begin: int = AT) -> list[Record]:
    """What the sound stage says: in each second some sounds, and a promise."""
    records: list[Record] = [roster("room", start=begin), progress(begin, source="room")]
    for number, some in enumerate(seconds):
        records += [*some, progress(begin + number + 1, source="room")]
    return records


def judged(records: Sequence[Record], site: schema.Site = ROOMS) -> list[Record]:
    state = FusionStage({"office": site_plan(site, FakeText(), recorded=True)}).open({})
    return [out for record in records for out in state.on(record, None)]


def anomalies(records: Sequence[Record]) -> list[Anomaly]:
    return [record for record in records if isinstance(record, Anomaly)]


def alerts(records: Sequence[Record], site: schema.Site = ROOMS) -> list[Alert]:
    plans = {"office": site_incidents(site)}
    state = AlertStage(plans, lambda *_: ()).open({})
    done = [*judged(records, site), Progress(site="office", source="fusion", upto=ns(AT + 90))]
    return [out for record in done for out in state.on(record, None)]


QUIET = [sound(AT)]
SHOT = [early(AT + 1, gunshot=0.8), sound(AT + 1, gunshot=0.9)]
AFTER = [sound(AT + 2)]


def test_the_whole_second_joins_what_was_told_early_and_is_not_counted_twice() -> None:
    first, second = anomalies(judged(heard(QUIET, SHOT, AFTER)))
    assert (first.start, first.end, first.counts) == (ns(AT + 1), ns(AT + 1.5), True)
    assert (second.start, second.end, second.counts) == (ns(AT + 1), ns(AT + 2), False)
    assert first.reasons
    assert not second.reasons
    opened, closed = alerts(heard(QUIET, SHOT, AFTER))
    assert (opened.state, opened.time, opened.score) == ("opened", ns(AT + 1.5), 0.8)
    assert (closed.state, closed.end, closed.score) == ("closed", ns(AT + 2), 0.9)
    assert [f.count for f in (*opened.findings, *closed.findings)] == [1, 1]


def test_the_incident_is_that_without_early_sounds() -> None:
    *_, late = alerts(heard(QUIET, SHOT[1:], AFTER))
    *_, soon = alerts(heard(QUIET, SHOT, AFTER))
    assert soon == late


def test_what_only_the_early_sound_finds_is_told_and_counts() -> None:
    opened, closed = alerts(heard(QUIET, [SHOT[0], sound(AT + 1)], AFTER))
    assert (closed.end, closed.findings[0].count) == (ns(AT + 1.5), 1)
    assert opened.id == closed.id


def test_another_label_of_the_whole_second_is_told_too() -> None:
    both = [early(AT + 1, gunshot=0.8), sound(AT + 1, gunshot=0.4, glass=0.9)]
    made = anomalies(judged(heard(QUIET, both, AFTER)))
    assert [(a.label, a.counts) for a in made] == [("gunshot", True), ("glass", True)]
    assert len({a.id for a in made}) == 2
    assert alerts(heard(QUIET, both, AFTER))[-1].labels == ("glass", "gunshot")


def test_what_goes_on_is_not_told_early() -> None:
    second = [early(AT + 2, gunshot=0.9), sound(AT + 2, gunshot=0.7)]
    made = anomalies(judged(heard(QUIET, SHOT[1:], second)))
    assert [(a.start, a.score) for a in made] == [(ns(AT + 1), 0.9), (ns(AT + 2), 0.7)]


def test_an_early_sound_must_be_surer_than_a_whole_second() -> None:
    for score, count in ((0.4, 0), (0.74, 0), (0.75, 1)):
        weak = [early(AT + 1, gunshot=score), sound(AT + 1)]
        assert len(anomalies(judged(heard(QUIET, weak, AFTER)))) == count


def test_an_early_sound_that_comes_again_or_late_or_from_nobody_changes_nothing() -> None:
    before = heard(QUIET, SHOT, AFTER)
    for at in range(len(before)):
        again = [*before[: at + 1], *([SHOT[0]] if SHOT[0] in before[: at + 1] else []),
                 *before[at + 1 :]]  # fmt: skip
        assert judged(again) == judged(before)
    lost = [*heard(QUIET), progress(AT + 9, source="room", alive=False)]
    assert not anomalies(judged([*lost, SHOT[0]]))
    assert judged([SHOT[0]]) == []
    assert judged([roster("room", start=AT), SHOT[0]]) == []


def test_no_window_holds_an_early_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Window] = []

    class Head:
        version, threshold = "spy 1", 2.0

        def score(self, question: object) -> float:
            (verdict,) = self([question])
            return verdict.score  # type: ignore[attr-defined, no-any-return]

        def __call__(self, batch: Sequence[object]) -> list[object]:
            from models.fusion.noisy_or import NoisyOr

            seen.extend(question.window for question in batch)  # type: ignore[attr-defined]
            return NoisyOr()(batch)  # type: ignore[arg-type, return-value]

    plans = {"office": site_plan(ROOMS, FakeText(), recorded=True)}
    state = FusionStage(plans, {"office": Head()}).open({})  # type: ignore[dict-item]
    for record in [*heard(QUIET, SHOT, AFTER), progress(AT + 20, source="room")]:
        state.on(record, None)
    sounds = [o for window in seen for o in window.observations if isinstance(o, Sound)]
    assert sounds
    assert not any(o.early for o in sounds)


def test_a_rule_with_modes_judges_the_begin_of_the_second() -> None:
    """Armed from the whole second on: what lies before it does not count, its begin does."""
    rule = msgspec.structs.replace(ROOMS.rules[0], modes=("armed",))
    modes = schema.Modes(default="armed")
    site = msgspec.structs.replace(ROOMS, rules=(rule,), modes=modes)
    reports = [progress(AT + k, source="reports") for k in range(6)]
    records = [roster("room", "reports", start=AT)]
    records += sorted([*heard(QUIET, SHOT, AFTER)[1:], *reports],
                      key=lambda r: r.upto if isinstance(r, Progress) else r.end)  # fmt: skip
    made = anomalies(judged(records, site))
    assert [(a.start, a.counts, a.mode) for a in made] == [
        (ns(AT + 1), True, "armed"), (ns(AT + 1), False, "armed"),
    ]  # fmt: skip


def test_in_every_way_of_running_a_shot_is_one_shot(
    runner: Way, config: Path, scene: Callable[..., Path]
) -> None:
    events = runner(config, scene(loud=(8.6, 10)))
    last = {e["data"]["alert_id"]: e["data"] for e in events if "gunshot" in e["data"]["labels"]}
    (shot,) = last.values()
    (found,) = [f for f in shot["findings"] if f["label"] == "gunshot"]
    assert found["count"] == 1
    assert min(e["time"] for e in events if "gunshot" in e["data"]["labels"]).startswith(
        "2026-01-05T22:00:09.5"
    )
