"""From stored frames the models run again: the last revisions tell what live told."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from pathlib import Path
from sqlite3 import connect
from typing import Any

import msgspec
import pytest

from pipeline import codec, topics
from pipeline.bus.log_search import appended
from pipeline.types import FOREVER, SECOND, Detections, Progress, SiteConfig, ns, rfc3339
from tests.graph.conftest import FAKES, last, run_edge
from workers.bus.history import history
from workers.bus.site_configs import read_configs
from workers.cli import main
from workers.config import loader
from workers.delivery.cloudevent import event
from workers.replay.again import FRAMES, ORIGINS, Again, Way, judge_again
from workers.stored.selection import Selection, selection

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s


def again(
    config: Path, since: float = 0, until: float = 20, *, chosen: Selection | None = None
) -> Again:
    settings = loader.load(config)
    way = Way(origin=FRAMES, selected=chosen or Selection())
    with history(settings, config, config.parent / "state") as stored:
        return judge_again(settings, FAKES, stored, ns(BEGIN + since), ns(BEGIN + until), way=way)


def events(judged: Again) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(event(alert))) for alert in judged.judged.alerts]


def test_from_frames_the_last_revisions_are_those_that_were_sent(
    config: Path, scene: Callable[..., Path]
) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9), spoken=(12, 14)))
    judged = again(config)
    assert last(events(judged)) == last(told)
    assert judged.compared.differs == []
    assert judged.compared.last_only
    assert judged.frames is not None
    assert (judged.frames.frames, judged.frames.passed_over) == (100, {})
    assert (judged.frames.missing, judged.frames.behind) == ([], {})
    assert [events(again(config)) for _ in range(3)] == [events(judged)] * 3


@pytest.mark.parametrize("since", range(0, 19, 3))
def test_every_cut_of_a_log_gives_the_last_revisions(
    config: Path, scene: Callable[..., Path], since: int
) -> None:
    run_edge(config, scene(person=(1, 12), loud=(8, 9), black=(13, 15)))
    judged = again(config, since)
    assert judged.compared.differs == []
    assert judged.compared.sent_incidents == len({a.id for a in judged.judged.alerts})


def test_other_rules_judge_what_the_models_find_now(
    config: Path, scene: Callable[..., Path]
) -> None:
    run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    config.write_text(config.read_text().replace("gunshot: 0.5", "gunshot: 0.999"))
    judged = again(config)
    assert "gunshot" not in {label for alert in judged.judged.alerts for label in alert.labels}
    assert judged.compared.differs


def test_a_frame_that_live_did_not_look_at_is_counted(
    config: Path, scene: Callable[..., Path]
) -> None:
    run_edge(config, scene(person=(3, 6)))
    with closing(connect(config.parent / "state/log/observations.v1.db")) as link, link:
        rows = link.execute("SELECT offset, value FROM entries ORDER BY offset").fetchall()
        looked = [
            (offset, codec.decode(value))
            for offset, value in rows
            if isinstance(codec.decode(value), Detections)
        ]
        for offset, seen in looked[20:25]:  # live says its promise alone
            said = Progress(site=seen.site, source=seen.source, upto=seen.start)
            link.execute(
                "UPDATE entries SET value = ? WHERE offset = ?", (codec.encode(said), offset)
            )
    judged = again(config)
    assert judged.frames is not None
    assert judged.frames.passed_over == {"office/desk": 5}
    assert any("no time to look at 5 frames" in line for line in judged.frames.lines())


def test_what_retention_deleted_is_named(config: Path, scene: Callable[..., Path]) -> None:
    run_edge(config, scene(person=(3, 6), loud=(12, 13)))
    with closing(connect(config.parent / "state/log/frames.v1.db")) as link, link:
        older = (
            "DELETE FROM entries WHERE offset <= (SELECT max(offset) FROM entries WHERE start < ?)"
        )
        link.execute(older, (ns(BEGIN + 8),))
    judged = again(config)
    assert judged.frames is not None
    (gone,) = judged.frames.missing
    assert (gone.topic, gone.begins) == (topics.FRAMES, "2026-01-05T22:00:08Z")
    assert gone.observed == 40
    assert "older observations are judged as they are" in str(gone)
    assert judged.compared.differs == []


def command(config: Path, *options: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """What the command says by --json, and the alerts that it wrote."""
    out = config.parent / "again.jsonl"
    words = ["replay", str(config), "--since", "2026-01-05T22:00:00Z", "--out", str(out)]
    words += ["--until", "2026-01-05T22:00:20Z", "--state", str(config.parent / "state"), "--json"]
    said = io.StringIO()
    with redirect_stdout(said):
        code = main([*words, *options])
    row = json.loads(said.getvalue() or "{}")
    written = out.read_text().splitlines() if out.exists() else []
    return code, row, [json.loads(line) for line in written]


def test_by_the_rules_of_then_what_was_sent_comes_again(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    config.write_text(
        config.read_text()
        .replace("gunshot: 0.5", "gunshot: 0.999")
        .replace("0,0, 1,0, 1,1, 0,1", "0,0, 0.1,0, 0.1,0.1, 0,0.1")
    )
    code, row, written = command(config)
    assert (code, row["rules"], written == told) == (0, "now", False)
    assert row["config"]
    code, row, written = command(config, "--config", "then")
    assert (code, row["rules"], row["differs"], row["config"]) == (0, "then", [], [])
    assert written == told
    (config_then,) = row["configs"].values()
    assert config_then.startswith("sites.office as of 2026-01-05T22:00:00Z")


def test_what_is_missing_of_the_rules_of_then_is_named(
    config: Path, scene: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_edge(config, scene(person=(3, 6)))
    log = config.parent / "state/log"
    (stored,) = read_configs(e.value for _, e in appended(log, topics.CONFIGS, 0, FOREVER))

    def keep(*records: SiteConfig) -> None:
        with closing(connect(log / "configs.v1.db")) as link, link:
            link.execute("DELETE FROM entries")
            for offset, record in enumerate(records):
                link.execute(
                    "INSERT INTO entries (offset, key, value, trace, appended) VALUES (?,?,?,?,?)",
                    (offset, record.site, codec.encode(record), "", 1),
                )

    change = msgspec.structs.replace
    keep(change(stored, head="head 1.2", head_sha256="ab" * 32, hash="x"))
    assert command(config, "--config", "then")[0] == 2
    assert "the fusion head that judged sites.office then is not here: head 1.2" in (
        capsys.readouterr().err
    )
    keep(stored, change(stored, start=stored.start + ns(5), hash="other"))
    assert command(config, "--config", "then")[0] == 2
    assert "changed at 2026-01-05T22:00:05Z" in capsys.readouterr().err
    keep()
    assert command(config, "--config", "then")[0] == 2
    assert "what judged sites.office then is not stored" in capsys.readouterr().err


def test_one_site_of_two_keeps_the_pace_of_both(config: Path, scene: Callable[..., Path]) -> None:
    config.write_text(
        config.read_text()
        + "  lobby:\n    cameras: {hall: {source: 'device:1'}}\n    fusion: {head: rules}\n"
    )
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    chosen = selection(loader.load(config), sites=("office",))
    assert last(events(again(config, chosen=chosen))) == last(told)
    code, row, written = command(config, "--site", "office")
    assert (code, row["differs"], written) == (0, [], told)
    code, row, written = command(config, "--site", "lobby")
    assert (code, row["differs"], written) == (0, [], [])


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_speed_is_kept_and_changes_nothing(
    config: Path, scene: Callable[..., Path], origin: str
) -> None:
    told = run_edge(config, scene(person=(3, 6), loud=(8, 9)))
    settings = loader.load(config)
    heard: list[tuple[int, int]] = []
    way = Way(origin=origin, speed=15, heard=lambda *at: heard.append(at))
    began = time.monotonic()
    with history(settings, config, config.parent / "state") as stored:
        judged = judge_again(settings, FAKES, stored, ns(BEGIN), ns(BEGIN + 20), way=way)
    assert time.monotonic() - began > 19 / 15
    assert last(events(judged)) == last(told)
    assert heard[-1] == (20 * SECOND, 20 * SECOND)


@pytest.mark.live
def test_over_brokers_too_frames_give_the_last_revisions(
    kafka: str, config: Path, scene: Callable[..., Path]
) -> None:
    from tests.live import brokered  # kafka-python is an extra

    path = scene(person=(3, 6), loud=(8, 9), spoken=(12, 14))
    began = time.time_ns() // SECOND * SECOND + 30 * SECOND  # brokers are searched by append time
    path.write_text(path.read_text().replace("2026-01-05T22:00:00Z", rfc3339(began)))
    over = brokered.over_kafka(config, kafka)
    told = brokered.play(over, path, FAKES)
    settings = loader.load(over)
    chosen = Way(origin=FRAMES)
    since, until = began, began + 60 * SECOND
    with history(settings, over, None) as stored:
        first = judge_again(settings, FAKES, stored, since, until, way=chosen)
        second = judge_again(settings, FAKES, stored, since, until, way=chosen)
    assert first.compared.differs == []
    assert last(events(first)) == last(told)
    assert events(first) == events(second)
    assert first.frames is not None
    assert (first.frames.frames, first.frames.missing) == (100, [])
