"""Workers as processes over real brokers: the command as its users start it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stages import BY_FAUST
from tests.graph.conftest import CONFIG, last
from tests.live import brokered
from tests.live.brokers import SecureKafka
from tests.live.processes import Processes
from tests.live.servers import eventually
from workers.config import loader
from workers.delivery.cloudevent import event_bytes
from workers.replay.scene_replay import replay
from workers.stages.encoders import load_encoders

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
FUSEWATCH = (sys.executable, "-m", "workers.cli")
HANGING = (sys.executable, "-m", "tests.live.hanging_worker")


@pytest.fixture
def processes(tmp_path: Path, weights: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "logs", {"FUSEWATCH_WEIGHTS": str(weights)}) as all_:
        yield all_


def beside(tmp_path: Path, name: str, text: str = CONFIG) -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("faust", [(), BY_FAUST], ids=["plain", "faust"])
def test_a_break_in_through_a_process_for_each_stage_is_what_its_replay_tells(
    kafka: str, processes: Processes, scenes: Path, tmp_path: Path, faust: tuple[str, ...]
) -> None:
    scene = scenes / "office-break-in.yaml"
    text = (ROOT / "deploy/examples/office.yaml").read_text()
    path = brokered.over_kafka(beside(tmp_path, "office", text), kafka)
    for stage in brokered.STAGES:
        how = ["--faust"] if stage in faust else []
        state = ["--state", str(tmp_path / stage)]
        processes.start(stage, *FUSEWATCH, "worker", stage, path, "--recorded", *how, *state)
    state = ["--state", str(tmp_path / "capture")]
    capture = processes.start(
        "capture", *FUSEWATCH, "worker", "capture", path, "--scene", scene, *state
    )
    eventually(lambda: capture.code is not None, within=120)
    assert capture.code == 0, capture.tail()

    def failed() -> BaseException | None:
        gone = [processes[stage] for stage in brokered.STAGES if not processes[stage].alive]
        return AssertionError(gone[0].tail()) if gone else None

    brokered.settled(path, scene, within=180, failed=failed)
    assert {stage: processes[stage].stop(30) for stage in brokered.STAGES} == dict.fromkeys(
        brokered.STAGES, 0
    )
    settings = loader.load(path)
    encoders = load_encoders(settings.models, recorded=True)
    played = [brokered.parsed(event_bytes(a)) for a in replay(settings, scene, encoders).alerts]
    assert played
    assert last(brokered.told(tmp_path / "delivery")) == last(played)
    # The ledger closes, and the last line of each process has it.
    counts = {name: processes[name].status()["counts"] for name in ("capture", "vision")}
    assert counts["capture"]["office"]["desk"]["captured"] == 48 * 5
    worked = counts["vision"]["office"]["desk"]
    assert worked["processed"] + worked["gated.still"] == 48 * 5


def test_a_model_that_hangs_ends_the_process_and_says_where(
    kafka: str, processes: Processes, tmp_path: Path
) -> None:
    path = brokered.over_kafka(beside(tmp_path, "office"), kafka, "  stall: 6\n")
    hung = processes.start("vision", *HANGING, path)
    idle = processes.start("alert", *FUSEWATCH, "worker", "alert", path, "--recorded")
    eventually(lambda: hung.times("ready") and idle.times("ready"), within=60)
    brokered.put(path, brokered.frame())
    eventually(lambda: hung.code is not None, within=60)
    assert hung.code == 3, hung.tail()
    assert "vision has stalled: 1 entries of frames.v1 wait" in hung.tail()
    assert "in hang" in hung.log.read_text(), "where it hangs"
    assert idle.alive, "who has no work does not stall"
    assert idle.stop(30) == 0


def test_without_brokers_a_stage_ends_and_a_capture_keeps_everything(
    kafka: str, processes: Processes, tmp_path: Path, scenes: Path
) -> None:
    text = CONFIG + 'bus: {kind: kafka, brokers: ["127.0.0.1:9"]}\n'
    path = beside(tmp_path, "away", text)
    text_ = processes.start("text", *FUSEWATCH, "worker", "text", path)
    state = ["--state", str(tmp_path / "state")]
    scene = scenes / "office-break-in.yaml"
    capture = processes.start(
        "capture", *FUSEWATCH, "worker", "capture", path, "--scene", scene, *state
    )
    eventually(lambda: text_.code is not None, within=40)
    assert text_.code == 3
    assert "127.0.0.1:9" in text_.tail()
    eventually(lambda: "waits in the spool" in capture.tail(), within=40)
    assert capture.alive
    assert capture.stop(30) == 0
    waiting = capture.status()["gauges"]["spool.waiting"]
    # The brokers come: it goes on, and what waited is the first that they get.
    there = brokered.over_kafka(beside(tmp_path, "there"), kafka)
    again = processes.start(
        "again", *FUSEWATCH, "worker", "capture", there, "--scene", scene, *state
    )
    eventually(lambda: again.code is not None, within=120)
    assert again.code == 0, again.tail()
    assert waiting > 0
    assert again.status()["counts"]["office"]["desk"]["forwarded"] == 48 * 5


def test_missing_topics_are_told_with_what_to_do(
    kafka: str, processes: Processes, tmp_path: Path
) -> None:
    text = CONFIG + f'bus: {{kind: kafka, brokers: ["{kafka}"], prefix: nobody-made-it}}\n'
    path = beside(tmp_path, "none", text)
    for stage in ("text", "delivery", "capture"):
        worker = processes.start(
            stage, *FUSEWATCH, "worker", stage, path, "--state", str(tmp_path / stage)
        )
        eventually(lambda worker=worker: worker.code is not None, within=60)
        assert worker.code == 2, worker.tail()
        assert "fusewatch topics create" in worker.tail()


@pytest.mark.parametrize(("there", "here"), [([], ["--faust"]), (["--faust"], [])])
def test_a_group_is_all_faust_or_all_plain(
    kafka: str, processes: Processes, tmp_path: Path, there: list[str], here: list[str]
) -> None:
    path = brokered.over_kafka(beside(tmp_path, "office"), kafka)
    command = (*FUSEWATCH, "worker", "text", path, "--recorded")
    first = processes.start("first", *command, *there)
    eventually(lambda: first.times("ready"), within=60)
    brokered.joined(path, "text")
    second = processes.start("second", *command, *here)
    eventually(lambda: second.code is not None, within=60)
    assert second.code == 3, second.tail()
    assert "one group is all Faust or all plain" in second.tail()
    assert first.stop(30) == 0


def test_the_brokers_password_opens_them_and_is_never_shown(
    secure_kafka: SecureKafka, tmp_path: Path, weights: Path
) -> None:
    wrong = "not-the-password-4711"
    text = CONFIG + (
        f'bus: {{kind: kafka, brokers: ["{secure_kafka.sasl}"], prefix: {brokered.prefix()}, '
        f'replication: 1, min_insync: 1, tls: {{ca: "{secure_kafka.ca}"}}, sasl: '
        f"{{mechanism: SCRAM-SHA-512, username: {secure_kafka.username}, "
        'password: "${WORD}"}}\n'
    )
    path = beside(tmp_path, "secure", text)
    known = {"FUSEWATCH_WEIGHTS": str(weights)}
    with Processes(tmp_path / "right", {**known, "WORD": secure_kafka.password}) as right:
        topics = right.start("topics", *FUSEWATCH, "topics", "create", path)
        eventually(lambda: topics.code is not None, within=60)
        assert topics.code == 0, topics.tail()
        worker = right.start("alert", *FUSEWATCH, "worker", "alert", path)
        eventually(lambda: worker.times("ready") or worker.code is not None, within=60)
        assert worker.stop(30) == 0, worker.tail()
    with Processes(tmp_path / "wrong", {**known, "WORD": wrong}) as refused:
        worker = refused.start("alert", *FUSEWATCH, "worker", "alert", path)
        eventually(lambda: worker.code is not None, within=90)
        assert worker.code == 3, worker.tail()
    said = "".join(log.read_text() for log in tmp_path.glob("*/*.log"))
    assert secure_kafka.password not in said
    assert wrong not in said
