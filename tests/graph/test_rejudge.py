"""What was observed, judged again, gives what was told; other rules give what they would have."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest

from pipeline import topics
from pipeline.bus.log import LocalLog
from pipeline.bus.log_search import appended, between
from pipeline.errors import OutsideError
from pipeline.stages import BY_FAUST
from pipeline.types import FOREVER, SECOND, SYSTEM, SiteConfig, ns, rfc3339
from tests import make
from tests.graph.conftest import FAKES, run_edge
from workers import graph
from workers.bus.publish import publish_all
from workers.bus.site_configs import read_configs
from workers.cli import main
from workers.config import loader
from workers.delivery.cloudevent import event
from workers.replay.observation_replay import rejudge, span
from workers.runtime.status import Status

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s


def judged(config: Path, since: float, until: float) -> list[dict[str, Any]]:
    settings = loader.load(config)
    start, end = ns(BEGIN + since), ns(BEGIN + until)
    folder = config.parent / "state" / "log"
    entries = between(folder, topics.OBSERVATIONS, *span(settings, start, end))
    alerts = rejudge(settings, FAKES, entries, start, end).alerts
    return [json.loads(json.dumps(event(alert))) for alert in alerts]


def test_what_was_observed_is_judged_as_it_was(config: Path, scene: Callable[..., Path]) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    assert told
    assert judged(config, 0, 20) == told


def again(config: Path, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the command says by --json, and the alerts that it wrote."""
    out = config.parent / "again.jsonl"
    words = ["replay", str(config), "--since", "2026-01-05T22:00:00Z", "--out", str(out)]
    words += ["--state", str(config.parent / "state"), "--json", *options]
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(words) == 0
    return json.loads(said.getvalue()), [json.loads(x) for x in out.read_text().splitlines()]


def text(config: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that the command says to a person, but for the first."""
    words = ["replay", str(config), "--since", "2026-01-05T22:00:00Z", "--out"]
    words += [str(config.parent / "again.jsonl"), "--state", str(config.parent / "state")]
    capsys.readouterr()
    assert main(words) == 0
    return capsys.readouterr().out.splitlines()[1:]


def test_the_command_gives_what_was_sent_and_says_so(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    row, written = again(config)
    assert written == told
    assert row["differs"] == row["unsure"] == row["config"] == row["config_unknown"] == []
    assert row["revisions"] == row["sent_revisions"] == len(told)
    count = f"{len(told)} revisions of {row['incidents']} incidents"
    assert text(config, capsys) == [f"{count}, the same as sent"]


@pytest.mark.parametrize("since", range(0, 19, 2))
def test_every_cut_of_a_scene_gives_what_was_sent(
    config: Path, scene: Callable[..., Path], since: int
) -> None:
    sent = run_edge(config, scene(person=(1, 12), loud=(8, 9), spoken=(10, 12)))
    start = f"2026-01-05T22:00:{since:02}.000000000Z"
    ends = {event["data"]["alert_id"]: event["data"]["end"] for event in sent}
    wanted = [e for e in sent if ends[e["data"]["alert_id"]] > start]
    row, written = again(config, "--since", f"2026-01-05T22:00:{since:02}Z")
    assert written == wanted
    assert row["differs"] == []


def test_another_rule_is_named_and_what_it_changes(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_edge(config, scene(loud=(8, 9)))
    (id_,) = {event["data"]["alert_id"] for event in told}
    config.write_text(config.read_text().replace("severity: critical", "severity: low"))
    assert text(config, capsys) == [
        f"differs from the {len(told)} revisions of 1 incidents that were sent:",
        f'  {id_} (office), revision 0: severity was "critical", is "low"',
        "what judges is not what it was:",
        "  sites.office.rules[1].severity was critical, is low (since 2026-01-05T22:00:00Z)",
    ]
    config.write_text(config.read_text().replace("gunshot: 0.5", "gunshot: 0.999"))
    row, written = again(config)
    assert written == []
    assert [(each["id"], each["what"]) for each in row["differs"]] == [(id_, "gone")]
    assert [each["path"] for each in row["config"]] == [
        "sites.office.rules[1].labels.gunshot",
        "sites.office.rules[1].severity",
    ]


def test_what_was_not_sent_is_named(config: Path, scene: Callable[..., Path]) -> None:
    rules = config.read_text()
    config.write_text(rules.replace("gunshot: 0.5", "gunshot: 0.999"))
    assert run_edge(config, scene(loud=(8, 9))) == []
    config.write_text(rules)
    row, written = again(config)
    assert {each["what"] for each in row["differs"]} == {"added"}
    assert {each["id"] for each in row["differs"]} == {e["data"]["alert_id"] for e in written}


def test_a_log_without_a_record_of_the_config_says_that_it_is_not_known(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(loud=(8, 9)))
    for file in (config.parent / "state" / "log").glob("configs.v1.db*"):
        file.unlink()
    row, _ = again(config)
    assert (row["config_unknown"], row["differs"]) == (["office"], [])
    assert "  what judged sites.office then is not known" in text(config, capsys)[-1]


def test_the_config_is_published_when_it_changes_and_only_then(
    config: Path, scene: Callable[..., Path]
) -> None:
    def stored() -> list[SiteConfig]:
        entries = appended(config.parent / "state" / "log", topics.CONFIGS, 0, FOREVER)
        return list(read_configs(entry.value for _, entry in entries))

    run_edge(config, scene(loud=(8, 9)))
    run_edge(config, scene(loud=(8, 9)))
    (first,) = stored()
    assert (first.site, first.start, first.head) == ("office", ns(BEGIN), "rules")
    assert first.recorded
    config.write_text(config.read_text().replace("gunshot: 0.5", "gunshot: 0.6"))
    run_edge(config, scene(loud=(8, 9)))
    assert [record.hash == first.hash for record in stored()] == [True, False]


def test_an_incident_of_which_the_begin_is_no_longer_stored_is_named(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (id_,) = {
        event["data"]["alert_id"] for event in run_edge(config, scene(person=(2, 6), loud=(8, 9)))
    }
    with closing(connect(config.parent / "state/log/observations.v1.db")) as link, link:
        older = (
            "DELETE FROM entries WHERE offset <= (SELECT max(offset) FROM entries WHERE start < ?)"
        )
        link.execute(older, (ns(BEGIN + 7),))
    row, _ = again(config)
    assert [each["id"] for each in row["unsure"]] == [id_]
    assert any(
        f"{id_} (office) cannot be reproduced for certain: it needs what was observed from " in line
        for line in text(config, capsys)
    )
    with closing(connect(config.parent / "state/log/observations.v1.db")) as link, link:
        link.execute("DELETE FROM entries")
    row, written = again(config)
    assert written == []
    assert [each["what"] for each in row["differs"]] == ["gone"]
    assert "nothing that was observed" in row["unsure"][0]["why"]


def test_an_incident_of_a_failed_stage_is_named_and_not_judged(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_edge(config, scene(loud=(8, 9)))
    settings = loader.load(config)
    bus = LocalLog(config.parent / "state" / "log", clock=time.time_ns)
    failed = make.anomaly(BEGIN + 60, "stage-failed", rule=SYSTEM)
    publish_all(bus, topics.ANOMALIES, [failed])
    nodes = graph.nodes(settings, FAKES, Status(), recorded=True, stages=("alert",))
    runners = [node.runner(bus) for node in nodes]
    while runners[0].step():
        pass
    bus.close()
    row, written = again(config)
    assert written == told
    assert (len(row["not_replayed"]), row["differs"]) == (1, [])
    assert "tells of a failed stage, and is not judged again" in text(config, capsys)[-1]


@pytest.mark.live
@pytest.mark.parametrize("faust", [False, True], ids=["plain", "faust"])
def test_over_brokers_too_the_command_gives_what_was_sent(
    kafka: str, config: Path, scene: Callable[..., Path], *, faust: bool
) -> None:
    from tests.live import brokered  # kafka-python is an extra

    path = scene(person=(3, 6), loud=(8, 9))
    began = time.time_ns() // SECOND * SECOND + 30 * SECOND  # brokers are searched by append time
    since, until = (f"{rfc3339(began + ns(s))[:19]}Z" for s in (0, 60))
    path.write_text(path.read_text().replace("2026-01-05T22:00:00Z", since))
    over = brokered.over_kafka(config, kafka)
    told = brokered.play(over, path, FAKES, faust=BY_FAUST if faust else ())
    row, written = again(over, "--since", since, "--until", until)
    assert written == told
    assert (row["differs"], row["config"], row["config_unknown"]) == ([], [], [])


def test_only_incidents_of_the_span_are_given(config: Path, scene: Callable[..., Path]) -> None:
    told = run_edge(config, scene(person=(3, 5)))
    assert told
    assert judged(config, 4, 20) == told
    assert judged(config, 0, 3) == []
    assert judged(config, 60, 90) == []


def test_other_rules_say_what_they_would_have_said(
    config: Path, scene: Callable[..., Path]
) -> None:
    assert run_edge(config, scene(loud=(8, 9)))
    config.write_text(config.read_text().replace("gunshot: 0.5", "gunshot: 0.999"))
    assert judged(config, 0, 20) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "yesterday"], "a time like 2026-01-05T22:00:00Z"),
        (["--since", "2026-01-05T22:00:00"], "a time like 2026-01-05T22:00:00Z"),
        (
            ["--since", "2026-01-05T22:00:00Z", "--until", "2026-01-05T21:00:00Z"],
            "is not before",
        ),
    ],
)
def test_a_wrong_span_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    out = str(config.parent / "out.jsonl")
    assert main(["replay", str(config), *options, "--out", out]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_a_log_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"observations\.v1\.db cannot be read"):
        list(between(tmp_path / "nowhere", topics.OBSERVATIONS, 0, 1))


def test_without_files_a_span_is_needed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(config), "--out", "x"]) == 2
    assert "name files, or --since TIME" in capsys.readouterr().err


def test_a_span_before_now_is_a_time_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", str(config), "--since", "10m", "--out", str(config.parent / "out.jsonl")]
    assert main([*words, "--until", "20m"]) == 2
    assert "--since 10m is not before --until 20m" in capsys.readouterr().err
