"""Pictures in alerts over real brokers: cut from their frames, and the same in every attempt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.types import Alert
from tests.live.test_dead import SECRET, Place, run, until
from tests.make import box, detections
from tests.pictures import AT, finding, frame, framed, from_event, pictured, seen
from workers.config.secrets import Secrets
from workers.delivery import subscribers
from workers.delivery.receiver import Receiver, Reply
from workers.runtime.state_folder import state_folder

pytestmark = pytest.mark.live
FOUND = box(x=0.3, y=0.5, width=0.2)


def published(place: Place) -> Alert:
    told = pictured(finding(FOUND))
    place.publish(topics.FRAMES, frame(AT - 0.2, seed=3), frame(AT), frame(AT + 0.2, seed=4))
    place.publish(topics.OBSERVATIONS, detections(AT, FOUND))
    place.publish(topics.ALERTS, told)
    return told


def test_a_dead_letter_is_sent_again_with_the_picture_of_the_first_attempt(
    tmp_path: Path, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [Reply(410), Reply(204)]
    with Receiver(SECRET, answer=lambda _: gone.pop(0)) as receiver:
        hook = f"{{url: '{receiver.url}', secret: '{SECRET}', name: far, picture: inline}}"
        place = Place(tmp_path, kafka, f"[{hook}]")
        published(place)
        state = state_folder(place.settings, tmp_path / "state")
        who, *_ = subscribers.every(place.settings, Secrets(), state, place.bus)
        delivery = subscribers.delivery(who, place.bus, lambda _: None, lambda *_: None)
        until(delivery, lambda: place.held(topics.DEAD))
        delivery.close()
        (row,) = map(json.loads, run(capsys, "list", place.path, "--json")[1])
        code, said = run(capsys, "retry", place.path, row["id"], "--state", state)
        assert (code, said) == (0, [f"{row['id']}: far took it"])
    first, second = receiver.posts
    assert first.body == second.body
    assert framed(seen(from_event(json.loads(first.body))), FOUND)
    place.close()


def test_a_worker_on_another_machine_cuts_the_same_picture_from_the_same_frames(
    tmp_path: Path, kafka: str
) -> None:
    with Receiver(SECRET) as receiver:
        hook = f"{{url: '{receiver.url}', secret: '{SECRET}', name: far, picture: inline}}"
        place = Place(tmp_path, kafka, f"[{hook}]")
        told = published(place)
        for machine in ("one", "other"):
            state = state_folder(place.settings, tmp_path / machine)
            who, *_ = subscribers.every(place.settings, Secrets(), state, place.bus)
            who.sink.send(told)
    first, second = receiver.posts
    assert b'"picture"' in first.body
    assert first.body == second.body
    place.close()
