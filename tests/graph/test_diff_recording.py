"""`fusewatch diff` of a recording: what it holds, beside what was written or is judged now."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.types import Alert, Detections, ns
from tests.graph.conftest import FAKES
from workers import daemon
from workers.cli import main
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About
from workers.recordings.recording import open_recording
from workers.replay.diff import diff, with_unseen
from workers.replay.diff_fields import Allowance
from workers.stages.encoders import Encoders
from workers.stored.wanted_encoders import WantedEncoders
from workers.tuning.run_alerts import judged_run, run_of

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s


@pytest.fixture
def recording(config: Path, scene: Callable[..., Path]) -> Path:
    """What a daemon records while a person and a shot come; its state folder is beside it."""
    config.write_text(config.read_text() + "recording: {around: always}\n")
    state = config.parent / "state"
    played = scene(person=(2, 5), loud=(17, 18))
    assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    return state / "recordings"


def differ(*words: object) -> tuple[int, list[dict[str, Any]]]:
    said = io.StringIO()
    with redirect_stdout(said):
        code = main(["diff", *map(str, words), "--json"])
    return code, json.loads(said.getvalue())


def test_a_recording_holds_the_alerts_that_the_daemon_wrote(config: Path, recording: Path) -> None:
    code, (row,) = differ(recording, config.parent / "state/alerts.jsonl")
    assert (code, row["differences"], row["before"], row["after"]) == (0, [], 2, 2)
    assert row["before_file"].endswith("(as recorded)")
    (file,) = recording.glob("*.mcap")
    assert differ(file, recording)[0] == 0


def test_the_config_that_judged_it_gives_the_same_and_another_one_differs(
    config: Path, recording: Path
) -> None:
    assert differ(recording, "--config", config)[0] == 0
    assert differ(config.parent / "state/alerts.jsonl", recording, "--config", config)[0] == 0
    rules = config.read_text()
    config.write_text(rules.replace("gunshot: 0.5", "gunshot: 0.99"))
    code, (row,) = differ(recording, "--config", config)
    assert (code, [each["what"] for each in row["differences"]]) == (1, ["gone"])
    config.write_text(rules.replace("zone: floor, severity: high", "zone: floor, severity: low"))
    code, (row,) = differ(recording, "--config", config)
    (one,) = row["differences"]
    assert (code, one["what"]) == (1, "changed")
    assert {"field": "severity", "before": "high", "after": "low", "revision": None} in one[
        "changes"
    ]
    assert differ(recording, "--config", config, "--rules", "then")[0] == 0


def test_observations_and_sweep_read_a_recording_too(
    config: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["observations", str(config), str(recording), "--kind", "seen", "--json"]) == 0
    seen = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["source"] for row in seen} == {"desk"}
    setting = "sites.office.rules.sound.labels.gunshot=0.5,0.99"
    assert main(["sweep", str(config), str(recording), "--set", setting, "--json"]) == 0
    tried = json.loads(capsys.readouterr().out)["tried"]
    assert [each["outcome"]["incidents"] for each in tried] == [2, 1]


class Fakes(WantedEncoders):
    """The models of tests."""

    def for_frames(self, settings: Config) -> Encoders:
        return FAKES


def test_from_frames_a_difference_names_the_frames_that_live_did_not_look_at(
    config: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = config.parent / "late"
    writer = FolderWriter(late, About(log="test"))
    whole = open_recording(recording)
    for topic in (topics.CONFIGS, *topics.CHUNKS, topics.OBSERVATIONS, topics.ALERTS):
        for entry in whole.appended(topic):
            record = codec.decode(entry.value)
            busy = isinstance(record, Detections) and ns(BEGIN + 1) <= record.start < ns(BEGIN + 6)
            if not busy and not (isinstance(record, Alert) and "intrusion" in record.labels):
                writer.add(topic, entry)
    writer.close()
    now = judged_run(late, config, origin="frames", rules="now", models=Fakes())
    assert {site for site, _ in now.unseen} == {"office"}
    assert len(now.unseen) == 25
    allowed = Allowance.of([], 0, 0, last=True)
    found = with_unseen(diff(run_of(late).incidents, now.incidents, allowed), now.unseen)
    (one,) = found.differences
    assert (one.what, one.after[0].labels, one.unseen_frames) == ("added", ("intrusion",), 25)
    every = judged_run(recording, config, origin="frames", rules="now", models=Fakes())
    assert every.unseen == []
    assert not diff(run_of(recording).incidents, every.incidents, allowed).differences
    assert capsys.readouterr().out == ""


def test_wrong_use_says_what_to_do(
    config: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = config.parent / "state/alerts.jsonl"
    for words, wanted in (
        ((alerts,), "compared with what? Name a second run, or --config CONFIG"),
        ((alerts, alerts, "--rules", "then"), "are for what --config CONFIG judges again"),
        ((alerts, config.parent / "none.mcap"), "none.mcap: there is no such file"),
    ):
        assert main(["diff", *map(str, words)]) == 2
        assert wanted in capsys.readouterr().err
    assert recording
