"""A recording is replayed as the log that it is of: the same bytes, the same last revisions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec, topics
from pipeline.bus import log_search
from pipeline.types import FOREVER, Progress, event_start, ns
from tests.graph.conftest import FAKES, last, run_edge
from tests.recorded import BEGIN as BEGAN
from tests.recorded import audio
from tests.recorded import entry as entry_of
from workers.cli import main
from workers.config import loader
from workers.delivery.cloudevent import event
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About
from workers.replay.again import FRAMES, Way
from workers.replay.inputs import Given, StoredInput, resolve
from workers.replay.stored_replay import StoredReplay, replay_stored
from workers.stored.chunks import chunks_between
from workers.stored.wanted_encoders import WantedEncoders

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s
RECORDED = (topics.CONFIGS, *topics.CHUNKS, topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS)


def record(config: Path, since: float = 0, gap: tuple[float, float] = (0, 0)) -> Path:
    """Records the log of the daemon; chunks from `since` s on, the rest is the run-up.

    In `gap`, s, there are no chunks.
    """
    folder, log = config.parent / "recording", config.parent / "state" / "log"
    writer = FolderWriter(folder, About(log="test", since=ns(BEGIN + since)))
    for topic in RECORDED:
        for _, entry in log_search.appended(log, topic, 0, FOREVER):
            at = _start(entry.value)
            kept = at >= ns(BEGIN + since) and not ns(BEGIN + gap[0]) <= at < ns(BEGIN + gap[1])
            if topic not in topics.CHUNKS or kept:
                writer.add(topic, entry)
    writer.close()
    return folder


def _start(value: bytes) -> int:
    return event_start(codec.decode(value))


class Fakes(WantedEncoders):
    """The models of tests."""

    def _of(self, *_: object) -> Any:
        return FAKES


def replayed(config: Path, folder: Path, origin: str = "observations", **more: Any) -> StoredReplay:
    settings = loader.load(config)
    (one,) = resolve(settings, config, Given(paths=[folder], **more))
    assert isinstance(one, StoredInput)
    way = Way(origin=origin, selected=one.selected)
    return replay_stored(settings, one, Fakes(), way, rules="now")


def events(judged: StoredReplay) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(event(alert))) for alert in judged.alerts]


def test_a_recording_gives_what_was_sent(config: Path, scene: Callable[..., Path]) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9), spoken=(12, 14)))
    folder = record(config)
    judged = replayed(config, folder)
    assert events(judged) == told
    assert (judged.compared.differs, judged.compared.unsure, judged.losses) == ([], [], [])
    frames = replayed(config, folder, FRAMES)
    assert last(events(frames)) == last(told)
    assert frames.compared.differs == []
    assert frames.frames is not None
    assert (frames.frames.passed_over, frames.frames.missing) == ({}, [])
    assert [events(replayed(config, folder)) for _ in range(3)] == [told] * 3


@pytest.mark.parametrize("since", [4, 9, 13])
def test_alerts_of_the_run_up_are_not_output(
    config: Path, scene: Callable[..., Path], since: int
) -> None:
    told = run_edge(config, scene(person=(1, 12), loud=(8, 9), spoken=(10, 12)))
    folder = record(config, since)
    at = f"2026-01-05T22:00:{since:02}.000000000Z"
    judged = replayed(config, folder)
    ends = {e["data"]["alert_id"]: e["data"]["end"] for e in told}
    assert events(judged) == [
        e for e in told if e["time"] >= at and ends[e["data"]["alert_id"]] > at
    ]
    assert judged.compared.differs == []
    frames = replayed(config, folder, FRAMES)
    assert frames.compared.differs == []
    whole = replayed(config, folder, since="2026-01-05T22:00:00Z", until="2026-01-05T22:01:00Z")
    assert events(whole) == told


def test_a_recording_around_its_incidents_is_judged_by_what_it_has(
    config: Path, scene: Callable[..., Path]
) -> None:
    """Between the pictures of two incidents, what was observed stands for them."""
    told = run_edge(config, scene(person=(2, 4), loud=(17, 18)))
    folder = record(config, gap=(6, 15))
    frames = replayed(config, folder, FRAMES)
    assert last(events(frames)) == last(told)
    assert frames.compared.differs == []
    assert frames.frames is not None
    assert frames.frames.frames == 55
    observed = {gone.topic: gone.observed for gone in frames.frames.missing}
    assert observed[topics.FRAMES] == 45
    assert observed[topics.AUDIO] >= 9


def test_damage_is_named_and_the_rest_is_replayed(config: Path, scene: Callable[..., Path]) -> None:
    run_edge(config, scene(loud=(8, 9)))
    folder = record(config)
    (file,) = folder.glob("*.mcap")
    data = bytearray(file.read_bytes())
    data[200 : len(data) // 4 : 1000] = bytes(len(range(200, len(data) // 4, 1000)))
    file.write_bytes(data)
    judged = replayed(config, folder, FRAMES)
    assert judged.losses
    assert all(file.name in loss for loss in judged.losses)
    out = config.parent / "out.jsonl"
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["replay", str(config), str(folder), "--out", str(out), "--json"]) == 0
    (row,) = json.loads(said.getvalue())
    assert (row["kind"], row["from"]) == ("recording", "observations")


def test_no_recording_is_an_error_that_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "x.mcap").write_bytes(b"nothing")
    words = ["replay", str(config), str(config.parent / "x.mcap"), "--out", "out.jsonl"]
    assert main(words) == 2
    assert "is no MCAP file" in capsys.readouterr().err


def test_a_promise_that_hearing_rounded_down_is_not_missing() -> None:
    """A busy capture promises before its first chunk, and not on a whole second."""
    room = {"site": "office", "source": "room"}
    heard = [Progress(**room, upto=ns(BEGAN - 0.1)), *(audio(BEGAN + k / 2, k) for k in range(20))]
    told = [Progress(**room, upto=ns(BEGAN + k)) for k in range(-1, 10)]
    stored = {
        topics.AUDIO: [entry_of(one, k, topics.AUDIO) for k, one in enumerate(heard)],
        topics.OBSERVATIONS: [entry_of(one, k, topics.OBSERVATIONS) for k, one in enumerate(told)],
    }

    class Stored:
        def between(self, topic: str, *_: int) -> Any:
            return iter(stored.get(topic, []))

    office = loader.load(Path(__file__).parents[2] / "deploy/examples/office.yaml")
    found = chunks_between(office, Stored(), 0, FOREVER)  # type: ignore[arg-type]
    assert [one.topic for one in found if one.topic == topics.OBSERVATIONS] == []
