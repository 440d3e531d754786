"""Runs a stage: poll, infer, feed, publish, flush, commit, always in this order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pipeline import codec, topics, trace
from pipeline.errors import DecodeError
from pipeline.host import Host
from pipeline.limits import MAX_DEAD_BYTES, MAX_RECORD_BYTES, most_bytes
from pipeline.ports import Assigned, Bus, Entry, Reader, Revoked, Stage
from pipeline.types import (
    Alert,
    Anomaly,
    AudioChunk,
    DeadLetter,
    Described,
    Detections,
    FrameChunk,
    Late,
    Mode,
    Progress,
    Record,
    Report,
    Roster,
    SiteConfig,
    Sound,
    Utterance,
)

# characters of a reason, and of a site or source: a malicious record may put long text into either
MAX_REASON, MAX_NAME = 1000, 200
KINDS: Mapping[str, tuple[type[Record], ...]] = {  # the record types of each topic but two
    topics.FRAMES: (FrameChunk, Progress, Roster),
    topics.AUDIO: (AudioChunk, Progress, Roster),
    topics.REPORTS: (Report, Progress, Roster, Mode),
    topics.OBSERVATIONS: (Detections, Sound, Utterance, Described, Progress, Roster, Mode),
    topics.ANOMALIES: (Anomaly, Progress),
    topics.ALERTS: (Alert,),
    topics.CONFIGS: (SiteConfig,),
}


@runtime_checkable
class WatchesBacklog(Protocol):
    """A stage that does less while it cannot keep up.

    `backlog` returns how many entries wait to be polled. The stage calls it within `infer` alone.
    """

    def watch(self, backlog: Callable[[], int]) -> None: ...


class Runner:
    """Connects a stage to the topic that it reads and the topic that it writes. Not thread-safe.

    `limit` is the largest poll. A record of more than `max_bytes` goes to the dead topic. To
    restart a stage, close its runner and create a new one.
    """

    def __init__(
        self,
        stage: Stage,
        bus: Bus,
        *,
        topic: str,
        group: str,
        out: str,
        limit: int = 64,
        max_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self.stage = stage
        self.bus = bus
        self.topic = topic
        self.group = group
        self.out = out
        self.limit = limit
        self.max_bytes = max_bytes
        self.reader: Reader = bus.reader(topic, group)
        self.hosts: dict[int, Host] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.settling = False  # in flush or commit: a delay now is the bus's, not the stage's
        self.answered = 0  # entries that the present turn has answered, published or not
        if isinstance(stage, WatchesBacklog):
            stage.watch(lambda: sum(self.reader.behind(number) for number in self.hosts))

    def step(self, wait: float = 0.0) -> int:
        """Runs one turn and returns the number of entries; waits at most `wait` seconds for
        the first."""
        return step(self, wait)

    def close(self) -> None:
        """Closes the reader; the next runner reads uncommitted entries again."""
        self.reader.close()


def step(runner: Runner, wait: float = 0.0) -> int:
    """Runs one turn of `runner` and returns the number of entries processed.

    Bytes that are not a record go to the dead topic, and the partition advances. Any other error is
    a bug or comes from outside: it is raised with a note of the topic, partition and offset, and
    nothing is committed.
    """
    runner.answered = 0
    entries = _polled(runner, wait)
    read = [(entry, _read(runner, entry)) for entry in entries]
    wanted = [
        (entry, record)
        for entry, record in read
        if not isinstance(record, DecodeError)
        and runner.hosts[entry.partition].wants(entry.offset, record)
    ]
    inferred = _infer(runner, wanted)
    for entry, record in read:
        hop = trace.child(entry.trace, runner.group)
        try:
            for made in _answers(runner, entry, record, inferred):
                _publish(runner, entry, made, hop)
        except Exception as error:
            error.add_note(f"{runner.topic}/{entry.partition}@{entry.offset}")
            raise
        runner.answered += 1
    runner.settling = True
    try:
        if entries:
            runner.bus.flush()
        for partition in dict.fromkeys(entry.partition for entry in entries):
            _commit(runner, partition)
    finally:
        runner.settling = False
    return len(entries)


def _publish(runner: Runner, entry: Entry, made: Record, hop: str) -> None:
    """Publishes one output; an output that is too large for the bus becomes a dead letter.

    Otherwise it would fail again after every restart, and the partition would never advance.
    """
    topic, value = _topic_of(made, runner.out), codec.encode(made)
    if len(value) > most_bytes(topic, runner.max_bytes):
        reason = (
            f"the answer of {runner.group}, {type(made).__name__}, has {len(value)} bytes, and a "
            f"record has {runner.max_bytes} at most"
        )
        made = dead_letter(
            site=made.site, source=made.source, topic=runner.topic, entry=entry, reason=reason
        )
        topic, value = topics.DEAD, codec.encode(made)
    runner.settling = True  # a large buffer is flushed here, which may wait
    try:
        runner.bus.publish(topic, topics.key_of(topic, made), value, hop)
    finally:
        runner.settling = False


def _topic_of(record: Record, out: str) -> str:
    """Returns the topic of a stage's output: Late and DeadLetter have topics of their own."""
    match record:
        case Late():
            return topics.LATE
        case DeadLetter():
            return topics.DEAD
        case _:
            return out


def decoded(entry: Entry, topic: str, max_bytes: int = MAX_RECORD_BYTES) -> Record:
    """Returns the record of an entry; raises DecodeError for an entry that must go to the dead
    topic.

    A record type that the topic does not hold is such an entry, so no stage has to handle it.
    """
    if entry.fault:
        raise DecodeError(entry.fault)
    if len(entry.value) > max_bytes:
        msg = f"{len(entry.value)} bytes, and a record has {max_bytes} at most"
        raise DecodeError(msg)
    record = codec.decode(entry.value)
    if topic in KINDS and not isinstance(record, KINDS[topic]):
        msg = f"{type(record).__name__}, and {topic} holds none of those"
        raise DecodeError(msg)
    return record


class Steps(Protocol):
    """A runner of a stage, as `drain` sees it."""

    def step(self) -> int: ...


def drain(runners: Sequence[Steps], pump: Callable[[], bool] = lambda: False) -> int:
    """Steps the runners round robin until nothing moves; returns the number of entries processed.

    When nothing moves, `pump` publishes (and flushes) the next slice of a recording and returns
    whether there was one. One thread and no clock: the same slices give the same turns every time.
    """
    total = 0
    while True:
        moved = sum(runner.step() for runner in runners)
        total += moved
        if not moved and not pump():
            return total


def _polled(runner: Runner, wait: float) -> list[Entry]:
    """Returns the entries of one poll, after applying its partition assignments and revocations."""
    entries: list[Entry] = []
    for event in runner.reader.poll(runner.limit, wait):
        match event:
            case Assigned():
                runner.hosts[event.partition] = Host(runner.stage, event)
                runner.committed[event.partition] = (event.offset, event.note)
            case Revoked():
                del runner.hosts[event.partition], runner.committed[event.partition]
                entries = [entry for entry in entries if entry.partition != event.partition]
            case Entry():
                entries.append(event)
    return entries


def _read(runner: Runner, entry: Entry) -> Record | DecodeError:
    try:
        return decoded(entry, runner.topic, runner.max_bytes)
    except DecodeError as error:
        return error


def _infer(runner: Runner, wanted: list[tuple[Entry, Record]]) -> dict[tuple[int, int], Any]:
    """Returns the model's result for each wanted record, by (partition, offset)."""
    if not wanted:
        return {}
    batch = [record for _, record in wanted]
    try:
        results = runner.stage.infer(batch)
        if len(results) != len(batch):
            msg = (
                f"{type(runner.stage).__name__}.infer gave {len(results)} results "
                f"for {len(batch)} records: it must give one each"
            )
            raise RuntimeError(msg)
    except Exception as error:
        places = ", ".join(f"{runner.topic}/{e.partition}@{e.offset}" for e, _ in wanted)
        error.add_note(f"while inferring {places}")
        raise
    return {
        (entry.partition, entry.offset): result
        for (entry, _), result in zip(wanted, results, strict=True)
    }


def _answers(
    runner: Runner,
    entry: Entry,
    record: Record | DecodeError,
    inferred: dict[tuple[int, int], Any],
) -> list[Record]:
    """Returns the records to publish for one entry."""
    host = runner.hosts[entry.partition]
    if isinstance(record, DecodeError):
        return [_dead(runner.topic, entry, str(record))] if host.skip(entry.offset) else []
    made = host.feed(entry.offset, record, inferred.get((entry.partition, entry.offset)))
    return [_placed(runner.topic, entry, one) for one in made]


def dead_letter(*, site: str, source: str, topic: str, entry: Entry, reason: str) -> DeadLetter:
    """Returns a dead letter that always fits into `dead.v1`: fields that are too long are cut."""
    size = len(entry.value)
    cut = "" if size <= MAX_DEAD_BYTES else f" [the first {MAX_DEAD_BYTES} of {size} bytes]"
    return DeadLetter(
        site=site[:MAX_NAME],
        source=source[:MAX_NAME],
        topic=topic,
        partition=entry.partition,
        offset=entry.offset,
        reason=reason[:MAX_REASON] + cut,
        value=entry.value[:MAX_DEAD_BYTES],
    )


def _dead(topic: str, entry: Entry, reason: str) -> DeadLetter:
    site, _, source = entry.key.partition("/")
    return dead_letter(site=site, source=source, topic=topic, entry=entry, reason=reason)


def _placed(topic: str, entry: Entry, made: Record) -> Record:
    """Fills in the position of a rejected record, which the stage does not know."""
    if not isinstance(made, DeadLetter):
        return made
    return dead_letter(
        site=made.site, source=made.source, topic=topic, entry=entry, reason=made.reason
    )


def _commit(runner: Runner, partition: int) -> None:
    """Commits `safe` and the note, unless they equal the last commit."""
    host = runner.hosts[partition]
    commit = (host.safe, host.note)
    if commit != runner.committed[partition]:
        runner.reader.commit(partition, *commit)
        runner.committed[partition] = commit
