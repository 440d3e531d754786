"""Modes by hand: over real HTTP and by the commands, kept over a restart, said again and again."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import topics
from pipeline.config import rule_kinds
from pipeline.config.schema import Microphone, Site
from pipeline.config.site_modes import Modes
from pipeline.errors import ConfigError, DiskFull, OutsideError
from pipeline.judge.modes import ModePlan, SiteModes
from pipeline.types import SECOND, Mode, Progress, Record, Roster, ns
from tests.make import SITE
from workers import cli
from workers.capture.report_api import ReportApi
from workers.capture.report_client import read_mode, send_mode
from workers.capture.report_server import Endpoint
from workers.capture.reports import ReportSource
from workers.runtime.mode_store import MODE_FILE, ModeStore, SiteMode, Snooze
from workers.runtime.state_folder import make_private

TOKEN = "a-token-of-sufficient-length"
SITES = {
    SITE: Site(
        microphones={"room": Microphone(source="y")},
        modes=Modes(default="disarmed", names=("night",)),
        rules=(rule_kinds.SoundRule(labels={"gunshot": 0.5}, modes=("armed",)),),
    ),
    "lobby": Site(),
}


class Desk:
    """A source of reports over a state folder, as a process has it; `new` is another process."""

    def __init__(self, folder: Path, sites: dict[str, Site] = SITES, now: int = ns(1000)) -> None:
        self.folder, self.sites, self.now = folder, sites, now
        self.records: list[Record] = []
        self.full = False
        self.shown: dict[str, SiteMode] = {}
        self.new()

    def new(self) -> None:
        store = ModeStore(self.sites, self.folder)
        self.source = ReportSource(
            self.sites, self._publish, lambda: self.now, modes=store, tell=self._tell
        )

    def _publish(self, topic: str, records: list[Record]) -> None:
        assert topic == topics.REPORTS
        if self.full:
            msg = "no space"
            raise DiskFull(msg)
        self.records += records

    def _tell(self, site: str, mode: SiteMode) -> None:
        self.shown[site] = mode

    def runs(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.source.beat()
            self.now += SECOND // 4

    def modes(self, site: str = SITE) -> list[tuple[str, str, float]]:
        """Rule, mode and the second at which it was said."""
        return [
            (r.rule, r.mode, (r.said - ns(1000)) / SECOND)
            for r in self.records
            if isinstance(r, Mode) and r.site == site
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# The source


def test_a_mode_is_said_again_with_each_roster_while_it_holds(desk: Desk) -> None:
    desk.runs(2)
    desk.records.clear()
    desk.source.set_mode(SITE, "armed", lasts=25 * SECOND, by="ann")
    desk.runs(38)
    assert [(mode, round(at)) for _, mode, at in desk.modes()] == [
        ("armed", 2),
        ("armed", 10),
        ("armed", 20),
    ]
    rosters = [r.start for r in desk.records if isinstance(r, Roster) and r.site == SITE]
    assert len(rosters) == 3
    said = [r for r in desk.records if isinstance(r, Mode)]
    assert {(r.start, r.until, r.by) for r in said} == {(ns(1002), ns(1027), "ann")}


def test_it_is_said_again_after_a_restart_before_anything_is_promised(desk: Desk) -> None:
    desk.runs(2)
    desk.source.set_mode(SITE, "armed", by="ann")
    desk.source.set_mode(SITE, "snoozed", lasts=3600 * SECOND, rule="sound")
    desk.records.clear()
    desk.now += 600 * SECOND
    desk.new()
    desk.runs(1)
    kinds = [type(r).__name__ for r in desk.records if r.site == SITE]
    assert kinds == ["Roster", "Mode", "Mode", "Progress"]
    assert [r[:2] for r in desk.modes()] == [("", "armed"), ("sound", "snoozed")]
    assert desk.shown[SITE].mode == "armed"
    assert desk.shown[SITE].since == ns(1002)


def test_what_has_ended_meanwhile_is_not_said_again(desk: Desk) -> None:
    desk.source.set_mode(SITE, "armed", lasts=60 * SECOND)
    desk.records.clear()
    desk.now += 600 * SECOND
    desk.new()
    desk.runs(1)
    assert [r[:2] for r in desk.modes()] == [("", "auto"), ("*", "auto")]
    desk.runs(30)
    assert len(desk.modes()) == 2


def test_a_lost_file_is_told_so_that_nobody_goes_on_with_what_was_in_it(desk: Desk) -> None:
    desk.source.set_mode(SITE, "armed")
    (desk.folder / MODE_FILE).unlink()
    known = SiteModes(ModePlan.of(SITES[SITE]))
    desk.now += 5 * SECOND
    desk.new()
    desk.runs(1)
    for record in desk.records:
        if isinstance(record, Mode) and record.site == SITE:
            known.push(record)
    assert (known.at(ns(1004)), known.at(ns(1006))) == ("armed", "disarmed")


def test_no_mode_starts_before_what_was_promised_and_none_at_the_time_of_another(
    desk: Desk,
) -> None:
    for step in (0, -30, 5, 0, 0, -1, 10, 11):
        desk.now += step * SECOND
        desk.source.beat()
        desk.source.set_mode(SITE, "armed")
        desk.source.submit(SITE, "ann", "all is well")
        desk.source.set_mode(SITE, "auto")
    upto, last = 0, {"": -1, "*": -1}
    for record in desk.records:
        if record.site == SITE and isinstance(record, Progress):
            upto = record.upto
        elif record.site == SITE and isinstance(record, Mode):
            assert record.said >= upto
            assert record.said > last[record.rule]
            last[record.rule] = record.said


@pytest.mark.parametrize("call", [("armd", ""), ("armed", "sound"), ("snoozed", "nobody")])
def test_what_a_site_does_not_have_is_refused(desk: Desk, call: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"the site has no|a rule takes"):
        desk.source.set_mode(SITE, call[0], rule=call[1])
    assert desk.records == []
    assert not (desk.folder / MODE_FILE).exists()


def test_a_mode_that_cannot_be_published_is_not_taken(desk: Desk) -> None:
    desk.source.set_mode(SITE, "armed")
    desk.full = True
    with pytest.raises(DiskFull):
        desk.source.set_mode(SITE, "night")
    assert desk.source.mode(SITE)[0].mode == "armed"
    desk.full = False
    desk.new()
    assert desk.source.mode(SITE)[0].mode == "armed"


def test_a_mode_that_cannot_be_kept_is_not_published(desk: Desk) -> None:
    (desk.folder / "modes.json.part").mkdir()
    with pytest.raises(DiskFull, match=r"modes\.json\.part: cannot be written"):
        desk.source.set_mode(SITE, "armed")
    assert desk.records == []
    assert not desk.source.mode(SITE)[0].by_hand


def test_what_a_full_disk_refused_is_said_later(desk: Desk) -> None:
    desk.full = True
    desk.runs(3)
    desk.full = False
    desk.runs(1)
    assert [r[:2] for r in desk.modes()] == [("", "auto"), ("*", "auto")]


def test_the_file_is_private_and_whole(desk: Desk) -> None:
    desk.source.set_mode(SITE, "armed", by="ann")
    path = desk.folder / MODE_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (kept,) = json.loads(path.read_text())
    assert (kept["mode"], kept["by"]) == ("armed", "ann")
    assert [each.name for each in desk.folder.iterdir()] == [MODE_FILE]
    desk.folder.chmod(0o755)
    make_private(desk.folder)  # knows the file as its own
    assert stat.S_IMODE(desk.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("data", [b"{", b"[{}]", b"\xff", b'[{"type": "Roster"}]'])
def test_a_file_that_holds_something_else_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MODE_FILE).write_bytes(data)
    with pytest.raises(OutsideError, match=r"modes\.json: holds no modes .*; delete it"):
        Desk(tmp_path)


def test_what_left_the_config_is_dropped_and_said_and_other_sites_stay(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.source.set_mode(SITE, "night")
    desk.source.set_mode(SITE, "snoozed", lasts=SECOND * 900, rule="sound")
    desk.source.set_mode("lobby", "home")
    later = Desk(desk.folder, {SITE: Site()})  # as `worker capture --sites office` has it
    assert later.source.mode(SITE)[0] == SiteMode(mode="armed", by_hand=False)
    assert [r.getMessage().split(":")[1].strip() for r in caplog.records] == [
        "the mode night holds no more",
        "the snooze of sound holds no more",
    ]
    later.source.set_mode(SITE, "home")
    assert Desk(desk.folder).source.mode("lobby")[0].mode == "home"


def test_the_next_mode_ends_the_one_before_and_auto_ends_both(desk: Desk) -> None:
    desk.source.set_mode(SITE, "armed")
    desk.source.set_mode(SITE, "snoozed", rule="sound", lasts=SECOND)
    desk.source.set_mode(SITE, "snoozed", rule="*", lasts=SECOND)
    assert [each.rule for each in desk.source.set_mode(SITE, "night").snoozed] == ["*", "sound"]
    assert desk.source.set_mode(SITE, "auto", rule="*").snoozed == ()
    assert desk.source.mode(SITE)[0].mode == "night"
    assert desk.source.set_mode(SITE, "auto").mode == "disarmed"


def test_the_view_says_it_in_few_words() -> None:
    def words(*rules: str) -> str:
        snoozed = (Snooze(rule=rule, since=0, until=None, by="") for rule in rules)
        return SiteMode(mode="armed", by_hand=True, snoozed=tuple(snoozed)).words

    assert words() == "armed"
    assert words("learned", "sound") == "armed, snoozed: learned, sound"
    assert words("*", "sound") == "armed, all rules snoozed"


# HTTP


class Served:
    """The local endpoint over a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.stop = desk, threading.Event()
        self.endpoint = Endpoint("127.0.0.1:0", ReportApi(desk.source, TOKEN), desk.source)
        self.url = self.endpoint.url

    def get(self, site: str = SITE, token: str = TOKEN) -> dict[str, Any]:
        return dict(read_mode(self.url, token, site))

    def post(self, what: str = "mode", site: str = SITE, **given: Any) -> dict[str, Any]:
        body = {name.rstrip("_"): value for name, value in given.items()}
        return dict(send_mode(self.url, TOKEN, site, what, body))


@pytest.fixture
def served(desk: Desk) -> Iterator[Served]:
    made = Served(desk)
    thread = threading.Thread(target=made.endpoint.serve, args=(made.stop,))
    thread.start()
    yield made
    made.stop.set()
    thread.join()


def test_what_is_in_force_is_shown(served: Served) -> None:
    by_schedule = {"since": None, "until": None, "by": "", "snoozed": []}
    assert served.get() == {"site": SITE, "mode": "disarmed", "by_hand": False} | by_schedule
    answer = served.post(mode="armed", for_="2h", by="ann\n")
    since = ns(1000)
    assert answer == {
        "site": SITE,
        "mode": "armed",
        "by_hand": True,
        "since": since,
        "until": since + 7200 * SECOND,
        "by": "ann",
        "snoozed": [],
    }
    assert served.get() == answer
    snoozed = served.post("snooze", rule="sound", for_="30m", by="ben")["snoozed"]
    since += 1
    until = since + 1800 * SECOND
    assert snoozed == [{"rule": "sound", "since": since, "until": until, "by": "ben"}]
    assert served.post("snooze", end=True)["snoozed"] == []
    assert served.post(mode="auto")["by_hand"] is False


def test_a_mode_by_schedule_is_shown_with_its_hours(tmp_path: Path) -> None:
    sites = {SITE: Site(modes=Modes(schedule={"home": "00:10-00:20"}))}
    api = ReportApi(Desk(tmp_path, sites).source, TOKEN)
    body = api.answer("GET", f"/v1/sites/{SITE}/mode", {}, b"").body
    assert (body["mode"], body["since"], body["until"]) == ("home", ns(600), ns(1200))


@pytest.mark.parametrize(
    ("what", "given", "said"),
    [
        ("mode", {"mode": "armd"}, "no such mode; did you mean `armed`?; there is armed, disarmed"),
        ("mode", {"mode": "snoozed"}, "no such mode"),
        ("mode", {"mode": "armed", "for_": "soon"}, "'soon' is no time that a mode lasts"),
        ("mode", {"mode": "armed", "for_": "0m"}, "'0m' is no time that a mode lasts"),
        ("mode", {"mode": "armed", "for_": "400d"}, "at most 366d"),
        ("mode", {"mode": "armed", "for_": "\u0664m"}, "is no time that a mode lasts"),
        ("mode", {"mode": "auto", "for_": "2h"}, "leave out `for`"),
        ("mode", {"mode": "armed", "by": "x" * 101}, "100 characters at most"),
        ("mode", {"mode": "armed", "untl": 1}, "not a mode: Object contains unknown field"),
        ("mode", {}, "not a mode: Object missing required field `mode`"),
        ("snooze", {"rule": "soud", "for_": "1m"}, "no such rule; did you mean `sound`?"),
        ("snooze", {"rule": "sound"}, 'either "for", like "30m", or "end": true'),
        ("snooze", {"for_": "1m", "end": True}, 'either "for", like "30m", or "end": true'),
    ],
)
def test_what_is_wrong_is_said(served: Served, what: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        served.post(what, **given)
    assert f"the {what} was not taken: " in str(raised.value)
    assert said in str(raised.value)
    assert served.desk.records == []


def test_an_unknown_site_is_said_with_the_nearest(served: Served) -> None:
    for ask in (lambda: served.get("offce"), lambda: served.post(site="offce", mode="armed")):
        with pytest.raises(ConfigError, match=r"no such site; did you mean `office`\?"):
            ask()
    with pytest.raises(ConfigError, match="no such site; there is office, lobby"):
        served.get("../%2e/ü?x=1")


def test_without_the_token_nothing_is_told_and_nothing_set(served: Served) -> None:
    with pytest.raises(ConfigError, match="does not know this token"):
        served.get(token="another-token-of-16")


def test_a_disk_that_is_full_is_said_and_may_be_tried_again(served: Served) -> None:
    served.desk.full = True
    with pytest.raises(OutsideError, match="cannot keep it now; try again"):
        served.post(mode="armed")
    served.desk.full = False
    assert served.post(mode="armed")["mode"] == "armed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/sites/office/mode", 405),
        ("GET", "/v1/sites/office/snooze", 405),
        ("GET", "/v1/sites/office", 404),
        ("GET", "/v1/sites/a/b/mode", 404),
    ],
)
def test_other_ways_are_refused(desk: Desk, method: str, path: str, status: int) -> None:
    api = ReportApi(desk.source, TOKEN)
    headers = {"host": "localhost", "authorization": f"Bearer {TOKEN}"}
    refused = api.refused(method, path, headers)
    assert refused is not None
    assert refused.status == status


# The commands


@pytest.fixture
def state(served: Served) -> list[str]:
    (served.desk.folder / "token").write_text(TOKEN + "\n")
    return ["--url", served.url, "--state", str(served.desk.folder)]


def test_the_commands_arm_show_and_snooze(
    state: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["mode", SITE, "armed", "--for", "2h", "--by", "ann", *state]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("office: armed, by hand, since 1970-01-01 ")
    assert shown.endswith(", by ann\n")
    assert cli.main(["snooze", SITE, "sound", "--for", "30m", "--by", "ben", *state]) == 0
    assert cli.main(["snooze", SITE, "--for", "10m", "--by", "ben", *state]) == 0
    capsys.readouterr()
    assert cli.main(["mode", SITE, *state]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == shown.strip()
    assert [line.split(",")[0] for line in rest] == [
        "  all rules snoozed",
        "  rule sound snoozed",
    ]
    assert cli.main(["snooze", SITE, "--end", "--by", "ben", *state]) == 0
    assert cli.main(["mode", SITE, "auto", "--by", "ann", "--json", *state]) == 0
    *_, told = capsys.readouterr().out.splitlines()
    assert json.loads(told)["mode"] == "disarmed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mode", SITE, "armed"], "--by NAME is missing"),
        (["mode", SITE, "--for", "2h"], "are for a mode"),
        (["mode", SITE, "armd", "--by", "ann"], "did you mean `armed`?"),
        (["mode", "ofice", "armed", "--by", "ann"], "did you mean `office`?"),
        (["mode", SITE, "armed", "--for", "2 hours", "--by", "ann"], "'2 hours' is no time"),
        (["snooze", SITE, "--by", "ann"], "either --for SPAN, or --end"),
        (["snooze", SITE, "--for", "1m"], "missing option '--by'"),
        (["snooze", SITE, "zone", "--for", "1m", "--by", "ann"], "there is sound, fusion, learned"),
    ],
)
def test_wrong_use_is_said_in_one_line(
    state: list[str], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main([*words, *state]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
