"""Sinks: one promise for all, then files and evidence by themselves."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Webhook as Settings
from pipeline.errors import BrokersAway, OutsideError, Rejected, Retry
from pipeline.types import FrameChunk, ns
from tests.make import alert, box, detections
from workers.delivery.cloudevent import event_bytes, event_id
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.jsonl import Jsonl, write_all
from workers.delivery.receiver import Receiver
from workers.delivery.shown_frame import best_frame
from workers.delivery.snapshots import SnapshotSink, evidence_names
from workers.delivery.webhook import Webhook
from workers.media import jpeg

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


class ToFile:
    def __init__(self, folder):
        self._path = folder / "alerts.jsonl"
        self.sink = Jsonl(self._path)

    def got(self):
        return [json.loads(line)["id"] for line in self._path.read_bytes().splitlines()]

    def close(self):
        self.sink.close()


class ToWebhook:
    def __init__(self, folder):
        self._receiver = Receiver(SECRET)
        self._receiver.__enter__()
        self.sink = Webhook(Settings(url=self._receiver.url, secret=SECRET))

    def got(self):
        return list(self._receiver.events)

    def close(self):
        self._receiver.__exit__(None, None, None)


class ToEvidence:
    def __init__(self, folder):
        self._folder = folder
        self.sink = SnapshotSink(folder, MemoryBus())

    def got(self):
        return [path.stem for path in sorted(self._folder.rglob("*.json"), key=os.path.getmtime)]

    def close(self):
        pass


@pytest.fixture(params=[ToFile, ToWebhook, ToEvidence])
def place(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


def seen(number, **given):
    return alert(id=f"{number:04x}", evidence=(f"office/{number:04x}_0_desk.jpg",), **given)


def test_a_sink_takes_each_revision_once_however_often_it_is_sent(place):
    sent = [seen(n) for n in range(5)]
    for one in (*sent, *sent[3:]):
        place.sink.send(one)
    assert sorted(place.got()) == [event_id(one) for one in sent]


def test_a_sink_takes_an_alert_that_is_full_of_text(place):
    words = "<script>\u202e\x00\x1b[31m\r\n Räuber 強盗 \U0001f52b " * 400
    place.sink.send(seen(1, transcript=(words,) * 10, reasons=(words,)))
    assert place.got() == ["0001_0"]


@pytest.mark.no_schema
@pytest.mark.parametrize("ident", ["../../etc/passwd", "a/b", "", "a\r\nX: 1", "a\0b"])
def test_a_sink_makes_nothing_elsewhere_of_a_strange_id(place, tmp_path, ident):
    outside = {path for path in tmp_path.parent.iterdir()}
    with suppress(Rejected, Retry):
        place.sink.send(alert(id=ident, evidence=(f"office/{ident}_0_desk.jpg",)))
    assert {path for path in tmp_path.parent.iterdir()} == outside
    assert not list(tmp_path.rglob("*passwd*"))


# JSON lines


def lines_of(path):
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_a_line_is_the_event(tmp_path):
    sink = Jsonl(tmp_path / "new" / "a.jsonl")
    sink.send(alert())
    sink.flush()
    sink.close()
    assert (tmp_path / "new" / "a.jsonl").read_bytes() == event_bytes(alert()) + b"\n"


@pytest.mark.parametrize("cut", [1, 2, 10, 100, 400])
def test_a_torn_last_line_is_cut_and_written_again(tmp_path, cut):
    path = tmp_path / "a.jsonl"
    write_all(path, [alert(revision=n) for n in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    sink = Jsonl(path)
    for n in range(3):
        sink.send(alert(revision=n))
    sink.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("torn", [b"", b'{"spec', b"\0" * 5000, b'{"specversion":"1.0","id":"x'])
def test_a_first_line_that_was_never_whole_is_cut(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    path.write_bytes(torn)
    sink = Jsonl(path)
    sink.send(alert())
    sink.close()
    assert path.read_bytes() == event_bytes(alert()) + b"\n"


def test_a_tail_of_zeros_after_a_power_cut_is_cut(tmp_path):
    path = tmp_path / "a.jsonl"
    write_all(path, [alert()])
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 200_000)
    Jsonl(path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"no newline", b'{"a":1}\n', b"\n\n{}"])
def test_a_file_of_somebody_else_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "precious"
    path.write_bytes(content)
    sink = Jsonl(path)
    with pytest.raises(Retry, match=r"not a file of Fusewatch's alerts"):
        sink.send(alert())
    assert path.read_bytes() == content
    path.unlink()
    sink.send(alert())
    sink.close()
    assert len(lines_of(path)) == 1


def test_after_a_restart_the_last_alerts_are_known(tmp_path):
    path = tmp_path / "a.jsonl"
    sink = Jsonl(path)
    for n in range(300):
        sink.send(alert(revision=n, transcript=("word " * 1000,)))
    sink.close()
    sink = Jsonl(path)
    for n in range(250, 310):
        sink.send(alert(revision=n, transcript=("word " * 1000,)))
    sink.close()
    assert len(lines_of(path)) == len(set(lines_of(path))) == 310


def test_a_file_that_logrotate_moved_is_made_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    sink = Jsonl(path)
    sink.send(alert(revision=0))
    path.rename(tmp_path / "a.jsonl.1")
    sink.send(alert(revision=1))
    sink.close()
    assert len(lines_of(path)) == len(lines_of(tmp_path / "a.jsonl.1")) == 1


def test_a_path_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    sink = Jsonl(tmp_path / "file" / "a.jsonl")
    with pytest.raises(Retry, match="cannot be written"):
        sink.send(alert())
    (tmp_path / "file").unlink()
    sink.send(alert())
    sink.close()


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: flipped(data, 3),
        lambda data: flipped(data, data.index(b"\n{") + 2),
        lambda data: data + b"\n",
        lambda data: b"\n" + data,
        lambda data: data + b"a line of somebody else\n",
        lambda data: data + b'{"specversion":"1.0","id":7}\n',
        lambda data: b"\xff" * 300 + b"\n" + data,
    ],
)
@pytest.mark.no_schema
@pytest.mark.parametrize("which", ["alerts.jsonl", "alerts.jsonl.1"])
def test_our_own_file_is_set_aside_when_it_is_damaged(tmp_path, damage, which, caplog):
    path = tmp_path / "alerts.jsonl"
    first = Jsonl(path, 10**6, ours=True)
    for n in range(3):
        first.send(alert(revision=n))
    first.close()
    good = path.read_bytes()
    (tmp_path / which).write_bytes(damage(good))
    sink = Jsonl(path, 10**6, ours=True)
    sink.send(alert(revision=9))
    sink.flush()
    sink.close()
    assert lines_of(path)[-1].endswith("_9")
    aside = tmp_path / "alerts.jsonl.damaged-1"
    assert aside.exists() == (which == "alerts.jsonl") == bool(caplog.records)
    if aside.exists():
        assert aside.read_bytes() == damage(good)
    again = Jsonl(path, 10**6, ours=True)
    again.send(alert(revision=9))
    again.close()
    assert [ident[-2:] for ident in lines_of(path)].count("_9") == 1


def test_our_own_file_that_becomes_a_folder_is_set_aside(tmp_path):
    path = tmp_path / "alerts.jsonl"
    sink = Jsonl(path, 10**6, ours=True)
    sink.send(alert(revision=0))
    path.unlink()
    path.mkdir()
    sink.send(alert(revision=1))
    sink.close()
    assert len(lines_of(path)) == 1
    assert (tmp_path / "alerts.jsonl.damaged-1").is_dir()


@pytest.mark.parametrize("ours", [True, False])
def test_after_a_failed_sync_the_alerts_are_written_again(tmp_path, ours, monkeypatch):
    path = tmp_path / "alerts.jsonl"
    sink = Jsonl(path, ours=ours)
    sink.send(alert(revision=0))

    def fails(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OutsideError, match="Input/output error"):
            sink.flush()
    sink.send(alert(revision=0))
    sink.send(alert(revision=0))
    sink.flush()
    sink.close()
    assert len(lines_of(path)) == (1 if ours else 2)
    assert (tmp_path / "alerts.jsonl.damaged-1").exists() == ours


def test_a_line_of_somebody_else_in_a_file_of_the_operator_stays(tmp_path):
    path = tmp_path / "mine.jsonl"
    sink = Jsonl(path)
    sink.send(alert(revision=0))
    sink.close()
    with path.open("a") as file:
        file.write("a note\n")
    sink = Jsonl(path)
    sink.send(alert(revision=0))
    sink.send(alert(revision=1))
    sink.close()
    assert [line[:6] for line in path.read_text().splitlines()] == ['{"spec', "a note", '{"spec']


def test_a_full_disk_is_tried_again_and_leaves_no_half_line():
    sink = Jsonl(Path("/dev/full"))
    with pytest.raises(Retry):
        sink.send(alert())
    sink.close()


def test_a_file_behind_delivery_survives_kills_without_repeats(tmp_path):
    bus = MemoryBus(keep=True)
    path = tmp_path / "a.jsonl"
    for n in range(200):
        one = alert(id=f"{n:04x}")
        bus.publish(topics.ALERTS, one.site, codec.encode(one))
    bus.flush()
    for life in range(40):
        sink = Jsonl(path)
        who = Subscriber(name="jsonl", sink=sink, flush=sink.flush)
        reader = bus.reader(topics.ALERTS, who.group)
        outside = DeliveryEnvironment(clock=lambda: 1000.0, random=lambda: 0.5)
        delivery = Delivery(who, reader, dead_letter_publisher(bus), outside)
        delivery.step()
        if life % 3:  # killed after the line and before the commit, which is then undone
            bus.commit(topics.ALERTS, who.group, 0, max(0, 32 * (life // 4)), b"")
        delivery.close()
        sink.close()
    assert sorted(lines_of(path)) == [f"{n:04x}_0" for n in range(200)]


def test_a_replay_replaces_its_file_at_once_and_always_makes_it(tmp_path):
    path = tmp_path / "out" / "office.jsonl"
    write_all(path, [alert(revision=0), alert(revision=1)])
    assert len(lines_of(path)) == 2
    write_all(path, [])
    assert path.read_bytes() == b""
    assert [p.name for p in path.parent.iterdir()] == ["office.jsonl"]


def test_a_replay_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "office.jsonl"
    write_all(path, [alert()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="number"):
        write_all(path, [alert(), alert(score=float("nan"))])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["office.jsonl"]


# Evidence


TIME = ns(1000)


def picture(shade=90):
    return jpeg.encoded(np.full((180, 320, 3), shade, np.uint8))


def frame(start, *, source="desk", data=None):
    return FrameChunk(
        site="office",
        source=source,
        start=ns(start),
        end=ns(start + 0.2),
        seq=0,
        width=320,
        height=180,
        data=picture() if data is None else data,
    )


def recorded(*records):
    bus = MemoryBus(keep=True)
    for record in records:
        topic = topics.FRAMES if isinstance(record, FrameChunk) else topics.OBSERVATIONS
        bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
    bus.flush()
    return bus


def told(folder, ident="0123456789abcdef_0", site="office"):
    return json.loads((folder / site / f"{ident}.json").read_bytes())


def with_evidence(*cameras, **given):
    made = alert(time=TIME, **given)
    names = evidence_names(made.site, made.id, made.revision, cameras or ("desk",))
    return alert(time=TIME, evidence=names, **given)


def test_names_depend_on_nothing_but_the_alert():
    assert evidence_names("office", "00ff", 3, ("desk", "door_2")) == (
        "office/00ff_3_desk.jpg",
        "office/00ff_3_door_2.jpg",
    )
    assert evidence_names("office", "00ff", 3, ()) == ()


def test_a_snapshot_shows_the_frame_with_its_boxes(tmp_path):
    bus = recorded(frame(999.8), frame(1000.0), detections(1000.0, box(score=0.87)))
    SnapshotSink(tmp_path, bus).send(with_evidence())
    (shot,) = told(tmp_path)["snapshots"]
    data = (tmp_path / shot["name"]).read_bytes()
    assert shot["ok"]
    assert shot["time"] == "1970-01-01T00:16:40.000000000Z"
    assert shot["sha256"] == sha256(data).hexdigest()
    assert shot["boxes"][0]["score"] == 0.87
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imdecode(np.frombuffer(picture(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == plain.shape
    changed = np.abs(pixels.astype(int) - plain).max(axis=2) > 60
    assert changed[63:117, 144:176].any(), "the edge of the box"
    assert not changed[:40].any()


def test_the_same_alert_gives_the_same_bytes(tmp_path):
    bus = recorded(frame(1000.0), detections(1000.0, box()))
    for folder in ("a", "b"):
        SnapshotSink(tmp_path / folder, bus).send(with_evidence())
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / folder / "office").iterdir()}
        for folder in ("a", "b")
    )
    assert first == second
    assert len(first) == 2


def test_a_frame_that_was_looked_at_is_preferred_then_the_last_before():
    frames = [frame(t) for t in (998.6, 999.0, 999.9, 1000.1)]
    looked = {ns(999.0): detections(999.0)}
    assert best_frame(frames, looked, TIME).start == ns(999.0)
    assert best_frame(frames, {}, TIME).start == ns(999.9)
    assert best_frame(frames[3:], {}, TIME).start == ns(1000.1)
    assert best_frame([], looked, TIME) is None


def test_a_missing_frame_stands_in_the_manifest(tmp_path):
    bus = recorded(frame(1000.0), frame(900.0, source="door"))
    SnapshotSink(tmp_path, bus).send(with_evidence("desk", "door"))
    good, gone = told(tmp_path)["snapshots"]
    assert good["ok"]
    assert good["boxes"] is None
    assert not gone["ok"]
    assert "no frame" in gone["reason"]
    assert not (tmp_path / gone["name"]).exists()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"not a picture", picture()[:200]])
def test_a_broken_frame_stands_in_the_manifest(tmp_path, data):
    SnapshotSink(tmp_path, recorded(frame(1000.0, data=data))).send(with_evidence())
    (shot,) = told(tmp_path)["snapshots"]
    assert not shot["ok"]
    assert "JPEG" in shot["reason"]


def test_frames_come_out_of_the_local_log_too(tmp_path):
    log = LocalLog(tmp_path / "log", clock=lambda: 0)
    for record in (frame(1000.0), detections(1000.0, box())):
        topic = topics.FRAMES if isinstance(record, FrameChunk) else topics.OBSERVATIONS
        log.publish(topic, topics.key_of(topic, record), codec.encode(record))
    log.flush()
    SnapshotSink(tmp_path / "evidence", log).send(with_evidence())
    (shot,) = told(tmp_path / "evidence")["snapshots"]
    assert shot["boxes"]
    log.close()


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "office/../../x.jpg",
        "lobby/0123456789abcdef_0_desk.jpg",
        "office/ffff_0_desk.jpg",
        "office/0123456789abcdef_0_..jpg",
        "office/0123456789abcdef_0_desk.jpg\0",
        "office\\..\\x.jpg",
    ],
)
def test_a_name_that_is_not_this_alerts_is_not_written(tmp_path, name):
    folder = tmp_path / "evidence"
    SnapshotSink(folder, recorded(frame(1000.0))).send(alert(time=TIME, evidence=(name,)))
    (shot,) = told(folder)["snapshots"]
    assert not shot["ok"]
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["0123456789abcdef_0.json"]


@pytest.mark.parametrize("site", ["../up", "a/b", "", ".", "Office", "x" * 80])
def test_a_site_that_is_no_name_is_rejected(tmp_path, site):
    with pytest.raises(Rejected):
        SnapshotSink(tmp_path / "e", MemoryBus()).send(alert(site=site, evidence=("x.jpg",)))
    assert not list(tmp_path.rglob("*.json"))


def test_a_sites_folder_that_is_a_link_is_not_written_to(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "office").symlink_to(elsewhere)
    with pytest.raises(Retry):
        SnapshotSink(folder, recorded(frame(1000.0))).send(with_evidence())
    assert not list(elsewhere.iterdir())


class AwayBus(MemoryBus):
    """Brokers that do not answer."""

    def fetch(self, topic: str, key: str, start: int, end: int) -> list[bytes]:
        msg = "nobody answers"
        raise BrokersAway(msg)


def test_evidence_waits_for_brokers_that_are_away(tmp_path: Path) -> None:
    with pytest.raises(Retry, match="nobody answers"):
        SnapshotSink(tmp_path, AwayBus()).send(with_evidence())


def test_the_oldest_of_its_own_files_give_way_and_nothing_else(tmp_path):
    bus = recorded(frame(1000.0))
    (tmp_path / "office").mkdir()
    (tmp_path / "office" / "holiday.jpg").write_bytes(b"x" * 50_000)
    (tmp_path / "notes.txt").write_bytes(b"x" * 50_000)
    outside = tmp_path.parent / f"{tmp_path.name}-outside_0_desk.jpg"
    outside.write_bytes(b"x")
    (tmp_path / "office" / "00aa_0_desk.jpg").symlink_to(outside)
    sink = SnapshotSink(tmp_path, bus, cap=lambda: 40_000)
    for n in range(60):
        sink.send(with_evidence(id=f"{n:04x}"))
        for path in (tmp_path / "office").glob(f"{n:04x}_*"):
            os.utime(path, (n, n))
    own = sorted(p.name for p in (tmp_path / "office").glob("00[0-9a-f][0-9a-f]_0.json"))
    size = sum(p.stat().st_size for p in (tmp_path / "office").glob("00*") if not p.is_symlink())
    assert size <= 40_000
    assert own[-1] == "003b_0.json"
    assert own[0] > "0010"
    assert (tmp_path / "office" / "holiday.jpg").exists()
    assert (tmp_path / "notes.txt").exists()
    assert outside.read_bytes() == b"x"


def test_a_folder_that_is_gone_is_made_again(tmp_path):
    folder = tmp_path / "evidence"
    sink = SnapshotSink(folder, recorded(frame(1000.0)), cap=lambda: 20_000)
    sink.send(with_evidence())
    shutil.rmtree(folder)
    for n in range(5):
        sink.send(with_evidence(id=f"{n:04x}"))
    assert told(folder, "0004_0")["snapshots"][0]["ok"]


def test_a_file_that_is_full_becomes_the_older_one_and_no_line_is_lost_or_doubled(tmp_path):
    path = tmp_path / "alerts.jsonl"
    size = len(event_bytes(seen(0))) + 1
    sent = []
    for number in range(25):
        sink = Jsonl(path, most=10 * size)  # a restart after every alert
        sink.send(seen(number))
        sent.append(event_id(seen(number)))
        sink.close()
        again = Jsonl(path, most=10 * size)
        for repeated in range(max(0, number - 3), number + 1):
            again.send(seen(repeated))
        again.flush()
        again.close()
    files = [tmp_path / "alerts.jsonl.1", path]
    lines = [json.loads(line)["id"] for file in files for line in file.read_bytes().splitlines()]
    assert lines == sent[10:]
    assert all(file.stat().st_size <= 10 * size for file in files)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alerts.jsonl", "alerts.jsonl.1"]


APPENDER = """
import sys
from pathlib import Path
from tests.make import alert
from workers.delivery.jsonl import Jsonl
sink = Jsonl(Path(sys.argv[1]), 120_000, ours=True)
for n in range(150):
    sink.send(alert(id=f"{sys.argv[2]}{n}"))
    if n % 50 == 0:
        sink.close()
sink.flush()
sink.close()
"""


def test_two_processes_append_to_one_file_and_no_line_is_torn_or_lost(tmp_path):
    """As `fusewatch dead retry` beside a delivery worker; the file is rotated meanwhile."""
    path = tmp_path / "alerts.jsonl"
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), name]) for name in "ab"
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    files = [file for file in (path.with_name("alerts.jsonl.1"), path) if file.exists()]
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    assert len(files) == 2, "it was rotated"
    assert len({json.loads(line)["id"] for line in lines}) == len(lines)
    assert {path.name for path in tmp_path.iterdir()} == {"alerts.jsonl", "alerts.jsonl.1"}


def test_a_file_that_another_program_locks_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("workers.delivery.jsonl.LOCK_TIMEOUT", 0.05)
    path = tmp_path / "alerts.jsonl"
    sink = Jsonl(path)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Retry, match="is locked by another program"):
            sink.send(alert())
    sink.send(alert())
    assert path.read_text().count("\n") == 1
    sink.close()


def test_evidence_that_the_disk_does_not_take_fails_like_any_subscriber(tmp_path, monkeypatch):
    """A full disk is no matter of one alert: the circuit breaker opens, and alerts wait."""
    sink = SnapshotSink(tmp_path / "evidence", MemoryBus())
    names = evidence_names("office", "0123456789abcdef", 0, ["desk"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Retry, match="No space left") as failed:
        sink.send(alert(evidence=names))
    assert not failed.value.alone
