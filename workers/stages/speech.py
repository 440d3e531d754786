"""The speech stage: finds and transcribes the utterances of each microphone.

The grid cuts the audio into seconds. The voice model gives the probability of speech of each 32 ms.
The segmenter finds where an utterance begins and ends. The speech model transcribes its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.hearing.waveform import RATE, Samples
from models.language.text import packed
from pipeline.errors import DecodeError
from pipeline.ports import Model
from pipeline.sources import speech_source
from pipeline.speech_segmenter import Segmenter, Speech, SpeechSpan
from pipeline.types import (
    BEFORE_ALL,
    FOREVER,
    SECOND,
    AudioChunk,
    Progress,
    Record,
    Roster,
    Utterance,
    ns,
)
from pipeline.words import cleaned
from workers.runtime.status import Ledger
from workers.stages.audio_grid import CONTEXT_SECONDS, AudioGrid, Known, Second, hear_of
from workers.stages.audit import picked
from workers.stages.overload import VOICE, Backlog, HearingPace

VOICE_FRAME = ns(0.032)  # ns that one probability of the voice model covers
# frames that overlap a second; the first lies in it only partly
FRAMES_A_SECOND = -(-SECOND // VOICE_FRAME)
MEANT = Speech()  # what counts as voice
NOT_TRANSCRIBED = "not transcribed: hearing is too far behind"  # the reason of a Progress


class SpeechStage:
    """audio.v1 -> observations.v1: an Utterance of `ROOM/speech` for each utterance at ROOM.

    `voice` takes waveforms (16 kHz mono) and returns the probability of speech of each 32 ms,
    counted back from the end; `speech` returns a `models.hearing.transcript.Transcript` for each;
    `text` returns the embedding of a text. Audio without speech, or with a transcript that is
    empty, gives no record. Progress is held back to the start of the open utterance, by at most
    5 s. Unusable chunks are counted as `dropped.unusable`; the sound stage, which reads the same
    topic, writes their DeadLetter. `known` has the meaning that it has in the sound stage.

    The voice model does not hear a gated second (`Second.still`): its probabilities are 0. So an
    utterance ends in it as in any second without voice. An audited one is heard, and counted as
    `audited.missed` if it holds voice for `Speech.least`.

    With a `pace`, a stage that is too far behind first leaves the transcription out: utterances are
    counted as `not_transcribed.behind`. Then it leaves the voice model out, too: chunks are counted
    as `dropped.behind`. Progress tells both.
    """

    def __init__(
        self,
        voice: Model,
        speech: Model,
        text: Model,
        status: Ledger | None = None,
        known: Known | None = None,
        pace: HearingPace | None = None,
    ) -> None:
        self._models, self._status, self._known = (voice, speech, text), status, known
        self._pace = pace

    def watch(self, backlog: Backlog) -> None:
        """Takes the function that returns how many entries wait to be polled."""
        if self._pace is not None:
            self._pace.watch(backlog)

    def infer(self, batch: Sequence[Record]) -> Sequence[str | None]:
        """Returns for each record what is left out; the models run in `State.on`, as an utterance
        spans chunks."""
        left_out = None if self._pace is None else self._pace.gives_way(batch)
        return [left_out] * len(batch)

    def open(self, floors: dict[str, int]) -> _SpeechState:
        """Returns a state that is rebuilt from two seconds before the open utterance on."""
        return _SpeechState(self._models, floors, self._status, self._known)


class _MicrophoneSpeech:
    """One microphone: its grid, its segmenter, and the samples of the open utterance."""

    def __init__(
        self,
        voice: Model,
        since: int,
        audits: Callable[[int], bool],
        count: Callable[[str, int], None],
    ) -> None:
        self.grid = AudioGrid()
        self._voice, self._audits, self._count = voice, audits, count
        self._since = since  # ns; earlier seconds lack part of their context
        self._segmenter: Segmenter | None = None  # from the first second on
        self._kept: dict[int, Samples] = {}  # second -> its samples, from the open utterance on

    @property
    def upto(self) -> int:
        """No later utterance starts before this. Ns."""
        return self.grid.upto if self._segmenter is None else self._segmenter.upto

    @property
    def floor(self) -> int:
        """Audio captured before this is not needed any more. Ns."""
        anchor = self.grid.upto if self._segmenter is None else self._segmenter.anchor
        return (anchor // SECOND - CONTEXT_SECONDS) * SECOND

    def hear(self, seconds: Sequence[Second]) -> list[tuple[SpeechSpan, Samples]]:
        """Returns the utterances that end with these seconds, or by the time the grid reached."""
        found = []
        for second in seconds:
            if second.heard and second.start >= self._since:
                found += self._second(second)
        if self._segmenter is not None and self._segmenter.heard < self.grid.upto:
            found += self._cut_out(self._segmenter.skip(self.grid.upto))
        return found

    def _second(self, second: Second) -> list[tuple[SpeechSpan, Samples]]:
        if self._segmenter is None:
            self._segmenter = Segmenter(second.start)
        self._kept[second.index] = second.own
        end = second.start + SECOND
        found = []
        for ago, probability in zip(
            range(FRAMES_A_SECOND, 0, -1), self._probabilities(second), strict=True
        ):
            start = max(end - ago * VOICE_FRAME, second.start)
            found += self._segmenter.push(start, end - (ago - 1) * VOICE_FRAME, probability)
        return self._cut_out(found)

    def _probabilities(self, second: Second) -> list[float]:
        """The probability of voice in each frame of a second: 0 in a gated one."""
        audited = second.still and self._audits(second.start)
        if second.still and not audited:
            self._count("seconds.gated", 1)
            return [0.0] * FRAMES_A_SECOND
        self._count("seconds.heard", 1)
        (probabilities,) = self._voice([second.samples])
        frames: list[float] = probabilities[-FRAMES_A_SECOND:].tolist()
        if audited:
            voice = sum(probability >= MEANT.opens for probability in frames) * VOICE_FRAME
            self._count("audited", 1)
            self._count("audited.missed", int(voice >= MEANT.least))
        return frames

    def _cut_out(self, spans: Sequence[SpeechSpan]) -> list[tuple[SpeechSpan, Samples]]:
        """Returns the spans with their samples, and drops samples that are no longer needed."""
        cut = [(span, self._between(span)) for span in spans]
        first = self.upto // SECOND
        self._kept = {index: own for index, own in self._kept.items() if index >= first}
        return cut

    def _between(self, span: SpeechSpan) -> Samples:
        first, last = span.start // SECOND, -(-span.end // SECOND)
        whole = np.concatenate([self._kept[index] for index in range(first, last)])
        low, high = ((time - first * SECOND) * RATE // SECOND for time in span)
        return whole[low:high]


class _SpeechState:
    def __init__(
        self,
        models: tuple[Model, Model, Model],
        floors: dict[str, int],
        status: Ledger | None,
        known: Known | None,
    ) -> None:
        self._voice, self._speech, self._text = models
        self._floors, self._status, self._known = floors, status, known
        self._listeners: dict[
            str, dict[str, _MicrophoneSpeech]
        ] = {}  # site -> microphone -> listener
        self.counting = True

    def on(self, record: Record, inferred: str | None) -> Sequence[Record]:
        if self._known is not None and (record.site, record.source) not in self._known:
            return []  # no roster would ever remove its listener, whose floor holds the site back
        match record:
            case AudioChunk():
                return self._chunk(record, inferred)
            case Progress():
                return self._promised(record)
            case Roster():
                listeners = self._listeners.get(record.site, {})
                for gone in listeners.keys() - set(record.sources):
                    del listeners[gone]  # its floor would hold the site back for ever
                return [record]
            case _:
                return []

    def floor(self, site: str) -> int:
        """Two seconds before the earliest audio that an open utterance depends on. Ns."""
        listeners = self._listeners.get(site, {}).values()
        return min((listener.floor for listener in listeners), default=FOREVER)

    def _listener(self, record: Record) -> _MicrophoneSpeech:
        listeners = self._listeners.setdefault(record.site, {})
        if record.source not in listeners:
            since = self._floors.get(record.site, BEFORE_ALL) + CONTEXT_SECONDS * SECOND
            site, source = record.site, record.source
            audit = hear_of(self._known, site, source).audit
            listeners[source] = _MicrophoneSpeech(
                self._voice,
                since,
                lambda start: picked(site, source, start, audit),
                lambda what, n: self._count(record, what, n),
            )
        return listeners[record.source]

    def _chunk(self, chunk: AudioChunk, left_out: str | None) -> list[Record]:
        listener = self._listener(chunk)
        before = listener.upto
        try:
            seconds = listener.grid.push(chunk)
        except DecodeError:
            self._count(chunk, "dropped.unusable")
            return []
        self._count(chunk, "dropped.behind" if left_out == VOICE else "processed")
        heard = listener.hear([] if left_out == VOICE else seconds)
        said = self._said(chunk, [] if left_out else heard)
        if left_out:
            self._count(chunk, "not_transcribed.behind", len(heard))
        if self._status is not None:
            source = speech_source(chunk.source)
            self._status.reach(chunk.site, source, "processed", chunk.start)
        if listener.upto == before:
            return said
        reason = NOT_TRANSCRIBED if left_out else ""
        return [*said, _progress(chunk, listener.upto, reason=reason)]

    def _promised(self, promise: Progress) -> list[Record]:
        listener = self._listener(promise)
        before = listener.upto
        said = self._said(promise, listener.hear(listener.grid.promise(promise.upto)))
        # Progress of a lost source repeats each hop; that of a live one only when it moves.
        if listener.upto == before and promise.alive:
            return said
        return [
            *said,
            _progress(promise, listener.upto, alive=promise.alive, reason=promise.reason),
        ]

    def _said(self, record: Record, heard: Sequence[tuple[SpeechSpan, Samples]]) -> list[Record]:
        said: list[Record] = []
        for span, samples in heard:
            (transcript,) = self._speech([samples])
            text = cleaned(transcript.text)
            if not text:
                self._count(record, "not_understood")
                continue
            (embedding,) = self._text([text])
            said.append(
                Utterance(
                    site=record.site,
                    source=speech_source(record.source),
                    start=span.start,
                    end=span.end,
                    text=text,
                    language=transcript.language,
                    confidence=transcript.confidence,
                    embedding=packed(embedding),
                )
            )
        self._count(record, "utterances", len(said))
        return said

    def _count(self, record: Record, what: str, n: int = 1) -> None:
        if self._status is not None and self.counting:
            self._status.count(record.site, speech_source(record.source), what, n)


def _progress(record: Record, upto: int, *, alive: bool = True, reason: str = "") -> Progress:
    source = speech_source(record.source)
    return Progress(site=record.site, source=source, upto=upto, alive=alive, reason=reason)
