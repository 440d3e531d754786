"""How a stage is run: poll, infer, feed, publish, flush, commit, in this order always."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    Progress,
    Record,
    Report,
    Roster,
    Sound,
    Utterance,
)

# characters of a reason, and of a site or source: a poisoned record may
MAX_REASON, MAX_NAME = 1000, 200
# quote itself in the one, and a poisoned key fill the other
KINDS: Mapping[str, tuple[type[Record], ...]] = {  # what a topic that stages read may hold
    topics.FRAMES: (FrameChunk, Progress, Roster),
    topics.AUDIO: (AudioChunk, Progress, Roster),
    topics.REPORTS: (Report, Progress, Roster),
    topics.OBSERVATIONS: (Detections, Sound, Utterance, Described, Progress, Roster),
    topics.ANOMALIES: (Anomaly, Progress),
    topics.ALERTS: (Alert,),
}


class Runner:
    """A stage between the topic that it reads and the one that it writes; for one thread.

    `limit` is the largest poll; a record of more than `max_bytes` goes to the dead topic. Closing a
    runner and making another is what a restart is.
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
        self.settling = False  # it is the bus's turn: what takes long now is not the stage
        self.answered = 0  # entries that the present turn has answered, published or not

    def step(self, wait: float = 0.0) -> int:
        """One turn; how many entries it moved. Waits at most `wait` seconds for the first."""
        return step(self, wait)

    def close(self) -> None:
        """Closes the reader; what was not committed is read again by the next runner."""
        self.reader.close()


def step(runner: Runner, wait: float = 0.0) -> int:
    """One turn of `runner`; how many entries it moved.

    Bytes that are no record go to the dead topic, and the partition moves on. Any other error is a
    bug or the outside world: it leaves here with a note of where it happened, nothing committed.
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
    """Publishes an answer; one that no bus would take is told in a dead letter instead.

    It would be too large again after every restart, and the partition would never move on.
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
    runner.bus.publish(topic, topics.key_of(topic, made), value, hop)


def _topic_of(record: Record, out: str) -> str:
    """Where a stage that writes to `out` puts this record: late and dead have their own topics."""
    match record:
        case Late():
            return topics.LATE
        case DeadLetter():
            return topics.DEAD
        case _:
            return out


def decoded(entry: Entry, topic: str, max_bytes: int = MAX_RECORD_BYTES) -> Record:
    """The record of an entry of `topic`; raises DecodeError for what must go to the dead topic.

    So does a record of another topic's kind, and no stage need think of what never comes to it.
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


def drain(runners: Sequence[Runner], pump: Callable[[], bool] = lambda: False) -> int:
    """Steps the runners round robin until nothing moves; how many entries were moved.

    Whenever nothing moves `pump` publishes (and flushes) the next slice of a recording, and says
    whether there was one. One thread, no clock: the same slices give the same turns every time.
    """
    total = 0
    while True:
        moved = sum(runner.step() for runner in runners)
        total += moved
        if not moved and not pump():
            return total


def _polled(runner: Runner, wait: float) -> list[Entry]:
    """The entries of one poll, after what it says of partitions that come and go."""
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
    """What the model says to each wanted record, by (partition, offset)."""
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
    """What is to be published for one entry."""
    host = runner.hosts[entry.partition]
    if isinstance(record, DecodeError):
        return [_dead(runner.topic, entry, str(record))] if host.skip(entry.offset) else []
    made = host.feed(entry.offset, record, inferred.get((entry.partition, entry.offset)))
    return [_placed(runner.topic, entry, one) for one in made]


def dead_letter(*, site: str, source: str, topic: str, entry: Entry, reason: str) -> DeadLetter:
    """A dead letter that fits into `dead.v1`, whatever the entry was: what is too long is cut."""
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
    """A stage that rejects a record does not know where it stood: here that is filled in."""
    if not isinstance(made, DeadLetter):
        return made
    return dead_letter(
        site=made.site, source=made.source, topic=topic, entry=entry, reason=made.reason
    )


def _commit(runner: Runner, partition: int) -> None:
    """Commits `safe` and the note, if they are not what stands there already."""
    host = runner.hosts[partition]
    commit = (host.safe, host.note)
    if commit != runner.committed[partition]:
        runner.reader.commit(partition, *commit)
        runner.committed[partition] = commit
