"""The sound stage: emits a `Sound` for each UTC second of a microphone."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property

import msgspec
import numpy as np

from models.hearing.waveform import QUIET_DB, RATE, Samples
from models.hearing.yamnet_features import CLASSES
from pipeline.errors import DecodeError
from pipeline.judge.rules import MIN_EVIDENCE
from pipeline.ports import Model
from pipeline.topics import AUDIO
from pipeline.types import (
    FOREVER,
    SECOND,
    AudioChunk,
    DeadLetter,
    Progress,
    Record,
    Roster,
    Sound,
)
from workers.media.levels import floor, loudness
from workers.runtime.status import Ledger
from workers.stages.audio_grid import AudioGrid, Known, Second, hear_of
from workers.stages.audit import picked
from workers.stages.overload import Backlog, HearingPace

HEARD_BY_YAMNET = slice(RATE + 320, 3 * RATE - 80)  # [k-0.98 s, k+0.995 s): three patches of YAMNet
ALARM = 0.5  # the threshold of every label, as the head was fitted
NOT_HEARD = "not heard: hearing is too far behind"  # the reason of a Progress


class SoundStage:
    """audio.v1 -> observations.v1: a Sound for each second of which anything was captured.

    `model` takes waveforms (16 kHz mono) and returns YAMNet's 521 scores for each; `head` turns
    scores into labels. Unusable chunks are counted as `dropped.unusable` and emitted as a
    DeadLetter; repeated samples are counted as `repeated.samples`. Progress is held back to the
    start of the first incomplete second, for a live and for a lost source; Roster passes unchanged.
    Records of microphones that are not in `known` are dropped, and no state is kept for them: they
    left the config (None: all microphones are known).

    A second that holds the usual noise alone (`Second.still`) is gated: no model hears it, and its
    Sound says so, with labels of 0 and without embedding. The part `hear.audit` of them is heard
    all the same, and counted as `audited`; as `audited.missed`, if it has a label of 0.5 or more.

    At the sites `early`, those with a rule for sounds, what is heard in the middle of a second is
    told at once as an early Sound, if it has a label that a rule may want. YAMNet hears the same
    pieces for the whole second, so this costs little.

    With a `pace`, a stage that is too far behind leaves seconds out: their chunks are counted as
    `dropped.behind`, the seconds as `seconds.behind`, and Progress tells it.
    """

    def __init__(
        self,
        model: Model,
        head: Callable[[Samples], Mapping[str, float]],
        status: Ledger | None = None,
        known: Known | None = None,
        early: Container[str] = (),
        pace: HearingPace | None = None,
    ) -> None:
        self._parts = model, head, status, known, early
        self._pace = pace

    def watch(self, backlog: Backlog) -> None:
        """Takes the function that returns how many entries wait to be polled."""
        if self._pace is not None:
            self._pace.watch(backlog)

    def infer(self, batch: Sequence[Record]) -> Sequence[str | None]:
        """Returns for each record what is left out; the model runs in `State.on`, as a second spans
        chunks."""
        left_out = None if self._pace is None else self._pace.gives_way(batch)
        return [left_out] * len(batch)

    def open(self, floors: dict[str, int]) -> _SoundState:
        """Returns a state that is rebuilt from the chunks of the two seconds before the next."""
        return _SoundState(*self._parts)


class _SoundState:
    def __init__(
        self,
        model: Model,
        head: Callable[[Samples], Mapping[str, float]],
        status: Ledger | None,
        known: Known | None,
        early: Container[str],
    ) -> None:
        self._model, self._head, self._status, self._known = model, head, status, known
        self._early = early
        self._grids: dict[str, dict[str, AudioGrid]] = {}  # site -> source -> grid
        self.counting = True

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The labels of the head; an absent one has none."""
        return tuple(self._head(np.zeros(CLASSES, np.float32)))

    def on(self, record: Record, inferred: str | None) -> Sequence[Record]:
        if self._known is not None and (record.site, record.source) not in self._known:
            return []  # no roster would ever remove its grid, whose floor holds the site back
        match record:
            case AudioChunk():
                return self._chunk(record, left_out=inferred is not None)
            case Progress():
                grid = self._grid(record)
                before = grid.upto
                sounds = self._sounds(record, grid.promise(record.upto))
                # Progress of a lost source repeats each hop; that of a live one only when it moves.
                if grid.upto == before and record.alive:
                    return sounds
                return [*sounds, self._progress(record, grid, record)]
            case Roster():
                grids = self._grids.get(record.site, {})
                for gone in grids.keys() - set(record.sources):
                    del grids[gone]  # its floor would hold the site back for ever
                return [record]
            case _:
                return []

    def floor(self, site: str) -> int:
        """Start of the context of the next second, the earliest of all microphones. Ns."""
        grids = self._grids.get(site, {}).values()
        return min((grid.floor for grid in grids), default=FOREVER)

    def _grid(self, record: Record) -> AudioGrid:
        grids = self._grids.setdefault(record.site, {})
        if record.source not in grids:
            grids[record.source] = AudioGrid(halves=record.site in self._early)
        return grids[record.source]

    def _chunk(self, chunk: AudioChunk, *, left_out: bool) -> list[Record]:
        grid = self._grid(chunk)
        before, repeated = grid.upto, grid.repeated
        try:
            seconds = grid.push(chunk)
        except DecodeError as error:
            self._count(chunk, "dropped.unusable")
            return [_dead(chunk, str(error))]
        self._count(chunk, "repeated.samples", grid.repeated - repeated)
        self._count(chunk, "dropped.behind" if left_out else "processed")
        if self._status is not None:
            self._status.reach(chunk.site, chunk.source, "processed", chunk.start)
        if left_out:
            self._count(chunk, "seconds.behind", sum(second.heard for second in seconds))
        sounds = [] if left_out else self._sounds(chunk, seconds)
        if grid.upto == before:
            return sounds
        moved = self._progress(chunk, grid)
        return [*sounds, msgspec.structs.replace(moved, reason=NOT_HEARD) if left_out else moved]

    def _sounds(self, record: Record, seconds: Sequence[Second]) -> list[Record]:
        made: list[Record] = []
        for second in seconds:
            if second.early:
                made += self._sooner(record, second)
            elif second.heard:
                made.append(self._second(record, second))
        return made

    def _sooner(self, record: Record, second: Second) -> list[Record]:
        if second.still:
            return []
        (scores,) = self._model([second.samples[HEARD_BY_YAMNET]])
        sound = self._sound(record, second, self._head(scores))
        heard = max(sound.labels.values(), default=0.0) >= MIN_EVIDENCE
        return [msgspec.structs.replace(sound, early=True)] if heard else []

    def _second(self, record: Record, second: Second) -> Sound:
        site, source = record.site, record.source
        audit = hear_of(self._known, site, source).audit
        audited = second.still and picked(site, source, second.start, audit)
        if second.still and not audited:
            self._count(record, "seconds.gated")
            return self._sound(record, second, dict.fromkeys(self._names, 0.0), gated=True)
        self._count(record, "seconds.heard")
        (scores,) = self._model([second.samples[HEARD_BY_YAMNET]])
        sound = self._sound(record, second, self._head(scores), scores)
        if audited:
            missed = any(score >= ALARM for score in sound.labels.values())
            self._count(record, "audited")
            self._count(record, "audited.missed", int(missed))
        return sound

    def _sound(
        self,
        record: Record,
        second: Second,
        labels: Mapping[str, float],
        scores: Samples | None = None,
        *,
        gated: bool = False,
    ) -> Sound:
        level = loudness(second.own)
        if level < QUIET_DB:
            labels = dict.fromkeys(labels, 0.0)
        return Sound(
            site=record.site,
            source=record.source,
            start=second.start,
            end=second.start + SECOND,
            labels=labels,
            loudness_db=level,
            embedding=b"" if scores is None else np.asarray(scores, "<f2").tobytes(),
            clipped=second.clipped,
            floor_db=floor(second.own),
            gated=gated,
        )

    def _progress(
        self, record: Record, grid: AudioGrid, promised: Progress | None = None
    ) -> Progress:
        return Progress(
            site=record.site,
            source=record.source,
            upto=grid.upto,
            alive=promised.alive if promised else True,
            reason=promised.reason if promised else "",
        )

    def _count(self, record: Record, what: str, n: int = 1) -> None:
        if self._status is not None and self.counting:
            self._status.count(record.site, record.source, what, n)


def _dead(chunk: AudioChunk, reason: str) -> DeadLetter:
    return DeadLetter(
        site=chunk.site,
        source=chunk.source,
        topic=AUDIO,
        partition=0,  # a state does not know the offset; `seq` identifies the chunk
        offset=0,
        reason=f"audio chunk {chunk.seq} cannot be heard: {reason}",
        value=b"",
    )
