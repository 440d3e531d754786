"""What a full disk costs: pictures and sound, and never a record that waits to be read."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.bus import disk_space
from pipeline.bus.log import LocalLog, LogReader, Retention
from pipeline.bus.sqlite_file import FileKind, SqliteFile, disk_is_full
from pipeline.config.schema import Config, Site, Storage
from pipeline.errors import DiskFull
from pipeline.ports import Entry
from tests import make
from tests.small_disk import fill, small_disk
from workers.bus.spool import SMALLEST_CAP, Spool
from workers.delivery import snapshots
from workers.runtime.state_folder import HELD, retention
from workers.runtime.storage_cap import StorageCap

MIB = 1 << 20
FRAMES, AUDIO, REPORTS = topics.FRAMES, topics.AUDIO, topics.REPORTS
KEPT = {FRAMES: 8 * MIB, AUDIO: 2 * MIB}
RETENTION = {
    FRAMES: Retention(max_bytes=16 * MIB, gives_way=1),
    AUDIO: Retention(max_bytes=4 * MIB, gives_way=2),
    REPORTS: Retention(max_bytes=MIB, hold=True, capped=True, urgent=True, durable=True),
    topics.OBSERVATIONS: Retention(max_bytes=2 * MIB, hold=True),
    topics.ALERTS: Retention(max_bytes=MIB, hold=True, durable=True),
}


def put(log: LocalLog, topic: str, *sizes: int) -> None:
    try:
        for size in sizes:
            log.publish(topic, "k", os.urandom(size))
        log.flush()
    except DiskFull:
        log.discard()
        raise


def entries(reader: LogReader, limit: int = 100) -> list[Entry]:
    return [event for event in reader.poll(limit) if isinstance(event, Entry)]


def held(log: LocalLog, topic: str) -> int:
    return log.end(topic) - log.oldest(topic)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("frames"), st.integers(1, 20)),
        st.tuples(st.just("audio"), st.integers(1, 20)),
        st.tuples(
            st.sampled_from([REPORTS, topics.OBSERVATIONS, topics.ALERTS]), st.integers(1, 40)
        ),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("others"), st.integers(0, 30)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=15)
@given(operations=OPERATIONS)
def test_what_was_not_read_is_never_lost_and_only_pictures_give_way(
    operations: list[tuple[str, int]],
) -> None:
    """On a disk of 32 MB, of which others take up to 30."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path, others = Path(folder), 0

        def free(_: object) -> int:
            used = sum(file.stat().st_size for file in path.iterdir())
            return max(0, 32 * MIB - used - others * MIB)

        patch.setattr(disk_space.DiskSpace, "free", free)

        def opened() -> tuple[LocalLog, dict[str, LogReader]]:
            log = LocalLog(path, clock=lambda: 0, retention=RETENTION, spare=MIB)
            groups = {topic: log.reader(topic, "g") for topic in RETENTION}
            return log, groups

        log, readers = opened()
        promised = dict.fromkeys(RETENTION, 0)
        for what, number in operations:
            topic = {"frames": FRAMES, "audio": AUDIO}.get(what, what)
            if what == "others":
                others = number
                log.keep_free()
            elif what == "restart":
                log.close()
                log, readers = opened()
            elif what == "read":
                name = (REPORTS, topics.OBSERVATIONS, topics.ALERTS)[number]
                entries(readers[name])
                readers[name].commit(0, readers[name]._next, b"")
            else:
                size = 100_000 if topic in KEPT else 20_000
                try:
                    put(log, topic, *[size] * number)
                    promised[topic] += number
                except DiskFull:
                    assert topic == REPORTS
                    assert held(log, FRAMES) == held(log, AUDIO) == 0, "these could have given way"
        for topic in RETENTION.keys() - KEPT.keys():
            reader = readers[topic]
            while entries(reader):
                pass
            assert reader.lost == 0
            assert reader._next == log.end(topic) == promised[topic]
        log.close()


def test_a_real_disk_that_others_fill_costs_pictures_alone(tmp_path: Path) -> None:
    chance = random.Random(11)
    with small_disk(tmp_path, 24) as disk:
        log = LocalLog(disk / "log", clock=lambda: 0, retention=RETENTION, spare=MIB)
        readers = {topic: log.reader(topic, "g") for topic in RETENTION}
        for turn in range(120):
            with suppress(DiskFull):
                put(log, FRAMES, *[chance.randint(50_000, 400_000)] * chance.randint(1, 4))
            with suppress(DiskFull):
                put(log, AUDIO, 32_000)
            put(log, REPORTS, chance.randint(10, 16_000))
            put(log, topics.ALERTS, 2000)
            if turn % 10 == 5:
                fill(disk / f"theirs-{turn}")
            if turn % 10 == 8:
                for file in disk.glob("theirs-*"):
                    file.unlink()
            log.keep_free()
            if turn % 7 == 0:
                for reader in readers.values():
                    entries(reader)
                    reader.commit(0, reader._next, b"a note")
        for topic in (REPORTS, topics.ALERTS):
            while entries(readers[topic]):
                pass
            assert (readers[topic].lost, readers[topic]._next) == (0, 120)
        log.close()


def test_a_full_disk_is_opened_again_at_the_cost_of_pictures(tmp_path: Path) -> None:
    with small_disk(tmp_path, 24) as disk:
        plain = {FRAMES: Retention(max_bytes=100 * MIB, gives_way=1)}
        log = LocalLog(disk / "log", clock=lambda: 0, retention=plain)
        put(log, REPORTS, 1000)
        log.make_room = lambda wanted=0: False  # type: ignore[method-assign]  # as versions before
        many = [100_000] * 300
        with pytest.raises(DiskFull, match=r"no space left for .*frames\.v1\.db.*ENOSPC"):
            put(log, FRAMES, *many)
        log.discard()
        log.close()
        fill(disk / "theirs")
        assert shutil.disk_usage(disk).free == 0
        with closing(
            LocalLog(disk / "log", clock=lambda: 0, retention=RETENTION, spare=MIB)
        ) as log:
            put(log, REPORTS, 1000)
            assert len(entries(log.reader(REPORTS, "g"))) == 2


def test_a_stage_waits_for_a_full_disk_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path, 4) as disk:
        log = LocalLog(disk / "log", clock=lambda: 0, retention=RETENTION)
        reader = log.reader(topics.ALERTS, "g")
        fill(disk / "theirs")
        done: list[str] = []

        def stage() -> None:
            put(log, topics.ALERTS, 200_000)
            reader.commit(0, 1, b"")
            done.append("done")

        thread = threading.Thread(target=stage, daemon=True)
        thread.start()
        with pytest.raises(DiskFull):
            put(log, REPORTS, 200_000)
        thread.join(1.0)
        assert not done
        (disk / "theirs").unlink()
        thread.join(10)
        assert done
        assert caplog.text.count("what is to be written waits") == 1
        assert caplog.text.count("is full no longer") == 1
        log.close()


def test_a_wait_for_the_disk_ends_with_the_process(tmp_path: Path) -> None:
    stop = threading.Event()
    with small_disk(tmp_path, 4) as disk:
        log = LocalLog(disk / "log", clock=lambda: 0, retention=RETENTION, stop=stop)
        reader = log.reader(topics.ALERTS, "g")
        fill(disk / "theirs")
        stop.set()
        with pytest.raises(DiskFull):  # noqa: PT012
            put(log, topics.ALERTS, 200_000)
            reader.commit(0, 1, b"")
        log.close()


def test_the_spool_on_a_full_disk_takes_reports_and_newer_pictures(tmp_path: Path) -> None:
    gone: dict[str, int] = {}

    def dropped(site: str, source: str, n: int) -> None:
        gone[source] = gone.get(source, 0) + n

    with small_disk(tmp_path, 24) as disk:
        spool = Spool(disk / "spool.db", cap=10 * SMALLEST_CAP, dropped=dropped, spare=MIB)
        for i in range(60):
            data = os.urandom(500_000)
            spool.put(FRAMES, [make.frame(i, data=data)])
            spool.put(REPORTS, [make.report(i)])
            if i == 30:
                fill(disk / "theirs")
        kept = []
        while taken := spool.take(10, 10 * MIB):
            kept += [codec.decode(each.value) for each in taken]
            spool.done(taken)
        assert sum(type(record).__name__ == "Report" for record in kept) == 60
        assert gone == {"desk": gone["desk"]}
        spool.close()


def test_an_error_of_sqlite_is_named_after_the_full_disk(tmp_path: Path) -> None:
    kind = FileKind(
        name="log", application=1, schema="CREATE TABLE a (b);", secure_delete="OFF",
        cap="storage.cap", anew="begin", refusal="",
    )  # fmt: skip
    with small_disk(tmp_path, 1) as disk:
        file = SqliteFile(disk / "t.db", kind)
        broken = sqlite3.OperationalError("disk I/O error")
        broken.sqlite_errorcode = 4874  # IOERR_SHMSIZE  # type: ignore[attr-defined]
        assert not disk_is_full(disk)
        fill(disk / "theirs")
        assert disk_is_full(disk)
        with pytest.raises(DiskFull, match=r"ENOSPC; SQLite says: disk I/O error"), file.outside():
            raise broken
        file.close()


def config(cap: str = "20 GB") -> Config:
    return Config(version=1, sites={"office": Site()}, storage=Storage(cap=cap))


def test_the_cap_is_what_the_disk_has(tmp_path: Path) -> None:
    with small_disk(tmp_path, 32) as disk:
        state = disk / "state"
        (state / "log").mkdir(parents=True)
        (state / "log" / "frames.v1.db").write_bytes(bytes(4 * MIB))
        assert abs(StorageCap(config(), state)() - 30 * MIB) < MIB // 4
        fill(disk / "theirs")
        assert StorageCap(config(), state)() == 2 * MIB  # what it takes, less what is to be free
    assert StorageCap(config("100 MB"), tmp_path)() == 100_000_000


def test_what_is_promised_is_held_until_it_is_read() -> None:
    plan = retention(config(), 10**9)
    assert {topic for topic, each in plan.items() if each.hold} == set(HELD)
    assert {topic for topic, each in plan.items() if each.gives_way} == {FRAMES, AUDIO}
    assert sum(each.max_bytes for each in plan.values()) < 10**9


def test_evidence_gives_way_the_oldest_first(tmp_path: Path) -> None:
    site = tmp_path / "office"
    site.mkdir()
    for i in range(6):
        (site / f"a_{i}_desk.jpg").write_bytes(bytes(1000))
        os.utime(site / f"a_{i}_desk.jpg", (i, i))
    (site / "mine.txt").write_bytes(bytes(1000))
    assert snapshots.evict(tmp_path, 2500) == 3000
    assert sorted(path.name for path in site.iterdir()) == [
        "a_3_desk.jpg", "a_4_desk.jpg", "a_5_desk.jpg", "mine.txt",
    ]  # fmt: skip
    assert snapshots.evict(tmp_path, 10**6) == 3000
    assert snapshots.evict(tmp_path, 1) == 0
