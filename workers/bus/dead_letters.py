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
from pipeline.errors import ConfigError, DecodeError, Rejected, Retry
from pipeline.limits import MAX_DEAD_BYTES
from pipeline.ports import Bus, Entry, Sink
from pipeline.types import Alert, DeadLetter, rfc3339

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


def read(stored: Iterable[Stored], *, site: str | None = None) -> Iterator[Found]:
    """Decodes the entries of `dead.v1`, of one site or of all."""
    for time, entry in stored:
        found = _read(time, entry)
        if site is None or (found.letter is not None and found.letter.site == site):
            yield found


def _read(time: int, entry: Entry) -> Found:
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
    if strange := sorted(each for each in wanted if not _ID.fullmatch(each)):
        msg = (
            f"{shown(strange[0][:40])!r} is no id of a dead letter, like 0:17; `dead list` has them"
        )
        raise ConfigError(msg)
    for each in found:
        if each.id in wanted:
            wanted.discard(each.id)
            yield each
        if not wanted:
            return
    msg = f"no dead letter {', '.join(sorted(wanted))}; `dead list` shows what there is"
    raise ConfigError(msg)


class Retrier:
    """Sends records again: to their topic, or to the one subscriber that did not take them.

    `sinks` returns the webhooks by name. `sent` counts the records that went back to a topic.
    """

    def __init__(self, bus: Bus, sinks: Callable[[], Mapping[str, Sink]]) -> None:
        self._bus = bus
        self._sinks = sinks
        self._known: Mapping[str, Sink] | None = None
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
            return self._deliver(of.source.removeprefix(DELIVERY_PREFIX), record, found.entry.trace)
        if of.topic not in RETRY_TOPICS:
            return False, f"{of.topic} is no topic to which a record could go back"
        key = topics.key_of(of.topic, of)
        self._bus.publish(of.topic, key, of.value, found.entry.trace)
        self._bus.flush()
        self.sent += 1
        return True, f"published to {of.topic} again, under {key}"

    def _deliver(self, name: str, record: object, trace: str) -> tuple[bool, str]:
        if not isinstance(record, Alert):
            return False, f"it is no alert, but {type(record).__name__}"
        if self._known is None:
            self._known = self._sinks()
        if name not in self._known:
            there = ", ".join(sorted(self._known)) or "none"
            return False, f"the config has no webhook {name} (there are: {there})"
        try:
            self._known[name].send(record, trace)
        except (Retry, Rejected) as error:
            return False, f"{name} did not take it: {error}"
        return True, f"{name} took it"


def shown(text: str) -> str:
    """`text` with non-printable characters escaped, so that a terminal executes none of them."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
