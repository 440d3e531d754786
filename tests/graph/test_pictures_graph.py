"""Pictures of alerts through the whole graph: in the evidence folder and in the document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.graph.conftest import FAKES
from tests.pictures import from_event
from workers import daemon
from workers.delivery.receiver import Receiver

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


def test_a_daemon_sends_the_pictures_that_it_keeps(
    config: Path, scene: Callable[..., Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with Receiver(SECRET) as receiver:
        hooks = [
            f"  - {{url: '{receiver.url}/{name}', secret: '{SECRET}', name: {name}, {more}}}\n"
            for name, more in (("far", "picture: inline"), ("near", "picture: none"))
        ]
        config.write_text(config.read_text() + "webhooks:\n" + "".join(hooks))
        played = scene(person=(3, 6), loud=(8, 9))
        assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    near = {e["id"]: e for post in receiver.posts if "near" in post.path and (e := post.event)}
    far = {e["id"]: e for post in receiver.posts if "far" in post.path and (e := post.event)}
    assert far.keys() == near.keys()
    told = [event for event in far.values() if event["data"]["state"] != "closed"]
    assert len(told) >= 2
    for event in told:
        picture = state / "pictures" / "office" / f"{event['id']}.jpg"
        assert picture.read_bytes() == from_event(event)
        del event["picture"]
    assert far == near
    manifests = [
        json.loads((state / "evidence" / "office" / f"{event['id']}.json").read_bytes())
        for event in told
    ]
    drawn = [each["label"] for m in manifests for shot in m["snapshots"] for each in shot["drawn"]]
    assert set(drawn) == {"person: intrusion"}
