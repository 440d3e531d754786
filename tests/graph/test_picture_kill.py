"""Pictures in alerts, from a process of its own that is killed by SIGKILL, to real receivers."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Camera, Config, Site, Webhook
from pipeline.types import Alert, Record
from tests.make import box, detections
from tests.pictures import AT, finding, frame, framed, from_event, pictured, seen
from workers.delivery.receiver import Receiver, Reply

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
FOUND = box(x=0.3, y=0.5, width=0.2)
COUNT = 90

CHILD = """
import random, sys, time
from pathlib import Path
import msgspec
from pipeline import topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Config
from workers.config.secrets import Secrets
from workers.delivery import subscribers

folder, settings = Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Config)
durable = {topics.ALERTS: Retention(hold=True, durable=True)}
bus = LocalLog(folder / "log", clock=time.time_ns, retention=durable)
who_gets = subscribers.every(settings, Secrets(), folder, bus)
deliveries = [subscribers.delivery(who, bus, time.sleep, lambda *_: None) for who in who_gets]
while not all(delivery.idle for delivery in deliveries):
    for delivery in deliveries:
        delivery.step(0.02)
bus.close()
"""


def config(*urls: str) -> Config:
    hooks = [
        Webhook(url=url, secret=SECRET, name=f"hook-{i}", picture="inline", timeout=5)
        for i, url in enumerate(urls)
    ]
    site = Site(cameras={"desk": Camera(source="desk.mp4")})
    return Config(version=1, sites={"office": site}, webhooks=tuple(hooks))


def store(folder: Path, *records: Record) -> None:
    durable = {topics.ALERTS: Retention(hold=True, durable=True)}
    log = LocalLog(folder / "log", clock=lambda: 0, retention=durable)
    for record in records:
        kinds = {Alert: topics.ALERTS, type(frame()): topics.FRAMES}
        topic = kinds.get(type(record), topics.OBSERVATIONS)
        log.publish(topic, topics.key_of(topic, record), codec.encode(record))
    log.flush()
    log.close()


def without_frames(folder: Path) -> None:
    """The frames are gone, as after `storage.frames` seconds."""
    for path in (folder / "log").glob(f"{topics.FRAMES}.db*"):
        path.unlink()


def child(folder: Path, settings: Config) -> subprocess.Popen[bytes]:
    given = msgspec.json.encode(settings).decode()
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), given], stderr=subprocess.PIPE
    )


def kill_while_sending(folder: Path) -> None:
    """Kills the sender as soon as it has connected: the picture is cut, and nothing is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with child(folder, config(url)) as process:
            listener.accept()[0].close()
            process.kill()
            process.wait()


def deliver(folder: Path) -> bytes:
    """Runs the sender to its end; returns the body of the only alert."""
    with Receiver(SECRET) as receiver, child(folder, config(receiver.url)) as process:
        ended = process.wait(timeout=60)
        assert ended == 0, process.stderr.read().decode() if process.stderr else ""
    (post,) = receiver.posts
    return post.body


@pytest.mark.slow
def test_a_picture_that_was_cut_before_a_kill_is_sent_after_it(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    store(tmp_path, frame(), detections(AT, FOUND), told)
    kill_while_sending(tmp_path)
    (kept,) = (tmp_path / "pictures/office").iterdir()
    before = kept.read_bytes()
    without_frames(tmp_path)
    picture = from_event(json.loads(deliver(tmp_path)))
    assert picture == before
    assert framed(seen(picture), FOUND)


@pytest.mark.slow
def test_a_picture_that_could_not_be_cut_before_a_kill_stays_absent(tmp_path: Path) -> None:
    told = pictured(finding(FOUND))
    store(tmp_path, told)
    kill_while_sending(tmp_path)
    store(tmp_path, frame(), detections(AT, FOUND))
    assert "picture" not in json.loads(deliver(tmp_path))


@pytest.mark.slow
def test_each_attempt_of_each_webhook_carries_the_same_bytes_whenever_it_is_killed(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    alerts = [pictured(finding(FOUND), id=f"{n:04x}") for n in range(COUNT)]
    store(tmp_path, frame(), detections(AT, FOUND), *alerts)

    def answer(received: object) -> Reply:
        return Reply(503) if chance.random() < 0.05 else Reply()

    kills = 0
    with Receiver(SECRET, answer=answer) as one, Receiver(SECRET, answer=answer) as other:
        settings = config(one.url, other.url)
        ended = None
        while ended is None:
            with child(tmp_path, settings) as process:
                more = len(one.events) + chance.randrange(3, 30)
                if more < COUNT:
                    came = one.wait(more, seconds=60)
                    process.kill()
                    assert came, process.stderr.read().decode() if process.stderr else ""
                    kills += 1
                    process.wait()
                    if kills == 1:
                        without_frames(tmp_path)
                else:
                    ended = process.wait(timeout=120)
                    assert ended == 0, process.stderr.read() if process.stderr else ""
        posts = [*one.posts, *other.posts]
        assert set(one.events) == set(other.events) == {f"{n:04x}_0" for n in range(COUNT)}
    assert kills >= 3
    bodies = {(post.headers["webhook-id"], post.body) for post in posts}
    assert len(bodies) == COUNT, "one id never carries two contents"
    with_picture = [ident for ident, body in bodies if b'"picture"' in body]
    assert 0 < len(with_picture) < COUNT, "the frames were there at first, and then gone"
