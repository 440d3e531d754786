"""Lists dead letters and sends their records again (`fusewatch dead list|retry`).

`dead.v1` is a log like the others: a letter stays until its retention ends, even after its record
was sent again. A repeat is safe: a stage recognizes a record that it has had, and a subscriber
recognizes the `webhook-id`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from pipeline import codec, topics
from pipeline.errors import ConfigError, DecodeError, OutsideError, Rejected, Retry
from pipeline.limits import MAX_DEAD_BYTES
from pipeline.ports import Bus, Entry
from pipeline.types import Alert, DeadLetter, rfc3339
from workers.delivery.delivery import Subscriber

# the source of a delivery's dead letter, before the subscriber's name
DELIVERY_PREFIX = "delivery/"
RETRY_TOPICS = frozenset(topics.ALL_TOPICS) - {
    topics.LATE,
    topics.DEAD,
    topics.CONFIGS,
}  # topics that take a record again
REPEATS_NOTE = (
    "What begins before the time that its source has reached meanwhile counts as a repeat: it is "
    "read, counted, and changes nothing."
)
_ID = re.compile(r"[0-9]{1,9}:[0-9]{1,18}")

Stored = tuple[int, Entry]  # time of the append in ns UTC, entry


class Found(msgspec.Struct, frozen=True):
    """An entry of `dead.v1`; `wrong` is the reason if it is not a dead letter."""

    time: int  # ns UTC at which it was appended
    entry: Entry
    letter: DeadLetter | None
    wrong: str = ""

    @property
    def id(self) -> str:
        """The id of the entry: `partition:offset`."""
        return f"{self.entry.partition}:{self.entry.offset}"

    @property
    def cut(self) -> bool:
        """Whether the record was cut because it was too long, as its reason says."""
        kept = self.letter
        return (
            kept is not None
            and len(kept.value) >= MAX_DEAD_BYTES
            and kept.reason.endswith(" bytes]")
        )

    def row(self) -> dict[str, object]:
        """The entry for `--json`, without the record's bytes, which may not be text."""
        row: dict[str, object] = {"id": self.id, "time": rfc3339(self.time)}
        if self.letter is None:
            return row | {"reason": self.wrong, "size": len(self.entry.value)}
        told = ("site", "source", "topic", "partition", "offset", "reason")
        row |= {name: getattr(self.letter, name) for name in told}
        return row | {"size": len(self.letter.value), "cut": self.cut}

    def line(self) -> str:
        """The entry as a line for a person; non-printable characters are escaped."""
        when = rfc3339(self.time)[:19] + "Z"
        if self.letter is None:
            return shown(f"{self.id}  {when}  (no dead letter)  {self.wrong}")
        of = self.letter
        place = f"{of.topic}/{of.partition}@{of.offset}"
        whose = f"{of.site}/{of.source}" if of.source else of.site
        return shown(f"{self.id}  {when}  {whose}  {place}  {len(of.value)} bytes  {of.reason}")


def read(
    stored: Iterable[Stored], *, site: str | None = None, subscriber: str | None = None
) -> Iterator[Found]:
    """Decodes the entries of `dead.v1`, of one site or subscriber or of all."""
    source = None if subscriber is None else f"{DELIVERY_PREFIX}{subscriber}"
    for time, entry in stored:
        found = found_in(time, entry)
        of = found.letter
        if site is not None and (of is None or of.site != site):
            continue
        if source is not None and (of is None or of.source != source):
            continue
        yield found


def found_in(time: int, entry: Entry) -> Found:
    """Decodes one entry of `dead.v1`, appended at `time` (ns UTC)."""
    try:
        if entry.fault:
            raise DecodeError(entry.fault)
        record = codec.decode(entry.value)
    except DecodeError as error:
        return Found(time, entry, None, str(error)[:300])
    if not isinstance(record, DeadLetter):
        return Found(time, entry, None, f"{type(record).__name__}: not what belongs here")
    return Found(time, entry, record)


def select_letters(found: Iterable[Found], ids: Iterable[str]) -> Iterator[Found]:
    """Selects the entries with these ids.

    Raises ConfigError for an invalid id, and after the last entry for ids that were not found.
    """
    wanted = set(ids)
    for id_ in sorted(wanted):
        parsed_id(id_)
    for each in found:
        if each.id in wanted:
            wanted.discard(each.id)
            yield each
        if not wanted:
            return
    msg = f"no dead letter {', '.join(sorted(wanted))}; `dead list` shows what there is"
    raise ConfigError(msg)


def parsed_id(text: str) -> tuple[int, int]:
    """(partition, offset) of an id of a dead letter; raises ConfigError."""
    if not _ID.fullmatch(text):
        msg = f"{shown(text[:40])!r} is no id of a dead letter, like 0:17; `dead list` has them"
        raise ConfigError(msg)
    partition, offset = text.split(":")
    return int(partition), int(offset)


class Retrier:
    """Sends records again: to their topic, or to the one subscriber that did not take them.

    `subscribers` returns those that can be reached from here. `daemon` asks the running daemon,
    which has the log: it gets what goes to a topic and what goes to a file of its state folder.
    `sent` counts the records that went back to a topic.
    """

    def __init__(
        self,
        bus: Bus | None,
        subscribers: Callable[[], Iterable[Subscriber]],
        daemon: Callable[[str], tuple[bool, str]] | None = None,
    ) -> None:
        self._bus = bus
        self._subscribers = subscribers
        self._daemon = daemon
        self._known: Mapping[str, Subscriber] | None = None
        self.sent = 0

    def retry(self, found: Found) -> tuple[bool, str]:
        """Sends one record; returns whether it was sent, and the outcome. Raises as the bus."""
        of = found.letter
        if of is None:
            return False, f"it is no dead letter: {found.wrong}"
        if found.cut:
            return False, f"only its first {len(of.value)} bytes were kept"
        try:
            record = codec.decode(of.value)
        except DecodeError as error:
            return False, f"it would come back: {str(error)[:300]}"
        if of.source.startswith(DELIVERY_PREFIX):
            return self._deliver(of.source.removeprefix(DELIVERY_PREFIX), record, found)
        if of.topic not in RETRY_TOPICS:
            return False, f"{of.topic} is no topic to which a record could go back"
        return self._publish(of, found)

    def _publish(self, of: DeadLetter, found: Found) -> tuple[bool, str]:
        if self._bus is None:
            went, what = self._asked(found)
            self.sent += went
            return went, what
        key = topics.key_of(of.topic, of)
        self._bus.publish(of.topic, key, of.value, found.entry.trace)
        self._bus.flush()
        self.sent += 1
        return True, f"published to {of.topic} again, under {key}"

    def _deliver(self, name: str, record: object, found: Found) -> tuple[bool, str]:
        if not isinstance(record, Alert):
            return False, f"it is no alert, but {type(record).__name__}"
        if self._known is None:
            self._known = {who.name: who for who in self._subscribers()}
        if name not in self._known:
            if self._daemon is not None:
                return self._asked(found)
            there = ", ".join(sorted(self._known)) or "none"
            return False, f"there is no subscriber {name} here (there are: {there})"
        who = self._known[name]
        try:
            who.sink.send(record, found.entry.trace)
            who.flush()
        except (Retry, Rejected, OutsideError) as error:
            return False, f"{name} did not take it: {error}"
        return True, f"{name} took it"

    def _asked(self, found: Found) -> tuple[bool, str]:
        if self._daemon is None:
            return False, "there is no log here that it could go back to"
        return self._daemon(found.id)


def shown(text: str) -> str:
    """`text` with non-printable characters escaped, so that a terminal executes none of them."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
