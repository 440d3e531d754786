"""The daemon in a terminal, whose screen is read: what it shows, also small, noisy and resized."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import make, reels
from tests.live.servers import eventually
from tests.live.terminal import Terminal, terminal
from workers.config import loader
from workers.runtime.mode_store import ModeStore

pytestmark = pytest.mark.slow

Scene = Callable[..., Path]
HOSTILE = r"""
reports:
  - at: 3
    author: "guard\e]0;TITLE\a\u202e"
    text: "help \e]52;c;UExBTlRFRA==\a \e[8mhidden\e[0m \x9b31m \u202eevil 狮子\nnext"
"""


@pytest.fixture
def command(config: Path, tmp_path: Path) -> Callable[..., list[str]]:
    config.write_text(
        config.read_text().replace("  office:", "  office:\n    timezone: Asia/Kolkata")
    )

    def made(scene: Path, speed: str = "4", who: str = "nobody") -> list[str]:
        words = ("run", config, "--scene", scene, "--state", tmp_path / "state", "--speed", speed)
        return [sys.executable, "-m", "tests.live.noisy_command", who, *map(str, words)]

    return made


def until(shown: Terminal, what: str) -> str:
    """The screen as soon as it shows `what`."""
    return eventually(lambda: what in (text := shown.text()) and text, within=60)  # type: ignore[return-value]


def test_sources_alerts_with_their_cause_and_the_time_of_the_site(
    command: Callable[..., list[str]], scene: Scene
) -> None:
    with terminal(command(scene(person=(3, 6), loud=(8, 9)))) as shown:
        until(shown, "gunshot")
        lines = shown.lines()
        assert shown.end() == 0
        last = shown.text().splitlines()
    (head,) = (line for line in lines if line.startswith("fusewatch"))
    assert re.match(r"fusewatch  03:30:\d\d IST \(a scene\)  2 sources, all well  up \d+ s$", head)
    (desk,) = (line for line in lines if line.startswith("office/desk "))
    assert re.match(r"office/desk  playing +[\d.]+/s +[\d.]+/s +[\d.]+ s +present$", desk)
    alert, *causes = lines[lines.index("LAST ALERTS") + 1 :]
    assert re.match(r"03:30:\d\d IST  critical  .*gunshot.*", alert), alert
    assert any(re.search(r"gunshot heard", cause) for cause in (alert, *causes)), causes
    assert "behind." not in "\n".join(lines), "no internals"
    assert re.match(
        r"stopped at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d IST, ran for \d+ s, 1 alert$", last[-2]
    )
    assert last[-1] == "captured and not looked at: nothing"
    assert sum(line.startswith("SOURCE") for line in last) == 1
    assert any(line.startswith("office/desk  ended") for line in last), "the last view stays"


def test_the_view_follows_the_size_of_the_terminal(
    command: Callable[..., list[str]], scene: Scene
) -> None:
    with terminal(command(scene(person=(3, 6)), "1.5")) as shown:
        until(shown, "LAST ALERTS")
        for columns, lines, titles in ((40, 10, "SOURCE       STATE"), (120, 40, "PRESENCE")):
            shown.resize(columns, lines)
            until(shown, titles)
            eventually(lambda: shown.text().count("SOURCE") == 1, within=5)
            text = shown.text()
            assert text.count("fusewatch ") == text.count("office/room  playing") == 1, text
        shown.process.terminate()
        assert shown.end() == 0
        assert "stopped at" in shown.text()


def test_what_others_print_stands_above_the_view_and_does_not_tear_it(
    command: Callable[..., list[str]], scene: Scene
) -> None:
    with terminal(command(scene(person=(3, 6)), who="all"), PLANTED="nothing") as shown:
        until(shown, "native line")
        until(shown, "intrusion")
        assert shown.end() == 0
        lines = shown.text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("fusewatch "))
    view = lines[start:]
    assert [line.split()[0] for line in view[1:4]] == ["SOURCE", "office/desk", "office/room"]
    assert view[5] == "LAST ALERTS"
    assert len(view) == 9, view
    assert not [line for line in view if "native" in line or "printed" in line]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_what_others_wrote_is_not_executed(
    command: Callable[..., list[str]], scene: Scene, term: str
) -> None:
    with terminal(command(scene(more=HOSTILE)), TERM=term) as shown:
        until(shown, "distress")
        assert shown.end() == 0
        raw = shown.raw.decode()
    assert not re.search("\x1b\\]|\x1b\\[8m|[\x80-\x9f\u202a-\u202e]", raw)
    if term == "dumb":
        assert "\x1b" not in raw
        assert "stopped at" in raw


def test_no_color_has_none(command: Callable[..., list[str]], scene: Scene) -> None:
    with terminal(command(scene(person=(3, 6))), NO_COLOR="1") as shown:
        until(shown, "intrusion")
        assert shown.end() == 0
        assert not re.search(rb"\x1b\[[\d;]*\b(3[0-8]|9[0-7])[;m]", shown.raw)


def test_a_lost_source_says_since_when_and_why_and_a_dead_webhook_what_waits(
    config: Path, tmp_path: Path
) -> None:
    config.write_text(
        LOST.format(film=reels.film(tmp_path / "hall.mkv", [(k / 5, 1) for k in range(300)]))
    )
    words = ("run", config, "--state", tmp_path / "state")
    command = [sys.executable, "-m", "tests.live.noisy_command", "nobody", *map(str, words)]
    with terminal(command) as shown:
        until(shown, "soc fails, ")
        lines = shown.lines()
        shown.process.terminate()
        assert shown.end() == 0
        last = shown.text()
    (head,) = (line for line in lines if line.startswith("fusewatch"))
    assert re.match(r"fusewatch  \d\d:\d\d:\d\d UTC-03  2 sources, 1 in trouble  up \d+ s$", head)
    (lost,) = (line for line in lines if line.startswith("office/desk"))
    why = "the host cannot be reached: Connection"
    assert re.match(rf"office/desk  lost since \d\d:\d\d:\d\d: {why}", lost), lost
    (live,) = (line for line in lines if line.startswith("office/hall"))
    assert re.match(r"office/hall  (live|ended) +[\d.]+/s +[\d.]+/s", live)
    assert re.search(r"\d+ alerts? for soc will be sent at the next start$", last)


def test_a_site_that_is_not_in_its_default_mode_says_so_in_the_head(
    config: Path, tmp_path: Path
) -> None:
    config.write_text(
        LOST.format(film=reels.film(tmp_path / "hall.mkv", [(k / 5, 1) for k in range(300)]))
    )
    state = tmp_path / "state"
    state.mkdir()
    ModeStore(loader.load(config).sites, state).put(make.mode("home", 1.0), lambda: None)
    words = ("run", config, "--state", state)
    command = [sys.executable, "-m", "tests.live.noisy_command", "nobody", *map(str, words)]
    with terminal(command) as shown:
        until(shown, "  home  up ")
        shown.process.terminate()
        assert shown.end() == 0


LOST = """
version: 1
api: {{listen: "127.0.0.1:0"}}
sites:
  office:
    timezone: America/Sao_Paulo
    cameras:
      desk: {{source: "rtsp://127.0.0.1:1/live"}}
      hall: {{source: "{film}"}}
    incidents: {{lost_after: 2}}
    fusion: {{head: rules}}
webhooks:
  - {{url: "http://127.0.0.1:1/", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, name: soc}}
"""
