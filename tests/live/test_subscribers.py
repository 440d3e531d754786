"""Subscribers in trouble beside a real sender, and what a daemon says of them while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from benchmarks import subscribers
from pipeline import codec, topics
from pipeline.bus import log_search
from pipeline.ports import Entry
from pipeline.run import dead_letter
from tests import make
from tests.live.daemon import ROOT, SECRET
from tests.live.servers import eventually
from tests.live.test_daemon import free_port
from workers.capture.report_client import read_token, send_report
from workers.config import loader
from workers.delivery.receiver import Receiver, Reply
from workers.runtime.state_folder import local_log

pytestmark = pytest.mark.live


@pytest.mark.slow
def test_no_trouble_of_others_loses_an_alert_and_what_hangs_still_waits(tmp_path: Path) -> None:
    """The benchmark in short; `python -m benchmarks.subscribers` is the whole."""
    plan = subscribers.Plan(
        alerts=400, kills=3, rounds=1, in_round=60, rate_killed=80, alive=(0.5, 1.5)
    )
    found = subscribers.run(tmp_path, plan)  # it raises an AssertionError for what is lost
    assert (found.kills, found.waited, found.dead) == (3, 400, 0)
    assert found.before_well["hanging"] == found.before_well["resetting"] == 0
    assert subscribers.p95(found.among[0]) < 2.0


class Site:
    """A daemon with fake models: a camera that is not there, `gone` that answers 410, `down`."""

    def __init__(self, folder: Path, gone: str, down: str) -> None:
        self.folder, self.port = folder, free_port()
        self.config, self.state = folder / "office.yaml", folder / "state"
        self.url = f"http://127.0.0.1:{self.port}"
        self.config.write_text(f"""
version: 1
state: {self.state}
sites:
  office:
    cameras: {{desk: {{source: "rtsp://127.0.0.1:1/none"}}}}
    rules: [{{rule: keyword, words: {{en: [ladder]}}, on: [report], label: climbing}}]
    incidents: {{close_after: 1}}
api: {{listen: "127.0.0.1:{self.port}"}}
webhooks:
  - {{url: "{gone}", secret: "{SECRET}", name: gone}}
  - {{url: "{down}", secret: "{SECRET}", name: down, timeout: 1}}
""")
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}

    @contextmanager
    def running(self) -> Iterator[None]:
        words = ["-m", "tests.live.faked_daemon", "well", str(self.config), str(self.state)]
        with (self.folder / "said").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, stderr=said, env=self.env, text=True
            )
        try:
            eventually(lambda: self.times("ready"), within=60)
            yield
            process.terminate()
            assert process.wait(30) == 0, (self.folder / "said").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()

    def lines(self) -> list[dict[str, Any]]:
        said = (self.folder / "said").read_text().split("\n")[:-1]
        return [json.loads(line) for line in said if line.startswith("{")]

    def times(self, words: str) -> int:
        """How many lines of the log hold these words."""
        return sum(words in line["message"] for line in self.lines())

    def errors(self) -> list[str]:
        return [line["message"] for line in self.lines() if line["level"] == "error"]

    def asked(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            head = {"Authorization": f"Bearer {read_token(self.state)}"}
            connection.request("GET", path, headers=head)
            answer = connection.getresponse()
            assert answer.status == 200
            return json.loads(answer.read())  # type: ignore[no-any-return]
        finally:
            connection.close()

    def report(self) -> None:
        """An alert, and a second after it the revision that closes its incident."""
        words = "somebody climbs the wall with a ladder"
        send_report(self.url, read_token(self.state), "office", words, "guard")

    def fusewatch(self, *words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "workers.cli", *words]
        ended = subprocess.run(
            command, check=False, cwd=ROOT, env=self.env, capture_output=True, text=True
        )
        return ended.returncode, ended.stdout + ended.stderr

    def doctor(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.fusewatch("doctor", str(self.config), "--json")[1])
        return {check["name"]: check for check in found}


@pytest.fixture
def replies() -> dict[str, int]:
    """What the receiver `gone` answers now."""
    return {"status": 410}


@pytest.fixture
def receiver(replies: dict[str, int]) -> Iterator[Receiver]:
    with Receiver(SECRET, answer=lambda received: Reply(replies["status"])) as receiver:
        yield receiver


@pytest.fixture
def site(tmp_path: Path, receiver: Receiver) -> Site:
    return Site(tmp_path, receiver.url, f"http://127.0.0.1:{free_port()}/alerts")


def test_what_fails_says_so_in_log_status_health_and_doctor(site: Site) -> None:
    with site.running():
        site.report()
        eventually(lambda: site.times("gone is disabled since ") == 1, within=30)
        eventually(lambda: site.times("down fails: ") == 1, within=30)
        health = {"status": "degraded", "failing_subscribers": 2, "lost_sources": 1}
        eventually(lambda: site.asked("/healthz") == health, within=30)
        told = site.asked("/v1/status")["subscribers"]
        assert {name: one["state"] for name, one in told.items()} == {
            **dict.fromkeys(("jsonl", "evidence", "view"), "taking"),
            "gone": "disabled",
            "down": "failing",
        }
        assert told["gone"]["reason"] == "410 Gone: the receiver wants no more alerts"
        assert "Connection refused" in told["down"]["reason"]
        assert told["down"]["attempts"] >= 3
        assert told["down"]["waiting"] >= 1
        assert told["down"]["next_try"] > told["down"]["since"] > "2026"
        (error,) = site.errors()
        assert "fusewatch webhooks enable CONFIG gone" in error
        checks = site.doctor()
        assert error.partition("(")[0] in checks["webhook gone"]["detail"]
        assert "Connection refused" in checks["webhook down"]["detail"]
        assert [checks[f"webhook {name}"]["ok"] for name in ("gone", "down")] == [False] * 2
        assert checks["subscriber jsonl"]["detail"] == "takes alerts"
    assert "gone is disabled since " in site.doctor()["webhook gone"]["detail"]
    with site.running():
        eventually(lambda: len(site.errors()) == 1, within=30)
        eventually(lambda: site.times("down fails: ") == 1, within=30)


def test_a_test_event_brings_a_disabled_one_back_while_the_daemon_runs(
    site: Site, receiver: Receiver, replies: dict[str, int]
) -> None:
    config = str(site.config)
    with site.running():
        site.report()
        eventually(lambda: site.times("gone is disabled since ") == 1, within=30)
        tried = len(receiver.posts)
        code, said = site.fusewatch("webhooks", "test", config, "--enable")
        assert (code, "none of those" in said) == (3, True), said
        assert "gone at http://127.0.0.1:" in said
        assert len(receiver.posts) == tried + 1
        replies["status"] = 204
        code, said = site.fusewatch("webhooks", "test", config, "gone", "--enable", "--json")
        (row,) = json.loads(said)
        assert (code, row["ok"], row["name"], row["status"]) == (0, True, "gone", 204)
        dead = row["enabled"]["dead_letters"]
        assert (row["enabled"]["was"], dead >= 1) == ("disabled", True)
        assert "the running daemon sends it" in row["enabled"]["takes_up"]
        eventually(lambda: site.times("gone is enabled again: ") == 1, within=10)
        taken = len(receiver.events)
        site.report()
        eventually(lambda: len(receiver.events) > taken, within=30)
        code, said = site.fusewatch(*row["enabled"]["retry"].split()[1:])
        assert code == 0, said
        assert said.count("gone took it") == dead
        assert site.asked("/v1/status")["subscribers"]["gone"]["state"] == "taking"


def test_one_that_is_enabled_while_no_daemon_runs_gets_the_alerts_of_the_next(
    site: Site, receiver: Receiver, replies: dict[str, int]
) -> None:
    with site.running():
        site.report()
        eventually(lambda: site.times("gone is disabled since ") == 1, within=30)
    code, said = site.fusewatch("webhooks", "enable", str(site.config), "gone")
    assert (code, "gone is enabled again; no daemon runs now" in said) == (0, True), said
    replies["status"] = 204
    with site.running():
        site.report()
        eventually(lambda: bool(receiver.events), within=30)
        assert site.errors() == []


def test_a_record_goes_back_to_its_topic_through_the_running_daemon(site: Site) -> None:
    with site.running():
        pass
    log = local_log(loader.load(site.config), site.state)
    entry = Entry(0, 7, "", codec.encode(make.frame(1)))
    letter = dead_letter(
        site="office", source="desk", topic=topics.FRAMES, entry=entry, reason="an older version"
    )
    log.publish(topics.DEAD, "office", codec.encode(letter))
    log.flush()
    log.close()
    with site.running():
        code, said = site.fusewatch("dead", "retry", str(site.config), "0:0")
        assert (code, "0:0: published to frames.v1 again, under office/desk" in said) == (0, True)
    stored = log_search.appended(site.state / "log", topics.FRAMES, 0, 2**62)
    assert make.frame(1) in [codec.decode(entry.value) for _, entry in stored]
