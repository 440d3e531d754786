"""The brokers go away under live capture: nothing is lost, and what happened meanwhile is told.

`FUSEWATCH_OUTAGE=120` says for how many seconds they are away (30 by default).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec, topics
from pipeline.stages import CAPTURE, TABLE, WORKERS
from pipeline.types import AudioChunk, FrameChunk, Record
from tests import reels
from tests.live.brokered import over_kafka, waiting, watched
from tests.live.brokers import Brokers
from tests.live.daemon import SECRET, office
from tests.live.processes import Process, Processes
from tests.live.servers import eventually, rtsp_server, virtual_microphone
from tests.live.test_daemon import free_port, told
from workers.capture.report_client import read_token, send_report
from workers.delivery.receiver import Receiver

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("weights")]

OUTAGE = float(os.environ.get("FUSEWATCH_OUTAGE", "30"))  # s
CHAIN = tuple((row.reads, row.name) for row in TABLE)
STAGES = tuple(worker for worker in WORKERS if worker != CAPTURE)
SPOOL = 100_000_000  # bytes
LABELS = ("gunshot", "climbing", "intrusion")
WORDS = "somebody climbs the wall with a ladder"


class Plant:
    """Workers over brokers of their own, each in a process of its own."""

    def __init__(self, folder: Path, config: Path, port: int, brokers: Brokers) -> None:
        text = config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}")
        rule = "- {rule: keyword, words: {en: [ladder]}, on: [report], label: climbing}"
        config.write_text(text.replace("- {rule: zone,", f"{rule}\n      - {{rule: zone,"))
        self.config = over_kafka(config, brokers.addresses, f"  spool: {SPOOL // 10**6} MB\n")
        self.state, self.port, self.brokers = folder / "state", port, brokers
        self.processes = Processes(folder / "logs")

    def start(self, *stages: str) -> None:
        for stage in stages:
            self.processes.start(
                stage, sys.executable, "-m", "workers.cli", "worker", stage, self.config,
                "--state", self.state / stage,
            )  # fmt: skip
        for stage in stages:
            eventually(lambda one=stage: self[one].times("ready") > 0, within=90)

    def __getitem__(self, stage: str) -> Process:
        return self.processes[stage]

    def asked(self) -> dict[str, Any]:
        """What capture says of itself now."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            token = read_token(self.state / "capture")
            connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"})
            return json.loads(connection.getresponse().read())  # type: ignore[no-any-return]
        finally:
            connection.close()

    def spooled(self) -> int:
        """Records that wait in capture's spool."""
        return int(self.asked()["gauges"].get("spool.waiting", 0))

    def captured(self, source: str) -> dict[str, int]:
        """What capture has counted of a source so far."""
        return dict(self.asked()["counts"]["office"].get(source, {}))

    def state_of(self, source: str) -> str:
        """How a source is."""
        return str(self.asked()["sources"]["office"].get(source, {}).get("state"))

    def report(self, text: str) -> None:
        """Returns when capture has taken it (202)."""
        url, token = f"http://127.0.0.1:{self.port}", read_token(self.state / "capture")
        send_report(url, token, "office", text, "guard-1")

    def holds(self, topic: str) -> dict[str, list[Record]]:
        """All that a topic holds, by key, in the order in which the brokers got it."""
        found: dict[str, list[Record]] = {}
        with watched(self.config) as bus:
            for entry in bus.between(topic, 0, time.time_ns() + 10**12):
                found.setdefault(entry.key, []).append(codec.decode(entry.value))
        return found

    def counts(self, stage: str, source: str) -> dict[str, int]:
        """The last word of a worker that was stopped."""
        counted: dict[str, int] = self[stage].status()["counts"]["office"].get(source, {})
        return counted


@contextmanager
def plant(folder: Path, **sources: str) -> Iterator[tuple[Plant, Receiver]]:
    with Brokers(folder / "kafka") as brokers, Receiver(SECRET) as receiver:
        config = office(folder, url=receiver.url, **sources)  # type: ignore[arg-type]
        made = Plant(folder, config, free_port(), brokers)
        with made.processes:
            yield made, receiver


def within(events: list[dict[str, Any]], begin: str, end: str) -> list[dict[str, Any]]:
    """Those of incidents that began in that time."""
    return [event for event in events if begin < event["data"]["start"] < end]


def utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def total(counts: dict[str, int], *prefixes: str) -> int:
    return sum(n for what, n in counts.items() if what.startswith(prefixes))


def test_an_outage_of_the_brokers_costs_nothing(tmp_path: Path, media: Path) -> None:
    pytest.importorskip("pyaudio", reason="extra `microphone` is not installed")
    person, shot = media / "video/office_a.mp4", media / "audio/sesa_train/gunshot_011.flac"
    nobody = reels.film(tmp_path / "nobody.mkv", ((k / 5, 6) for k in range(450)), size=(640, 360))
    port = free_port()
    with (
        virtual_microphone(tmp_path) as play,
        ExitStack() as film,
        plant(tmp_path, camera=f"rtsp://127.0.0.1:{port}/live", microphone="device:pulse") as (
            all_,
            receiver,
        ),
    ):
        film.enter_context(rtsp_server(nobody, port=port))
        all_.start(*STAGES, "capture")
        eventually(lambda: all_.state_of("desk") == "live", within=30)
        play(shot)
        eventually(lambda: told(receiver, "gunshot"), within=90)
        eventually(lambda: all_.spooled() < 20, within=30)
        before = all_.captured("desk")
        all_.brokers.kill(1)
        began, gone = utc(), time.monotonic()
        film.close()  # where nobody was, somebody comes
        film.enter_context(rtsp_server(person, port=port))
        eventually(lambda: time.monotonic() > gone + 5, within=10)
        play(shot)
        all_.report(WORDS)
        eventually(lambda: time.monotonic() > gone + OUTAGE, within=OUTAGE + 5)
        assert all_.state_of("desk") == "live"
        during = all_.captured("desk")["published"] - before["published"]
        gauges = all_.asked()["gauges"]
        spooled, size = int(gauges["spool.waiting"]), gauges["spool.bytes"]
        assert during > OUTAGE * 2, "capture went on"
        assert spooled > during, "and kept it"
        assert not [each for each in LABELS if within(told(receiver, each), began, utc())]
        ended = utc()
        all_.brokers.start(1)
        back = time.monotonic()
        eventually(lambda: all_.spooled() < 20, within=60)
        drained = time.monotonic() - back
        for label in LABELS:
            eventually(lambda of=label: within(told(receiver, of), began, ended), within=120)
        caught_up = time.monotonic() - back
        assert "said nothing" not in str(list(receiver.events.values())), "no capture was gone"
        assert all_["capture"].stop(30) == 0
        with watched(all_.config) as bus:
            for place in CHAIN:
                eventually(lambda of=place: waiting(bus, *of) == 0, within=120)
            assert sum(bus.end(topics.LATE).values()) == 0
            assert sum(bus.end(topics.DEAD).values()) == 0
        assert set(all_.processes.stop(STAGES).values()) == {0}
        print(
            f"\noutage of {OUTAGE:.0f} s: {spooled} records, {size / 1e6:.1f} MB in the spool (cap "
            f"{SPOOL / 1e6:.0f} MB), empty {drained:.1f} s after the brokers were back; all that "
            f"was planted is told after {caught_up:.1f} s"
        )
        ledger(all_, "desk", all_.holds(topics.FRAMES), "vision", FrameChunk)
        ledger(all_, "room", all_.holds(topics.AUDIO), "hearing", AudioChunk)


def ledger(
    all_: Plant,
    source: str,
    holds: dict[str, list[Record]],
    stage: str,
    kind: type[FrameChunk] | type[AudioChunk],
) -> None:
    """The source was captured once, arrived in its order, and every chunk is in one place."""
    got = [chunk for chunk in holds[f"office/{source}"] if isinstance(chunk, kind)]
    seqs = [chunk.seq for chunk in got]
    assert seqs == sorted(set(seqs)), "in order, none twice: what was spooled before what was live"
    captured, worked = all_.counts("capture", source), all_.counts(stage, source)
    assert captured["published"] == captured["forwarded"] == len(got)
    still = total(worked, "gated.")
    assert worked["processed"] + still + total(worked, "dropped.") == len(got)
    gated, dropped = total(captured, "gated."), total(captured, "dropped.")
    waiting = captured["captured"] - gated - dropped - len(got)
    assert 0 <= waiting <= 2, "what the publisher had not taken yet when it was stopped"
    assert captured.get("dropped.spool", 0) == 0
    print(
        f"{source}: captured {captured['captured']} = processed {worked['processed']} + gated "
        f"{gated + still} + dropped {dropped + total(worked, 'dropped.')} + waiting {waiting}; "
        f"capture {captured}; {stage} {worked}"
    )


def texts(all_: Plant, topic: str, key: str) -> list[str]:
    """The reports, or what was made of them, in the order of the topic."""
    texts = [getattr(record, "text", "") for record in all_.holds(topic).get(key, [])]
    return [text for text in texts if text]


def test_reports_survive_a_kill_of_capture_amid_an_outage_and_its_absence_is_told(
    tmp_path: Path, media: Path
) -> None:
    camera, microphone = str(media / "video/office_a.mp4"), str(media / "speech/jfk.flac")
    with plant(tmp_path, camera=camera, microphone=microphone) as (all_, receiver):
        all_.start("text", "fusion", "alert", "delivery", "capture")
        said = [f"{k} {WORDS}" for k in range(10)]
        all_.report(said[0])
        # Each worker has found the brokers now: one that never did would end, to be started again.
        eventually(lambda: told(receiver, "climbing"), within=120)
        all_.brokers.kill(1)
        for text in said[1:]:
            all_.report(text)
        all_["capture"].kill()
        all_["capture"].start()
        eventually(lambda: all_["capture"].times("ready") == 2, within=60)
        all_.brokers.start(1)
        eventually(lambda: texts(all_, topics.OBSERVATIONS, "office") == said, within=120, every=1)
        assert texts(all_, topics.REPORTS, "office/reports") == said
        all_["capture"].kill()
        # Nobody beside it can tell that it is gone: the worker that reads reports does.
        eventually(
            lambda: "said nothing for 15 s" in str(all_.holds(topics.REPORTS)), within=90, every=1
        )
