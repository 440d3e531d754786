"""Who reads chunks speaks for captures that are gone, and for nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pipeline import codec, topics, types
from pipeline.bus.memory import MemoryBus
from pipeline.config import schema
from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Entry, Revoked
from pipeline.stages import SPEAKS
from pipeline.types import SECOND, Progress, Record, Roster, ns
from tests import make
from workers.bus.absent_captures import (
    OUTAGE_GRACE,
    AbsenceDetectingBus,
    AbsenceDetectingReader,
    expected,
)
from workers.capture.heartbeat import LOST_AFTER, HeartbeatMonitor, may_be_from_monitor

TURN = 1 * SECOND
PARTS = {"office/desk": 0, "office/door": 1, "office/gone": 1, "office/reports": 0}
WHO = [("office", name, ("desk", "door"), LOST_AFTER) for name in ("desk", "door")]


class Line:
    """A topic of two partitions, its reader, its brokers and the time; a turn is a second."""

    def __init__(self, who: Any = None) -> None:
        self.now = 1000 * SECOND
        self.log: dict[int, list[tuple[str, bytes]]] = {0: [], 1: []}
        self.next = {0: 0, 1: 0}
        self.events: list[Assigned | Revoked] = [Assigned(0, 0, b""), Assigned(1, 0, b"")]
        self.away = False
        self.most = 100  # entries that the reader takes in a turn
        self.hangs = 0  # ns that the stage takes between two polls
        self.lost = 0
        self.told: list[Record] = []
        self.reads: list[Entry] = []
        self.watched = AbsenceDetectingReader(
            self, self, self, topics.FRAMES, who or WHO,
            clock=lambda: self.now, utc=lambda: self.now + 5 * SECOND,
        )  # fmt: skip

    # the reader

    def poll(self, limit: int, wait: float = 0.0) -> list[Assigned | Entry | Revoked]:
        events: list[Assigned | Entry | Revoked] = [*self.events]
        owned = {event.partition for event in self.events if isinstance(event, Assigned)}
        self.events = []
        self.owned = getattr(self, "owned", set()) | owned
        self.owned -= {event.partition for event in events if isinstance(event, Revoked)}
        left = 0 if self.away else self.most
        for part in sorted(self.owned):
            while left and self.next[part] < len(self.log[part]):
                offset = self.next[part]
                entry = Entry(part, offset, *self.log[part][offset])
                self.reads.append(entry)
                events.append(entry)
                self.next[part] += 1
                left -= 1
        return events

    def behind(self, partition: int) -> int:
        return 1 if self.away else len(self.log[partition]) - self.next[partition]

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError

    # the brokers

    def end(self, topic: str) -> Mapping[int, int]:
        if self.away:
            msg = "nobody answers"
            raise OutsideError(msg)
        return {part: len(log) for part, log in self.log.items()}

    def partition_of(self, topic: str, key: str) -> int:
        return PARTS[key]

    # the bus

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        assert topic == topics.FRAMES
        self.told.append(codec.decode(value))
        self.log[PARTS[key]].append((key, value))

    def flush(self) -> None:
        self.flushed = len(self.told)

    def fetch(self, topic: str, key: str, start: int, end: int) -> list[bytes]:
        raise AssertionError

    def reader(self, topic: str, group: str) -> Line:
        return self

    # what a test does

    def put(self, *sources: str, record: Record | None = None) -> None:
        for source in sources:
            key = f"office/{source}"
            value = codec.encode(record or make.frame(self.now // SECOND, source=source))
            self.log[PARTS[key]].append((key, value))

    def turns(self, n: int, *speaking: str) -> list[str]:
        """So many seconds, in which these cameras film: who was spoken for in them."""
        before = len(self.told)
        for _ in range(n):
            self.now += TURN
            self.put(*speaking)
            self.watched.poll(64)
        return sorted({r.source for r in self.told[before:] if isinstance(r, Progress)})


def test_silence_is_told_until_the_source_speaks_again() -> None:
    line = Line()
    assert line.turns(15, "desk") == []
    assert line.turns(5, "desk") == ["door"]
    words = [record for record in line.told if isinstance(record, Progress)]
    assert all(not word.alive and "said nothing for 15 s" in word.reason for word in words)
    assert isinstance(line.told[0], Roster)
    assert line.told[0].sources == ("desk", "door")
    assert line.flushed == len(line.told)
    assert line.turns(3, "desk") == ["door"], "and goes on to be told"
    line.turns(2, "desk", "door")
    assert line.turns(15, "desk") == [], "it came back: its patience begins anew"
    assert line.turns(5, "desk") == ["door"]


def test_a_word_promises_nothing_beyond_what_was_seen() -> None:
    line = Line()
    for _ in range(40):
        line.turns(1, "desk")
        for word in line.told:
            if isinstance(word, Progress):
                assert line.now + 5 * SECOND - 3 * SECOND <= word.upto <= line.now + 5 * SECOND
        line.told.clear()


def test_nobody_is_spoken_for_while_all_speak_however_much_waits_at_any_moment() -> None:
    line = Line()
    for _ in range(60):
        assert line.turns(1, "desk", "door") == []
        line.put("desk", "door")  # the reader is never at the end of the topic


def test_a_backlog_is_not_silence() -> None:
    line = Line()
    line.put("door", *["gone"] * 500, "door")  # of an hour, in which `door` was quiet
    line.most = 10
    assert line.turns(50, "desk") == []
    assert line.turns(30, "desk") == ["door"], "it is worked off, and nobody came since"


def test_a_backlog_that_grows_is_not_silence_for_who_is_in_it() -> None:
    line = Line()
    line.most = 1
    assert line.turns(100, "door", "desk") == []


def test_an_outage_is_not_silence_and_captures_get_time_to_come_back() -> None:
    line = Line()
    line.turns(5, "desk", "door")
    line.away = True
    assert line.turns(200) == []
    line.away = False
    assert line.turns(OUTAGE_GRACE // SECOND) == []
    assert line.turns(20) == ["desk", "door"]


def test_who_comes_back_after_an_outage_is_measured_as_before() -> None:
    line = Line()
    line.away = True
    line.turns(100)
    line.away = False
    line.turns(3, "desk", "door")
    assert line.turns(20, "desk") == ["door"]


def test_a_stage_that_hung_for_a_while_hears_again_before_it_speaks() -> None:
    line = Line()
    line.turns(5, "desk", "door")
    line.now += 60 * SECOND
    assert line.turns(15) == []
    assert line.turns(5) == ["desk", "door"]


def test_a_reader_that_is_always_behind_knows_silence_a_little_later() -> None:
    line = Line()
    line.put(*["gone"] * 50)
    line.most = 10
    assert line.turns(15, *["gone"] * 10) == []
    assert line.turns(20, *["gone"] * 10) == ["desk", "door"]
    assert line.behind(1) >= 50


def test_what_waits_and_what_is_lost_is_told_as_the_reader_tells_it() -> None:
    line = Line()
    line.put("desk", "door", "gone")
    line.lost = 7
    assert line.watched.lost == 7
    assert [line.watched.behind(part) for part in (0, 1)] == [line.behind(0), line.behind(1)]
    assert line.watched.behind(0) + line.watched.behind(1) == 3


def test_a_partition_that_went_away_is_no_longer_spoken_for() -> None:
    line = Line()
    line.turns(10)
    line.events = [Revoked(1)]
    assert line.turns(20) == ["desk"]
    line = Line()
    assert line.turns(20) == ["desk", "door"]
    line.events = [Revoked(1)]
    assert line.turns(20) == ["desk"]
    line.events = [Assigned(1, line.next[1], b"")]
    assert line.turns(15) == ["desk"], "and when it comes back, patience begins anew"
    assert line.turns(5) == ["desk", "door"]


def test_a_partition_that_comes_while_the_brokers_do_not_answer_is_learnt_later() -> None:
    line = Line()
    line.away = True
    line.turns(5)
    line.away = False
    assert line.turns(80) == ["desk", "door"]


def test_the_word_of_another_watch_is_not_the_source() -> None:
    line, other = Line(), Line()
    other.turns(30, "desk")
    words = [record for record in other.told if record.source == "door"]
    assert {type(word) for word in words} == {Progress, Roster}
    said: list[str] = []
    for k in range(30):
        line.put("door", record=words[k % len(words)])
        said += line.turns(1, "desk")
    assert "door" in said


def test_a_capture_that_says_that_its_source_is_lost_speaks() -> None:
    line = Line()
    for k in range(40):
        record = make.progress(1000 + k, source="door", alive=False, reason="no route to host")
        line.put("door", record=record)
        assert line.turns(1, "desk") == []


def test_who_left_the_config_is_not_spoken_for() -> None:
    line = Line()
    line.put("gone")
    assert line.turns(30) == ["desk", "door"]


def test_bytes_that_are_no_record_show_that_somebody_lives() -> None:
    line = Line()
    for _ in range(30):
        line.log[1].append(("office/door", b"\xc1"))
        assert line.turns(1, "desk") == []


def test_a_slow_camera_has_a_patience_of_its_own() -> None:
    line = Line([("office", "desk", ("desk",), 60 * SECOND), WHO[1]])
    assert line.turns(50) == ["door"]
    assert line.turns(20) == ["desk", "door"]


def test_where_retention_deleted_what_was_never_read_the_reader_knows_the_end() -> None:
    line = Line()
    line.log[1] = [("office/door", b"")] * 7
    line.events = [Assigned(0, 0, b""), Assigned(1, 3, b"")]  # 3 to 6 are gone: nothing will come
    line.next[1] = 7
    assert line.turns(20) == ["desk", "door"]


SITE = schema.Site(
    cameras={
        "desk": schema.Camera(source="x"),
        "slow": schema.Camera(source="x", detect=schema.Detect(fps=0.05)),
    },
    microphones={"room": schema.Microphone(source="x")},
)


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        (topics.FRAMES, {"desk": 15, "slow": 70}),
        (topics.AUDIO, {"room": 15}),
        (topics.REPORTS, {"reports": 15}),
    ],
)
def test_the_config_says_who_is_to_speak_in_a_topic(topic: str, names: dict[str, int]) -> None:
    of = ("desk", "slow", "room", "room/speech", "reports")
    assert list(expected({"office": SITE}, topic, 15 * SECOND)) == [
        ("office", name, of, seconds * SECOND) for name, seconds in names.items()
    ]


def test_operators_may_be_more_patient_and_a_slow_camera_is_given_what_it_needs() -> None:
    def patience(seconds: int) -> list[int]:
        who = expected({"office": SITE}, topics.FRAMES, seconds * SECOND)
        return [quiet // SECOND for _, _, _, quiet in who]

    assert patience(60) == [60, 70]
    assert patience(3600) == [3600, 3600]


def test_one_group_of_each_chunk_topic_speaks_and_the_others_only_read() -> None:
    bus = MemoryBus()
    speaking = AbsenceDetectingBus(bus, Line(), {"office": SITE})
    groups = ["vision", "sound", "speech", "text", "fusion"]
    speakers = {
        (topic, group)
        for topic in (*topics.CHUNKS, topics.OBSERVATIONS)
        for group in groups
        if isinstance(speaking.reader(topic, group), AbsenceDetectingReader)
    }
    assert speakers == set(SPEAKS.items())


def test_the_mode_of_a_site_is_said_for_a_source_of_reports_that_is_gone() -> None:
    now = [1000 * SECOND]
    watch = HeartbeatMonitor(lambda: now[0])
    armed = types.Mode(
        site="office", source="reports", start=ns(990), mode="armed", by="ann", said=ns(1000)
    )
    quiet = msgspec.structs.replace(armed, rule="sound", mode="snoozed", until=ns(1020))
    watch.saw(topics.REPORTS, [make.roster(source="reports", start=1000), armed, quiet])
    said: list[Record] = []
    for _ in range(40):
        now[0] += SECOND
        said += [record for _, record in watch.speak()]
    modes = [(r.rule, r.mode, r.by, r.said) for r in said if isinstance(r, types.Mode)]
    assert modes == [
        ("", "armed", "ann", ns(1016)),
        ("sound", "snoozed", "ann", ns(1016)),
        ("", "armed", "ann", ns(1026)),
        ("", "armed", "ann", ns(1036)),
    ]
    assert may_be_from_monitor(armed)  # it does not show that a capture lives


def test_who_reads_reports_learns_modes_and_says_them_for_a_capture_that_is_gone() -> None:
    line = Line([("office", "reports", ("desk", "reports"), LOST_AFTER)])
    armed = types.Mode(site="office", source="reports", start=1, mode="armed", said=1)
    line.put("reports", record=armed)
    assert line.turns(20) == ["reports"]
    said = [record for record in line.told if isinstance(record, types.Mode)]
    assert {(mode.mode, mode.start) for mode in said} == {("armed", 1)}
