"""Hearing that falls behind: what gives way, in which order, and that all of it is counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import SECOND, AudioChunk, Progress, Record, Sound, Utterance, ns
from tests import fakes
from workers.runtime.status import Status
from workers.stages.overload import (
    SOUND,
    SOUND_LIMITS,
    SPEECH_LIMITS,
    TRANSCRIPTION,
    VOICE,
    HearingLoad,
    HearingPace,
)
from workers.stages.sound import NOT_HEARD, SoundStage
from workers.stages.speech import NOT_TRANSCRIBED, SpeechStage

RATE = 16_000
BEGAN = 1000 * SECOND
POLL = 64  # entries


def chunk(number: int, source: str = "room", level: float = 0.3) -> AudioChunk:
    """A tenth of a second of a sound that the fakes take for speech."""
    data = np.full(RATE // 10, level * 32767, "<i2").tobytes()
    start = BEGAN + number * SECOND // 10
    end = start + SECOND // 10
    return AudioChunk(site="office", source=source, start=start, end=end, seq=number,
                      rate=RATE, channels=1, data=data)  # fmt: skip


class Hearing:
    """The two stages with one clock each, over a topic that other time fills."""

    def __init__(self, *, yamnet: float, voice: float, speech: float, microphones: int = 1) -> None:
        self.status, self.load, self.microphones = Status(), HearingLoad(), microphones
        self.costs = {"sound": yamnet, "voice": voice, "speech": speech}
        self.now = {SoundStage: 0.0, SpeechStage: 0.0}
        self.read = {SoundStage: 0, SpeechStage: 0}
        self.told: dict[type, list[Record]] = {SoundStage: [], SpeechStage: []}
        sound = SoundStage(
            self.model(SoundStage, "sound", fakes.FakeYamnet()),
            fakes.fake_head,
            self.status,
            None,
            pace=HearingPace(SOUND_LIMITS, self.load, leads=True, timer=self.clock(SoundStage)),
        )
        words = SpeechStage(
            self.model(SpeechStage, "voice", fakes.FakeVoice()),
            self.model(SpeechStage, "speech", fakes.FakeSpeech()),
            fakes.FakeText(),
            self.status,
            None,
            HearingPace(SPEECH_LIMITS, self.load, timer=self.clock(SpeechStage)),
        )
        self.stages = {SoundStage: sound, SpeechStage: words}
        for kind, stage in self.stages.items():
            stage.watch(lambda kind=kind: self.waits(kind))  # type: ignore[misc]
        self.states = {kind: stage.open({}) for kind, stage in self.stages.items()}

    def clock(self, kind: type):  # type: ignore[no-untyped-def]
        return lambda: self.now[kind]

    def model(self, kind: type, name: str, real):  # type: ignore[no-untyped-def]
        def slow(batch: Sequence[np.ndarray]):  # type: ignore[no-untyped-def]
            self.now[kind] += self.costs[name] * len(batch)
            return real(batch)

        return slow

    def waits(self, kind: type) -> int:
        return max(0, int(self.now[kind] * 10) * self.microphones - self.read[kind])

    def run(self, seconds: float) -> None:
        """Both stages read what is captured, in turn, whichever is behind."""
        while min(self.now.values()) < seconds:
            kind = min(self.now, key=self.now.__getitem__)
            if not (most := min(self.waits(kind), POLL)):
                self.now[kind] += 0.1
                continue
            at = range(self.read[kind], self.read[kind] + most)
            self.read[kind] += most
            batch = [chunk(n // self.microphones, f"room-{n % self.microphones}") for n in at]
            for record, left_out in zip(batch, self.stages[kind].infer(batch), strict=True):
                self.told[kind] += self.states[kind].on(record, left_out)

    def counts(self, source: str = "room-0") -> dict[str, int]:
        return self.status.snapshot().counts["office"][source]

    def lag(self, kind: type) -> float:
        return self.waits(kind) / 10 / self.microphones


def test_nothing_gives_way_while_hearing_keeps_up() -> None:
    hearing = Hearing(yamnet=0.3, voice=0.2, speech=2.0)
    hearing.run(120)
    for source in ("room-0", "room-0/speech"):
        assert not any("behind" in what for what in hearing.counts(source))


def test_a_stall_of_25_s_is_worked_off_and_nothing_gives_way() -> None:
    hearing = Hearing(yamnet=0.3, voice=0.2, speech=2.0)
    hearing.run(20)
    for kind in hearing.now:
        hearing.now[kind] += 25
    hearing.run(120)
    for source in ("room-0", "room-0/speech"):
        assert not any("behind" in what for what in hearing.counts(source))
    assert hearing.lag(SpeechStage) < 7


def test_transcription_gives_way_first_and_sound_is_heard_wholly() -> None:
    hearing = Hearing(yamnet=0.3, voice=0.2, speech=9.0)  # an utterance a 5 s
    hearing.run(400)
    speech, sound = hearing.counts("room-0/speech"), hearing.counts()
    assert speech["not_transcribed.behind"] > 0
    assert speech["utterances"] > 0, "as much as there is time for"
    assert "dropped.behind" not in speech
    assert not any("behind" in what for what in sound)
    assert hearing.lag(SpeechStage) < 50
    told = hearing.told[SpeechStage]
    reasons = {record.reason for record in told if isinstance(record, Progress)}
    assert reasons == {"", NOT_TRANSCRIBED}
    starts = [record.start for record in told if isinstance(record, Utterance)]
    assert starts == sorted(starts)


def test_where_the_voice_is_too_much_it_gives_way_too() -> None:
    hearing = Hearing(yamnet=0.3, voice=1.5, speech=3.0)
    hearing.run(400)
    speech = hearing.counts("room-0/speech")
    assert speech["dropped.behind"] > 0
    assert speech["processed"] + speech["dropped.behind"] == hearing.read[SpeechStage]
    assert "dropped.behind" not in hearing.counts()
    assert hearing.lag(SpeechStage) < 90


def test_sound_events_give_way_last_and_every_skip_is_counted() -> None:
    hearing = Hearing(yamnet=1.5, voice=0.01, speech=0.1)
    hearing.run(100)
    assert hearing.load.sound > SPEECH_LIMITS[TRANSCRIPTION]
    early = dict(hearing.counts("room-0/speech"))
    assert early["not_transcribed.behind"] > 0, "though speech itself keeps up"
    hearing.run(600)
    sound = hearing.counts()
    assert sound["processed"] + sound["dropped.behind"] == hearing.read[SoundStage]
    told = hearing.told[SoundStage]
    heard = [record.start for record in told if isinstance(record, Sound)]
    assert sound["seconds.behind"] + len(heard) == hearing.read[SoundStage] // 10
    assert len(set(heard)) == len(heard)
    assert {r.reason for r in told if isinstance(r, Progress)} == {"", NOT_HEARD}
    assert hearing.lag(SoundStage) < 60
    upto = [record.upto for record in told if isinstance(record, Progress)]
    assert upto == sorted(upto)


def test_all_microphones_are_heard_in_turn() -> None:
    hearing = Hearing(yamnet=0.1, voice=0.001, speech=0.001, microphones=16)
    hearing.run(300)
    shares = [
        hearing.counts(f"room-{n}")["dropped.behind"]
        / (hearing.counts(f"room-{n}")["processed"] + hearing.counts(f"room-{n}")["dropped.behind"])
        for n in range(16)
    ]
    assert min(shares) > 0.2
    assert max(shares) - min(shares) < 0.1


def test_without_a_pace_nothing_ever_gives_way() -> None:
    stage = SoundStage(fakes.FakeYamnet(), fakes.fake_head)
    assert list(stage.infer([chunk(0), chunk(1)])) == [None, None]


def test_limits_are_in_the_order_in_which_hearing_gives_way() -> None:
    limits = {**SPEECH_LIMITS, **SOUND_LIMITS}
    assert sorted(limits, key=limits.__getitem__) == [TRANSCRIPTION, VOICE, SOUND]
    assert min(limits.values()) == 30
    assert ns(max(limits.values())) < 120 * SECOND, "within the horizon of a window"


LEFT_OUT = st.lists(st.sampled_from([None, None, TRANSCRIPTION, VOICE]), min_size=4, max_size=12)


def lives(stage: SoundStage | SpeechStage, polls: Sequence[str | None], cut: int) -> list[Record]:
    """What a stage publishes that is killed before the poll `cut`; a poll has half a second.

    While it rebuilds its state, nothing is left out: it does not know what was.
    """
    host, told = Host(stage, Assigned(0, 0, b"")), list[Record]()
    for number, left_out in enumerate(polls):
        if number == cut:
            host = Host(stage, Assigned(0, host.safe, host.note))
            for at in range(host.safe, number * 5):
                assert host.feed(at, chunk(at), None) == []
        for at in range(number * 5, number * 5 + 5):
            told += host.feed(at, chunk(at), left_out)
    return told


@given(LEFT_OUT, st.integers(1, 11))
def test_a_restart_does_not_change_what_sound_tells(polls: list[str | None], cut: int) -> None:
    def stage() -> SoundStage:
        return SoundStage(fakes.FakeYamnet(), fakes.fake_head, Status())

    assert lives(stage(), polls, cut) == lives(stage(), polls, -1)


@given(LEFT_OUT, st.integers(1, 11))
def test_a_restart_contradicts_nothing_that_speech_has_told(
    polls: list[str | None], cut: int
) -> None:
    stage = SpeechStage(fakes.FakeVoice(), fakes.FakeSpeech(), fakes.FakeText(), Status())
    upto = 0
    for record in lives(stage, polls, cut):
        match record:
            case Progress():
                upto = max(upto, record.upto)
            case Utterance():
                assert record.start >= upto


def test_what_a_restart_reads_again_is_not_counted_again() -> None:
    status = Status()
    stage = SoundStage(fakes.FakeYamnet(), fakes.fake_head, status)
    lives(stage, [None] * 8, 5)
    assert status.counted("office", "room", "processed") == 40
