"""What waits for the brokers: kept, in order, within its cap, and never two things at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import codec, topics, trace
from pipeline.bus.log import LocalLog
from pipeline.config import schema
from pipeline.errors import DiskFull, OutsideError
from pipeline.types import AudioChunk, FrameChunk, Progress, Record, Report, Roster, ns
from tests import make
from workers.bus.publish import publish_all
from workers.bus.spool import SMALLEST_CAP, Spool
from workers.capture import factory
from workers.capture.reports import last_promises
from workers.replay import scene_player

ALL = 10_000, 1 << 40
PICTURE = bytes(range(256)) * 600  # 150 kB
TOPIC = {FrameChunk: topics.FRAMES, AudioChunk: topics.AUDIO, Report: topics.REPORTS}
OFFICE = schema.Site(
    cameras={"desk": schema.Camera(source="x")}, microphones={"room": schema.Microphone(source="x")}
)
Opener = Callable[..., Spool]


@pytest.fixture
def dropped() -> Counter[str]:
    return Counter()


@pytest.fixture
def opened(tmp_path: Path, dropped: Counter[str]) -> Iterator[Opener]:
    spools: list[Spool] = []

    def count(site: str, source: str, n: int) -> None:
        dropped[f"{site}/{source}"] += n

    def opened(cap: int = 1 << 30, name: str = "spool.db") -> Spool:
        while spools:
            spools.pop().close()
        spools.append(Spool(tmp_path / name, cap=cap, dropped=count))
        return spools[-1]

    yield opened
    while spools:
        spools.pop().close()


def records(spool: Spool) -> list[Any]:
    return [codec.decode(each.value) for each in spool.take(*ALL)]


def on_disk(spool: Spool) -> int:
    return sum(f.stat().st_size for f in spool.path.parent.iterdir() if f.name.startswith("spool"))


def limit(spool: Spool, pages: int | None) -> None:
    """A disk with room for so many pages of the file."""
    pages = pages or 1 << 20
    spool._file.execute(f"PRAGMA max_page_count = {pages}")


def test_what_was_put_waits_in_one_order_over_all_topics_until_it_is_done(opened: Opener) -> None:
    spool = opened()
    put = [
        (topics.FRAMES, make.frame(1)),
        (topics.REPORTS, make.report(2)),
        (topics.AUDIO, make.audio(1.5)),
        (topics.FRAMES, make.frame(3, source="door")),
    ]
    for topic, record in put:
        spool.put(topic, [record])
    taken = spool.take(*ALL)
    assert [(each.topic, codec.decode(each.value)) for each in taken] == put
    assert [each.key for each in taken] == [
        "office/desk", "office/reports", "office/room", "office/door",
    ]  # fmt: skip
    assert [each.trace for each in taken] == [trace.begin(record) for _, record in put]
    assert spool.take(*ALL) == taken, "they stay until they are done"
    spool.done(taken[:3])
    assert [codec.decode(each.value) for each in spool.take(*ALL)] == [put[3][1]]
    assert spool.waiting == 1
    assert spool.size == len(taken[3].value)
    assert spool.chunks() == {"office/door": 1}


def test_a_batch_has_a_number_and_a_size(opened: Opener) -> None:
    spool = opened()
    spool.put(topics.FRAMES, [make.frame(k, PICTURE) for k in range(10)])
    assert len(spool.take(3, 1 << 30)) == 3
    assert len(spool.take(99, 400_000)) == 3
    assert len(spool.take(99, 1)) == 1, "one that is larger than a batch is a batch"


def test_who_comes_after_a_kill_finds_what_was_not_done(opened: Opener) -> None:
    spool = opened()
    spool.put(topics.FRAMES, [make.frame(k) for k in range(5)])
    taken = spool.take(*ALL)
    spool.done(taken[:2])
    spool = opened()
    assert spool.waiting == 3
    assert records(spool) == [make.frame(k) for k in range(2, 5)]
    spool.put(topics.FRAMES, [make.frame(9)])
    assert records(spool)[-1] == make.frame(9)


RECORD = st.one_of(
    st.builds(make.frame, st.integers(0, 99)),
    st.builds(make.audio, st.integers(0, 99)),
    st.builds(make.report, st.integers(0, 99)),
    st.builds(make.progress, st.integers(0, 99), source=st.sampled_from(["desk", "room"])),
    st.builds(lambda at: make.roster(start=at), st.integers(0, 99)),
)


def topic_for(record: Record) -> str:
    return TOPIC.get(type(record), topics.AUDIO if record.source == "room" else topics.FRAMES)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(RECORD, max_size=12))
def test_where_a_source_stands_is_known_as_the_log_knows_it_and_outlives_the_record(
    tmp_path_factory: pytest.TempPathFactory, given: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("both")
    log, spool = LocalLog(folder / "log", clock=lambda: 0), Spool(folder / "s.db", cap=SMALLEST_CAP)
    for record in given:
        publish_all(log, topic_for(record), [record])
        spool.put(topic_for(record), [record])
        spool.done(spool.take(*ALL))
    spool.close()
    spool = Spool(folder / "s.db", cap=SMALLEST_CAP)
    sites = {"office": OFFICE}
    assert factory.newest_event_time(spool.last, sites) == factory.newest_event_time(
        log.last, sites
    )
    assert last_promises(spool.last, ["office"]) == last_promises(log.last, ["office"])
    keys = [(topics.FRAMES, "office/desk"), (topics.REPORTS, "office/reports")]
    for topic, key in keys:
        old, new = log.last(topic, key), spool.last(topic, key)
        assert (old is None) == (new is None)
        if old and new:
            assert scene_player._stands_at(codec.decode(new)) == scene_player._stands_at(
                codec.decode(old)
            )
    log.close()
    spool.close()


def test_where_nothing_was_put_nothing_is_known(opened: Opener) -> None:
    assert opened().last(topics.FRAMES, "office/desk") is None


def test_a_picture_is_not_kept_twice(opened: Opener) -> None:
    spool = opened()
    spool.put(topics.FRAMES, [make.frame(1, PICTURE)])
    assert len(spool.last(topics.FRAMES, "office/desk") or b"") < 100


def test_a_report_is_synced_to_the_disk_before_it_is_acknowledged(opened: Opener) -> None:
    spool = opened()
    said: list[str] = []
    spool._file.connection.set_trace_callback(said.append)
    spool.put(topics.FRAMES, [make.frame(1)])
    assert not [line for line in said if "synchronous" in line]
    spool.put(topics.REPORTS, [make.roster(), make.report(1)])
    order = [line for line in said if "synchronous" in line or line == "COMMIT"]
    assert order == [
        "COMMIT", "PRAGMA synchronous = FULL", "COMMIT", "PRAGMA synchronous = NORMAL",
    ]  # fmt: skip


# -- the cap


def test_the_oldest_frames_give_way_first_and_each_is_counted(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(SMALLEST_CAP)
    for k in range(60):
        for camera in ("desk", "door"):
            spool.put(topics.FRAMES, [make.frame(k / 5, PICTURE, source=camera, seq=k)])
        spool.put(topics.AUDIO, [make.audio(k / 5, seconds=0.2)])
        spool.put(topics.REPORTS, [make.progress(k / 5, source="reports")])
        assert on_disk(spool) <= SMALLEST_CAP
    assert 0.9 < spool.share <= 1
    kept = records(spool)
    frames = [record for record in kept if isinstance(record, FrameChunk)]
    assert sum(isinstance(record, AudioChunk) for record in kept) == 60
    assert sum(isinstance(r, Progress) and r.source == "reports" for r in kept) == 60
    for camera in ("desk", "door"):
        seqs = [record.seq for record in frames if record.source == camera]
        assert seqs == list(range(60 - len(seqs), 60)), "the newest are kept, in order"
        assert dropped[f"office/{camera}"] == 60 - len(seqs) > 0
    assert dropped["office/room"] == 0
    assert spool.waiting == len(kept)
    assert spool.size == sum(len(codec.encode(record)) for record in kept)


def test_where_no_frame_is_left_the_oldest_sound_gives_way_and_reports_never(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(SMALLEST_CAP)
    spool.put(topics.FRAMES, [make.frame(0, PICTURE)])
    said = [make.report(1000 + k, f"report {k}") for k in range(50)]
    for k in range(100):
        spool.put(topics.AUDIO, [make.audio(k * 5, seconds=5.0, seq=k)])
        spool.put(topics.REPORTS, said[k : k + 1])
        assert on_disk(spool) <= SMALLEST_CAP
    kept = records(spool)
    assert [record for record in kept if isinstance(record, Report)] == said
    assert not [record for record in kept if isinstance(record, FrameChunk)]
    seqs = [record.seq for record in kept if isinstance(record, AudioChunk)]
    assert seqs == list(range(100 - len(seqs), 100))
    assert dropped == {"office/desk": 1, "office/room": 100 - len(seqs)}


def test_in_place_of_what_gave_way_stays_a_word_that_the_source_was_lost_once_a_second(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(SMALLEST_CAP)
    for k in range(150):
        spool.put(topics.FRAMES, [make.frame(k / 5, PICTURE, seq=k)])
    kept = records(spool)
    gone = dropped["office/desk"]
    words = [record for record in kept if isinstance(record, Progress)]
    assert kept == [*words, *(make.frame(k / 5, PICTURE, seq=k) for k in range(gone, 150))]
    assert [word.upto for word in words] == [ns(k) + 1 for k in range(-(-gone // 5))]
    assert all(not word.alive and "bus.spool" in word.reason for word in words)


def test_a_place_that_became_free_is_known_although_its_record_gave_way(opened: Opener) -> None:
    spool = opened(SMALLEST_CAP)
    for k in range(150):
        spool.put(topics.FRAMES, [make.frame(k / 5, PICTURE, source="desk" if k else "door")])
    assert codec.decode(spool.last(topics.FRAMES, "office/door") or b"").upto == 1


def test_a_frame_that_gives_way_leaves_its_look_to_the_next_one(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(cap=SMALLEST_CAP)
    looks = ["heartbeat", "motion", *[""] * 298]
    still = [
        msgspec.structs.replace(make.frame(k, PICTURE), look=look) for k, look in enumerate(looks)
    ]
    for frame in still:
        spool.put(topics.FRAMES, [frame])
    assert dropped["office/desk"] > 2
    for _ in range(2):  # a batch that is taken again is the same
        frames = [record for record in records(spool) if isinstance(record, FrameChunk)]
        assert [frame.look for frame in frames] == ["motion", *[""] * (len(frames) - 1)]
        assert frames[0].start == still[dropped["office/desk"]].start
    taken = spool.take(*ALL)
    assert spool.size == sum(len(each.value) for each in taken)
    spool.done(taken)
    spool.put(topics.FRAMES, [msgspec.structs.replace(make.frame(400), look="")])
    assert [frame.look for frame in records(spool)] == [""]
    assert spool.size == sum(len(each.value) for each in spool.take(*ALL))


def test_what_a_broker_may_have_already_does_not_give_way(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(SMALLEST_CAP)
    spool.put(topics.FRAMES, [make.frame(k / 5, PICTURE, source="door") for k in range(5)])
    taken = spool.take(*ALL)
    for k in range(100):
        spool.put(topics.FRAMES, [make.frame(k / 5, PICTURE)])
    assert spool.take(5, 1 << 30) == taken
    assert dropped["office/door"] == 0
    assert dropped["office/desk"] > 0
    spool.done(taken)


def test_what_never_gives_way_may_fill_more_than_the_cap(
    opened: Opener, dropped: Counter[str]
) -> None:
    spool = opened(SMALLEST_CAP)
    text = "x" * 16_000
    for k in range(20):
        spool.put(topics.REPORTS, [make.report(40 * k + n, text) for n in range(40)])
        spool.put(topics.FRAMES, [make.frame(k, PICTURE, seq=k)])
    kept = records(spool)
    assert sum(isinstance(record, Report) for record in kept) == 800
    assert [record.seq for record in kept if isinstance(record, FrameChunk)] == [19]
    assert spool.share > 1
    assert dropped == {"office/desk": 19}


def test_the_disk_gets_its_room_back_after_an_outage(opened: Opener) -> None:
    spool = opened(64 << 20)
    for k in range(300):
        spool.put(topics.FRAMES, [make.frame(k, PICTURE)])
    assert on_disk(spool) > 40 << 20
    while taken := spool.take(20, 1 << 30):
        spool.done(taken)
    for k in range(300):  # and so it goes on
        spool.put(topics.FRAMES, [make.frame(k, PICTURE)])
        spool.done(spool.take(*ALL))
    assert spool.share < 0.1
    assert on_disk(spool) < 20 << 20


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["frame", "sound", "word", "take", "done"]), max_size=300))
def test_every_record_is_done_or_waits_or_was_counted(
    tmp_path_factory: pytest.TempPathFactory, turns: list[str]
) -> None:
    gone = Counter[str]()
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder / "s.db", cap=SMALLEST_CAP, dropped=lambda site, source, n: gone.update(
        {source: n}))  # fmt: skip
    put, done, taken = Counter[str](), Counter[str](), []
    for k, turn in enumerate(turns):
        match turn:
            case "frame":
                spool.put(topics.FRAMES, [make.frame(k, bytes(700_000))])
                put["desk"] += 1
            case "sound":
                spool.put(topics.AUDIO, [make.audio(k, seconds=10)])
                put["room"] += 1
            case "word":
                spool.put(topics.REPORTS, [make.progress(k, source="reports")])
            case "take":
                taken = spool.take(4, 1 << 20)
            case "done" if taken:
                spool.done(taken)
                of = [codec.decode(each.value) for each in taken]
                done.update(r.source for r in of if isinstance(r, (FrameChunk, AudioChunk)))
                taken = []
    left = {key.removeprefix("office/"): n for key, n in spool.chunks().items()}
    assert put == done + gone + Counter(left)
    kept = spool.take(*ALL)
    assert spool.waiting == len(kept)
    assert spool.size == sum(len(each.value) for each in kept)
    spool.close()


# -- the outside world


def test_a_full_disk_says_so_and_keeps_nothing_of_what_was_put(opened: Opener) -> None:
    spool = opened()
    spool.put(topics.FRAMES, [make.frame(1)])
    limit(spool, spool._file.pragma("page_count"))
    with pytest.raises(DiskFull, match=r"no space left for .*spool\.db.*`bus\.spool`"):
        spool.put(topics.FRAMES, [make.frame(2), make.frame(3, PICTURE)])
    assert records(spool) == [make.frame(1)]
    assert spool.waiting == 1
    limit(spool, None)
    spool.put(topics.FRAMES, [make.frame(4)])
    assert records(spool) == [make.frame(1), make.frame(4)]


def test_what_is_done_is_not_taken_again_although_a_full_disk_cannot_delete_it(
    opened: Opener,
) -> None:
    spool = opened()
    spool.put(topics.FRAMES, [make.frame(k) for k in range(4)])
    spool._file.execute(
        "CREATE TEMP TRIGGER full BEFORE DELETE ON waiting "
        "BEGIN INSERT INTO newest VALUES ('', '', zeroblob(1000000)); END"
    )
    limit(spool, spool._file.pragma("page_count"))
    spool.done(spool.take(2, 1 << 30))
    assert records(spool) == [make.frame(2), make.frame(3)]
    assert spool.waiting == 2
    spool._file.execute("DROP TRIGGER full")
    spool.done(spool.take(1, 1 << 30))
    assert spool._file.execute("SELECT id FROM waiting").fetchall() == [(4,)]


def test_a_damaged_spool_is_told_and_left_alone(tmp_path: Path, opened: Opener) -> None:
    damaged = tmp_path / "spool.db"
    damaged.write_bytes(b"this is no database at all " * 500)
    with pytest.raises(OutsideError, match=r"spool\.db is damaged.*move the file away"):
        opened()
    assert damaged.read_bytes() == b"this is no database at all " * 500
    damaged.unlink()
    opened().put(topics.FRAMES, [make.frame(1)])


def test_the_database_of_another_program_is_not_touched(tmp_path: Path, opened: Opener) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(OutsideError, match="no spool of this Fusewatch"):
        opened()


def test_two_processes_do_not_share_a_spool(tmp_path: Path, opened: Opener) -> None:
    opened()
    with pytest.raises(OutsideError, match=r"spool\.db is in use by another .*pid \d+"):
        Spool(tmp_path / "spool.db", cap=SMALLEST_CAP)


def test_a_cap_that_is_no_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too small"):
        Spool(tmp_path / "spool.db", cap=SMALLEST_CAP - 1)


KILLED = """
import sys
from pathlib import Path
from pipeline import topics
from tests import make
from workers.bus.spool import Spool
spool = Spool(Path(sys.argv[1]), cap=1 << 28)
k = 0
while True:
    spool.put(topics.FRAMES, [make.frame(k, bytes(150_000), seq=k)])
    spool.put(topics.REPORTS, [make.report(k, str(k))])
    print(k, flush=True)
    k += 1
"""


def test_what_was_put_survives_kill_9(tmp_path: Path, opened: Opener) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "spool.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    with writer:
        said = [writer.stdout.readline() for _ in range(60)]
        writer.kill()
        said += writer.stdout.read().splitlines()
    last = max(int(line) for line in said if line.strip())
    kept = records(opened())
    frames = [record.seq for record in kept if isinstance(record, FrameChunk)]
    told = [record.text for record in kept if isinstance(record, Report)]
    assert frames == list(range(len(frames)))
    assert told == [str(k) for k in range(len(told))]
    assert len(frames) > last
    assert len(told) > last


def test_many_threads_put_while_one_takes_and_each_key_keeps_its_order(opened: Opener) -> None:
    spool, got = opened(), dict[str, list[int]]()
    cameras, frames = 8, 60

    def film(camera: str) -> None:
        for k in range(frames):
            spool.put(topics.FRAMES, [make.frame(k, PICTURE, source=camera, seq=k)])

    threads = [threading.Thread(target=film, args=(f"c{n}",)) for n in range(cameras)]
    for thread in threads:
        thread.start()
    while sum(map(len, got.values())) < cameras * frames:
        assert spool.wait(10)
        taken = spool.take(7, 1 << 20)
        for each in taken:
            record = codec.decode(each.value)
            got.setdefault(record.source, []).append(record.seq)
        spool.done(taken)
    for thread in threads:
        thread.join()
    assert got == {f"c{n}": list(range(frames)) for n in range(cameras)}
    assert spool.waiting == spool.size == 0


def test_who_waits_is_woken(opened: Opener) -> None:
    spool = opened()
    assert not spool.wait(0)
    writer = threading.Timer(0, lambda: spool.put(topics.FRAMES, [make.roster()]))
    writer.start()
    assert spool.wait(30)
    writer.join()
    assert isinstance(records(spool)[0], Roster)
