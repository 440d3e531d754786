"""The picture in an alert: from the frames of a bus, through the disk, to a receiver."""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Camera, Config, Site
from pipeline.config.schema import Webhook as Settings
from pipeline.errors import BrokersAway, Retry
from pipeline.types import Alert, ns
from tests.make import alert, box, detections
from tests.pictures import (
    AT,
    finding,
    frame,
    framed,
    from_event,
    pictured,
    recorded,
    scenery,
    seen,
)
from workers.config.secrets import Secrets
from workers.delivery import inline_picture, subscribers
from workers.delivery.cloudevent import MAX_EVENT_BYTES, event_bytes
from workers.delivery.inline_picture import (
    MOST_BYTES,
    InlinePictures,
    PictureCutter,
    room,
    with_picture,
)
from workers.delivery.receiver import Receiver, Reply
from workers.delivery.snapshots import SnapshotSink
from workers.delivery.webhook import Webhook
from workers.media import jpeg
from workers.runtime.state_folder import state_folder

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
FOUND, OTHER = box(x=0.3, y=0.5, width=0.2), box(x=0.8, y=0.5, width=0.2)


def pictures(folder: Path, bus: MemoryBus, **given: Any) -> InlinePictures:
    return InlinePictures(folder / "pictures", PictureCutter(bus, {}), **given)


def watched() -> MemoryBus:
    return recorded(frame(), detections(AT, FOUND, OTHER))


def sent(body: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(body)
    return document


def file_of(folder: Path, one: Alert) -> Path:
    return folder / "pictures" / one.site / f"{one.id}_{one.revision}.jpg"


# What a receiver gets


def test_a_receiver_gets_a_signed_picture_with_a_box_around_what_was_found(tmp_path: Path) -> None:
    told, bus = pictured(finding(FOUND)), watched()
    with Receiver(SECRET) as receiver:
        given = Settings(url=receiver.url, secret=SECRET, picture="inline")
        Webhook(given, document=pictures(tmp_path, bus).event_bytes).send(told)
        SnapshotSink(tmp_path / "evidence", bus).send(told)
    (post,) = receiver.posts
    standardwebhooks.Webhook(SECRET).verify(post.body, dict(post.headers))
    picture = from_event(sent(post.body))
    assert len(picture) <= MOST_BYTES
    assert len(post.body) < MAX_EVENT_BYTES
    pixels = seen(picture)
    assert pixels.shape[1] / pixels.shape[0] == pytest.approx(640 / 360, rel=0.01)
    assert pixels.shape[1] >= 240
    assert framed(pixels, FOUND)
    assert not framed(pixels, OTHER)
    snapshot = seen((tmp_path / "evidence" / told.evidence[0]).read_bytes())
    assert snapshot.shape == (360, 640, 3), "the snapshot is as large as the frame"
    assert framed(snapshot, FOUND)
    assert not framed(snapshot, OTHER)
    manifest = json.loads((tmp_path / "evidence/office/0123456789abcdef_0.json").read_bytes())
    (shot,) = manifest["snapshots"]
    assert len(shot["boxes"]) == 2
    assert [each["label"] for each in shot["drawn"]] == ["person: intrusion"]


def test_the_attribute_is_as_cloudevents_wants_it_and_data_is_as_without(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    body, without = pictures(tmp_path, watched()).event_bytes(told), sent(event_bytes(told))
    document = sent(body)
    (name,) = document.keys() - without.keys()
    assert re.fullmatch(r"[a-z0-9]{1,20}", name)
    assert re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", document[name])
    del document[name]
    assert document == without
    assert body.startswith(event_bytes(told)[:-1])


class OlderEvent(msgspec.Struct):
    """What a receiver of an earlier version reads."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    data: dict[str, Any]


def test_a_receiver_of_before_still_reads_the_document(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    body = pictures(tmp_path, watched()).event_bytes(told)
    assert b'"picture"' in body
    read = msgspec.json.decode(body, type=OlderEvent)
    assert read == msgspec.json.decode(event_bytes(told), type=OlderEvent)


def test_the_camera_of_the_gravest_finding_is_shown(tmp_path: Path) -> None:
    told = (finding(FOUND, source="lost"), finding(FOUND, source="door"), finding(OTHER))
    bus = recorded(
        frame(source="desk", seed=1),
        frame(source="door", seed=2, size=(480, 480)),
        detections(AT, FOUND),
        detections(AT, FOUND, source="door"),
    )
    one = pictured(*told, cameras=("desk", "door", "lost"))
    pixels = seen(from_event(sent(pictures(tmp_path, bus).event_bytes(one))))
    assert pixels.shape[0] == pixels.shape[1]
    assert framed(pixels, FOUND)


def test_a_sound_is_shown_by_the_first_camera_with_a_frame_and_without_boxes(
    tmp_path: Path,
) -> None:
    told = pictured(
        finding(None, source="room", kind="sound", label="glass"), cameras=("lost", "desk")
    )
    pixels = seen(from_event(sent(pictures(tmp_path, watched()).event_bytes(told))))
    assert not framed(pixels, FOUND)
    assert not framed(pixels, OTHER)


@pytest.mark.parametrize(
    "told",
    [
        pictured(finding(FOUND), state="closed", end=ns(AT)),
        alert(time=ns(AT)),
        pytest.param(pictured(finding(FOUND), id="a_b"), marks=pytest.mark.no_schema),
        pictured(finding(FOUND), site="../up"),
    ],
    ids=["closed", "without evidence", "an id that is no name", "a site that is no name"],
)
def test_some_alerts_have_no_picture_and_no_file(tmp_path: Path, told: Alert) -> None:
    assert pictures(tmp_path, watched()).event_bytes(told) == event_bytes(told)
    assert not (tmp_path / "pictures").exists()


# The same bytes in each attempt


def test_all_attempts_and_all_webhooks_carry_the_same_bytes(tmp_path: Path) -> None:
    bus, told = watched(), pictured(finding(FOUND))
    answers = iter([Reply(503), Reply(204), Reply(204)])
    document = pictures(tmp_path, bus).event_bytes
    with Receiver(SECRET, answer=lambda _: next(answers)) as receiver:
        for name in ("a", "b"):
            given = Settings(url=receiver.url, secret=SECRET, name=name, picture="inline")
            hook = Webhook(given, document=document)
            if name == "a":
                with pytest.raises(Retry):
                    hook.send(told)
            hook.send(told)
    first, *others = receiver.posts
    assert b'"picture"' in first.body
    assert {post.body for post in others} == {first.body}
    assert {post.headers["webhook-id"] for post in receiver.posts} == {"0123456789abcdef_0"}


def test_another_process_sends_the_picture_of_the_first(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    first = pictures(tmp_path, watched()).event_bytes(told)
    assert pictures(tmp_path, MemoryBus(keep=True)).event_bytes(told) == first
    changed = recorded(frame(seed=7), detections(AT, FOUND))
    assert pictures(tmp_path, changed).event_bytes(told) == first


def test_what_could_not_be_cut_stays_absent(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    assert pictures(tmp_path, MemoryBus(keep=True)).event_bytes(told) == event_bytes(told)
    assert file_of(tmp_path, told).read_bytes() == b""
    assert pictures(tmp_path, watched()).event_bytes(told) == event_bytes(told)


def test_of_two_processes_at_once_the_first_that_has_written_counts(tmp_path: Path) -> None:
    told, gate = pictured(finding(FOUND)), threading.Barrier(8)
    bodies: list[bytes] = []

    def cut(seed: int) -> Callable[[Alert, int], bytes]:
        cutter = PictureCutter(recorded(frame(seed=seed), detections(AT, FOUND)), {})

        def waiting(one: Alert, most: int) -> bytes:
            data = cutter(one, most)
            gate.wait(30)  # each has cut a picture of its own, and none has written it
            return data

        return waiting

    made = [InlinePictures(tmp_path / "pictures", cut(seed)) for seed in range(8)]
    threads = [
        threading.Thread(target=lambda one=one: bodies.append(one.event_bytes(told)))
        for one in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies) == 8
    assert len(set(bodies)) == 1
    assert [path.name for path in file_of(tmp_path, told).parent.iterdir()] == [
        "0123456789abcdef_0.jpg"
    ]


def test_equal_frames_and_findings_give_equal_bytes() -> None:
    told = pictured(finding(FOUND))
    assert PictureCutter(watched(), {})(told, 9000) == PictureCutter(watched(), {})(told, 9000)


def test_a_dead_letter_that_is_sent_again_has_the_kept_picture_or_none(tmp_path: Path) -> None:
    told, other = pictured(finding(FOUND)), pictured(finding(FOUND), revision=1)
    with Receiver(SECRET) as receiver:
        config = Config(
            version=1,
            sites={"office": Site(cameras={"desk": Camera(source="x.mp4")})},
            webhooks=(Settings(url=receiver.url, secret=SECRET, picture="inline"),),
        )
        first, *_ = subscribers.every(config, Secrets(), tmp_path, watched())
        first.sink.send(told)
        (again,) = subscribers.remote(config, Secrets(), tmp_path)
        again.sink.send(told)
        again.sink.send(other)
        (replayed,) = subscribers.remote(config, Secrets())
        replayed.sink.send(told)
    bodies = [post.body for post in receiver.posts]
    assert bodies[1] == bodies[0] != event_bytes(told)
    assert bodies[2] == event_bytes(other)
    assert bodies[3] == event_bytes(told)
    assert not file_of(tmp_path, other).exists(), "its picture may still be cut"


def test_a_webhook_without_the_setting_gets_no_picture(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    with Receiver(SECRET) as receiver:
        hooks = tuple(
            Settings(url=f"{receiver.url}/{kind}", secret=SECRET, picture=kind, name=kind)
            for kind in ("none", "inline")
        )
        config = Config(version=1, sites={"office": Site()}, webhooks=hooks)
        plain, full = subscribers.remote(config, Secrets(), tmp_path, watched())
        plain.sink.send(told)
        full.sink.send(told)
    assert receiver.posts[0].body == event_bytes(told)
    assert b'"picture"' in receiver.posts[1].body


# What the disk keeps


def test_the_files_are_private_and_the_state_folder_knows_them(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    pictures(tmp_path, watched()).event_bytes(told)
    path = file_of(tmp_path, told)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for each in (tmp_path, path.parent, path.parent.parent):
        each.chmod(0o755)
    path.chmod(0o644)
    state_folder(Config(version=1, sites={"office": Site()}), tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_the_oldest_pictures_give_way_and_are_never_replaced_by_others(tmp_path: Path) -> None:
    bus, told = watched(), [pictured(finding(FOUND), revision=number) for number in range(12)]
    made = pictures(tmp_path, bus, cap=lambda: 60_000)
    before = [made.event_bytes(one) for one in told]
    files = [file_of(tmp_path, one) for one in told]
    sizes = [path.stat().st_size for path in files]
    assert sum(sizes) <= 60_000
    assert sizes == sorted(sizes), "the newest are kept"
    assert sizes[-1] > 0 == sizes[0]
    for one, size, first in zip(told, sizes, before, strict=True):
        again = pictures(tmp_path, bus).event_bytes(one)
        assert again == (first if size else event_bytes(one))


def test_on_a_full_disk_pictures_give_way_after_evidence(tmp_path: Path) -> None:
    told, bus = pictured(finding(FOUND)), watched()
    pictures(tmp_path, bus).event_bytes(told)
    SnapshotSink(tmp_path / "evidence", bus).send(told)
    kept = sum(path.stat().st_size for path in (tmp_path / "evidence").rglob("*.*"))
    assert subscribers.give_way(tmp_path, 1) > 1
    assert file_of(tmp_path, told).read_bytes()
    assert subscribers.give_way(tmp_path, kept + 1_000_000) > 0
    assert file_of(tmp_path, told).read_bytes() == b""
    assert inline_picture.evict(tmp_path / "pictures", 1) == 0


def test_a_disk_that_takes_no_picture_holds_no_alert_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = pictured(finding(FOUND))
    (tmp_path / "pictures").write_text("a file where the folder should be")
    made = pictures(tmp_path, watched())
    assert made.event_bytes(told) == event_bytes(told)
    assert "without their picture" in caplog.text
    (tmp_path / "pictures").unlink()
    assert made.event_bytes(told) == event_bytes(told), "an attempt without it has been made"


def test_old_pictures_that_cannot_be_deleted_cost_no_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def cap() -> int:
        raise PermissionError(1, "not permitted")

    told = pictured(finding(FOUND))
    first = pictures(tmp_path, watched(), cap=cap).event_bytes(told)
    assert b'"picture"' in first
    assert "cannot be deleted" in caplog.text
    assert pictures(tmp_path, watched()).event_bytes(told) == first


class AwayBus(MemoryBus):
    """Brokers that do not answer."""

    def fetch(self, topic: str, key: str, start: int, end: int) -> list[bytes]:
        msg = "nobody answers"
        raise BrokersAway(msg)


def test_brokers_that_are_away_hold_no_alert_up(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    assert pictures(tmp_path, AwayBus(keep=True)).event_bytes(told) == event_bytes(told)
    assert pictures(tmp_path, watched()).event_bytes(told) == event_bytes(told)


def test_slow_frames_hold_no_alert_up_for_long() -> None:
    moments = iter([0.0, 1.0, 6.0, 7.0])
    cutter = PictureCutter(watched(), {}, clock=lambda: next(moments))
    told = pictured(cameras=("lost", "desk"))
    assert cutter(told, MOST_BYTES) == b""


def test_a_broken_frame_gives_the_place_to_the_next_camera() -> None:
    bus = recorded(frame(source="desk", data=b"\xff\xd8broken"), frame(source="door"))
    assert PictureCutter(bus, {})(pictured(cameras=("desk", "door")), MOST_BYTES)
    assert PictureCutter(bus, {})(pictured(), MOST_BYTES) == b""


def test_a_box_from_far_outside_the_picture_is_drawn_inside(tmp_path: Path) -> None:
    wild = msgspec.structs.replace(FOUND, x1=-1e12, y1=-1e12, x2=1e12, y2=1e12)
    told = pictured(finding(wild))
    assert PictureCutter(recorded(frame()), {})(told, MOST_BYTES)
    SnapshotSink(tmp_path, recorded(frame())).send(told)


# The size


@pytest.mark.parametrize("most", [12_000, 9000, 6000, 4000, 2500])
@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (360, 640), (100, 60)])
def test_a_picture_is_made_small_enough(most: int, size: tuple[int, int]) -> None:
    bus = recorded(frame(size=size), detections(AT, FOUND))
    data = PictureCutter(bus, {})(pictured(finding(FOUND)), most)
    assert 0 < len(data) <= most
    assert max(seen(data).shape) <= 640


@pytest.mark.parametrize("most", [300, 10, 0, -5])
def test_without_room_there_is_no_picture(most: int) -> None:
    assert PictureCutter(watched(), {})(pictured(finding(FOUND)), most) == b""


@settings(max_examples=40)
@given(
    words=st.lists(st.text(max_size=800), max_size=40),
    labels=st.lists(st.text("abc xyz", min_size=1, max_size=40), max_size=60),
)
def test_whatever_is_told_the_whole_document_is_json_below_20_kb(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], labels: list[str]
) -> None:
    told = pictured(finding(FOUND), transcript=tuple(words), labels=tuple(labels))
    body = pictures(tmp_path_factory.mktemp("p"), watched()).event_bytes(told)
    assert len(body) < MAX_EVENT_BYTES
    document = sent(body)
    assert document["data"] == sent(event_bytes(told))["data"]
    if "picture" in document:
        assert seen(from_event(document)).shape[2] == 3
    else:
        assert room(event_bytes(told)) < 3000


def test_an_alert_of_64_cameras_and_400_findings_is_told_below_20_kb(tmp_path: Path) -> None:
    cameras = tuple(f"camera-of-the-north-gate-{number}" for number in range(64))
    found = [finding(FOUND, source=cameras[n % 64], label=f"label {n}") for n in range(400)]
    told = pictured(*found, cameras=cameras, labels=tuple(f"label {n}" for n in range(400)))
    bus = recorded(*(frame(source=camera) for camera in cameras[:3]))
    body = pictures(tmp_path, bus).event_bytes(told)
    assert len(body) < MAX_EVENT_BYTES
    assert sent(body)["data"] == sent(event_bytes(told))["data"]


@given(size=st.integers(2, MAX_EVENT_BYTES), picture=st.binary(max_size=16_000))
def test_a_picture_that_does_not_fit_is_left_out(size: int, picture: bytes) -> None:
    document = b"{" + b'"data":{}'.ljust(max(9, size - 2)) + b"}"
    body = with_picture(document, picture)
    assert len(body) < MAX_EVENT_BYTES or body == document
    fits = 0 < len(picture) <= room(document)
    assert (from_event(sent(body)) == picture) if fits else (body == document)


def test_the_best_quality_that_fits_is_chosen() -> None:
    pixels = scenery()
    sizes = [len(jpeg.within(pixels, 10**6, q, q)) for q in range(50, 86)]
    for quality in (0, 10, 20, 35):
        most = sizes[quality]
        data = jpeg.within(pixels, most, 50, 85)
        assert 0.98 * most <= len(data) <= most, "sizes grow with quality, but not at each step"
    assert jpeg.within(pixels, sizes[0] - 1, 50, 85) == b""
