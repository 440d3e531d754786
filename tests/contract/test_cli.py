"""The commands as a stranger may misuse them: a code, a clear line, and never a traceback.

Codes: 0 done, 1 found something, 2 wrong use or config, 3 the outside world failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.weights import DEFAULTS
from pipeline.bus.log import LocalLog
from pipeline.config.schema import Site
from tests import reels
from workers.capture.clock import UtcClock
from workers.capture.report_api import ReportApi
from workers.capture.report_server import Endpoint
from workers.capture.reports import ReportSource
from workers.cli import main
from workers.delivery.receiver import Receiver, Reply

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="
TOKEN = "t0ken-of-the-daemon-0123456789"
CONFIG = """\
version: 1
sites:
  office:
    cameras: {desk: {source: "rtsp://ops:s3cretpw@127.0.0.1:1/x"}}
    microphones: {room: {source: "device:default"}}
"""


class Said(msgspec.Struct):
    """What a command gave back."""

    code: int
    out: str
    err: str


Fusewatch = Callable[..., Said]


@pytest.fixture
def fusewatch(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Fusewatch:
    """Runs a command in this process, in a home and a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*words: object) -> Said:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "s3cret" not in said.out + said.err
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "office.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return written(tmp_path, "office", "microphones: {room: [{file: room.wav}]}")


def written(folder: Path, site: str, sources: str, name: str = "scene") -> Path:
    reels.sound(folder / "room.wav", np.zeros(1600))
    path = folder / f"{name}.yaml"
    path.write_text(f"site: {site}\nstart: 2026-01-01T00:00:00Z\nduration: 1\n{sources}\n")
    return path


# Words that no command knows


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nosuch",
        "check",
        "check a b",
        "check --nosuch a",
        "run",
        "replay office.yaml",
        "replay office.yaml scene.yaml",
        "replay --out x office.yaml",
        "report office",
        "report office text",
        "webhooks",
        "webhooks nosuch",
        "weights",
        "weights nosuch",
        "version extra",
        "run office.yaml --scene",
    ],
)
def test_words_that_are_wrong_or_missing_are_wrong_use(fusewatch: Fusewatch, line: str) -> None:
    said = fusewatch(*line.split())
    assert said.code == 2
    assert "usage: fusewatch" in said.err


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "1e400", "fast", "", "1e-300"])
@pytest.mark.parametrize("command", ["run office.yaml", "replay office.yaml s --out o"])
def test_a_speed_is_a_factor_that_ends(fusewatch: Fusewatch, command: str, speed: str) -> None:
    said = fusewatch(*command.split(), f"--speed={speed}")
    assert said.code == 2
    assert "max, or a factor from 0.01 on" in said.err


def test_what_lives_has_no_speed(fusewatch: Fusewatch, config: Path) -> None:
    said = fusewatch("run", config, "--speed", "1")
    assert (said.code, "add --scene" in said.err) == (2, True)


def test_help_and_version_are_no_errors(fusewatch: Fusewatch) -> None:
    assert fusewatch("--help").code == 0
    assert fusewatch("replay", "--help").code == 0
    assert "fusewatch" in json.loads(fusewatch("version", "--json").out)


# Files that are none


READERS = ["check {}", "run {}", "replay {} s --out o", "doctor {}", "webhooks test {}"]


@pytest.mark.parametrize("command", [*READERS, "demo --scene s --config {}"])
@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("none.yaml", "No such file"),
        (".", "Is a directory"),
        ("office.yaml/x", "Not a directory"),
        ("x" * 300, "name too long"),
        ("/proc/self/mem", "Input/output error"),  # what may be opened and not read, by root too
    ],
)
def test_a_config_that_cannot_be_read_is_wrong_use(
    fusewatch: Fusewatch, config: Path, command: str, file: str, why: str
) -> None:
    said = fusewatch(*command.format(file).split())
    assert said.code == 2
    assert "cannot be read" in said.err
    assert why in said.err


@pytest.mark.parametrize("command", READERS[1:])
def test_a_config_with_a_fault_is_wrong_and_check_has_found_it(
    fusewatch: Fusewatch, config: Path, command: str
) -> None:
    config.write_text(CONFIG.replace("microphones", "microphone"))
    said = fusewatch(*command.format(config).split())
    assert said.code == 2
    assert "did you mean `microphones`" in said.err
    assert fusewatch("check", config).code == 1
    found = json.loads(fusewatch("check", config, "--json").out)
    assert not found["ok"]
    assert found["problems"] == [
        {
            "level": "problem",
            "file": str(config),
            "line": 5,
            "path": "sites.office.microphone",
            "message": "is not a setting; did you mean `microphones`?",
        }
    ]


def test_a_config_without_fault_is_fine(fusewatch: Fusewatch, config: Path) -> None:
    assert fusewatch("check", config).code == 0
    found = json.loads(fusewatch("check", config, "--json").out)
    assert (found["ok"], found["problems"]) == (True, [])


COMMANDS = ["run {c} --scene {s} --state st", "replay {c} {s} --out out/"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("site", "sources", "why"),
    [
        ("bank", "", "'bank' is not in the config"),
        ("office", "cameras: {door: {file: room.wav}}", "holds no picture"),
        ("office", "microphones: {hall: [{file: room.wav}]}", "no microphone `hall`"),
        ("office", "microphones: {room: [{file: none.wav}]}", "there is no such file"),
        ("office", f"cameras: {{desk: {{file: {'x' * 260}}}}}", "there is no such file"),
        ("office", "camera: {}", "did you mean `cameras`"),
    ],
)
def test_a_scene_that_does_not_fit_is_told_before_anything_is_loaded(
    fusewatch: Fusewatch, config: Path, tmp_path: Path, command: str, site: str, sources: str,
    why: str,
) -> None:  # fmt: skip
    path = written(tmp_path, site, sources)
    said = fusewatch(*command.format(c=config, s=path).split())
    assert said.code == 2
    assert str(path) in said.err
    assert why in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_scene_that_is_no_file_is_told(fusewatch: Fusewatch, config: Path, command: str) -> None:
    for path in ("none.yaml", "."):
        assert fusewatch(*command.format(c=config, s=path).split()).code == 2


def test_of_several_scenes_a_wrong_last_one_is_told_first(
    fusewatch: Fusewatch, config: Path, scene: Path
) -> None:
    said = fusewatch("replay", config, scene, "none.yaml", "--out", "out/")
    assert (said.code, said.out) == (2, "")


# Where alerts go


def test_a_file_does_not_hold_the_alerts_of_several_scenes(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path
) -> None:
    other = written(tmp_path, "office", "", "other")
    (tmp_path / "out").write_text("mine")
    said = fusewatch("replay", config, scene, other, "--out", "out")
    assert (said.code, "--out DIR/" in said.err) == (2, True)
    assert (tmp_path / "out").read_text() == "mine"
    said = fusewatch("replay", config, scene, scene, "--out", "d/")
    assert (said.code, "two inputs are named" in said.err) == (2, True)


def test_a_replay_says_what_it_could_not_use(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path, weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(weights))
    reels.sound(tmp_path / "room.wav", np.array([0, np.nan, np.inf] * 1000))
    said = fusewatch("replay", config, scene, "--out", "out/")
    assert said.code == 0
    assert "; room repaired.not-finite: 2000 -> out/scene.jsonl" in said.out
    told = json.loads(fusewatch("replay", config, scene, "--out", "a.jsonl", "--json").out)
    assert told[0]["unused"] == {"room repaired.not-finite": 2000}


def test_what_is_no_regular_file_is_not_replaced(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere")
    for out in ("pipe", "link", "/dev/null", "/dev/stdout"):
        said = fusewatch("replay", config, scene, "--out", out)
        assert (said.code, "is no regular file" in said.err) == (2, True)
    assert Path("/dev/null").is_char_device()


def test_a_replay_replaces_files_of_alerts_alone(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path
) -> None:
    before = config.read_bytes(), scene.read_bytes()
    for out in (config, scene):
        said = fusewatch("replay", config, scene, "--out", out)
        assert (said.code, "and is no file of alerts" in said.err) == (2, True)
    assert (config.read_bytes(), scene.read_bytes()) == before
    state = tmp_path / "state"
    said = fusewatch(
        "replay", config, "--since", "5m", "--state", state, "--out", state / "alerts.jsonl"
    )
    assert (said.code, "is where a daemon writes its alerts" in said.err) == (2, True)


def test_an_alert_file_is_no_input(fusewatch: Fusewatch, config: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    said = fusewatch("replay", config, "a.jsonl", "--out", "b.jsonl")
    assert (said.code, "a.jsonl: is a file of alerts" in said.err) == (2, True)


def test_an_empty_scene_file_is_told_as_one(
    fusewatch: Fusewatch, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.yaml").write_text("")
    said = fusewatch("replay", config, "none.yaml", "--out", "b.jsonl")
    assert (said.code, "none.yaml:1: is empty; docs/guides/scenes.md" in said.err) == (2, True)


@pytest.mark.parametrize(
    "out", ["office.yaml/x.jsonl", "/proc/self/x.jsonl", "/proc/x/y/", "x" * 300]
)
def test_a_place_that_cannot_be_written_is_told_before_the_replay(
    fusewatch: Fusewatch, config: Path, scene: Path, out: str
) -> None:
    said = fusewatch("replay", config, scene, "--out", out)
    assert (said.code, "cannot be written" in said.err) == (3, True)


def test_a_state_folder_in_use_is_left_alone(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path
) -> None:
    other = LocalLog(tmp_path / "st/log", clock=lambda: 0)
    said = fusewatch("run", config, "--scene", scene, "--state", "st")
    other.close()
    assert (said.code, f"pid {os.getpid()}" in said.err) == (3, True)


@pytest.mark.parametrize(
    "state", ["x" * 300, "office.yaml", "office.yaml/st", "/proc/self", "/proc/st"]
)
def test_a_state_folder_that_cannot_be_is_told(
    fusewatch: Fusewatch, config: Path, scene: Path, state: str
) -> None:
    said = fusewatch("run", config, "--scene", scene, "--state", state)
    assert said.code == 3
    assert state in said.err


def test_a_log_that_is_none_is_told_and_kept(
    fusewatch: Fusewatch, config: Path, scene: Path, tmp_path: Path
) -> None:
    log = tmp_path / "st/log/frames.v1.db"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"no log" * 1000)
    said = fusewatch("run", config, "--scene", scene, "--state", "st")
    assert (said.code, "Nothing was deleted" in said.err) == (3, True)
    assert log.read_bytes() == b"no log" * 1000


FULL = """
import resource, sys
from pathlib import Path
from tests.graph.conftest import FAKES
from workers import cli, daemon
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
real = daemon.run
daemon.run = lambda *given, **more: real(*given, **more, encoders=FAKES)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        (0, "init new.yaml --state new"),
        (0, "run office.yaml --scene scene.yaml --state st"),
        (60_000, "run office.yaml --scene scene.yaml --state st"),
    ],
)
def test_a_disk_that_is_full_ends_a_command_in_one_line(
    config: Path, tmp_path: Path, limit: int, line: str
) -> None:
    reels.film(tmp_path / "a.mkv", [(k / 5, k % 16) for k in range(100)], size=(640, 480))
    path = written(tmp_path, "office", "cameras: {desk: {file: a.mkv, fps: 5}}")
    path.write_text(path.read_text().replace("duration: 1", "duration: 20"))
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), *line.split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]
    if line.startswith("run"):
        assert json.loads(told)["level"] == "critical"
    else:
        assert told.startswith("fusewatch: ")


@pytest.mark.parametrize("command", ["doctor {}", "run {} --state st"])
def test_names_that_no_disk_takes_are_told(
    fusewatch: Fusewatch, config: Path, command: str
) -> None:
    long = "x" * 300
    config.write_text(
        f"{CONFIG}state: {long}\nmodels: {{detector: {{kind: onnx, weights: {long}}}}}\n"
    )
    said = fusewatch(*command.format(config).split())
    assert (said.code, "File name too long" in said.err) == (3, True)


def test_init_overwrites_nothing(fusewatch: Fusewatch, config: Path) -> None:
    assert fusewatch("init", config, "--state", "st").code == 2
    assert fusewatch("init", ".", "--state", "st").code == 2
    assert config.read_text() == CONFIG
    assert fusewatch("init", "new.yaml", "--state", config).code == 3
    assert fusewatch("init", "/proc/new.yaml", "--state", "st").code == 3
    assert fusewatch("init", "good.yaml", "--state", "good").code == 0
    assert fusewatch("check", "good.yaml").code == 0


# Reports


@contextmanager
def running() -> Iterator[str]:
    """The endpoint of a daemon; gives its address."""
    desk = ReportSource({"office": Site()}, lambda *_: None, UtcClock())
    stop = threading.Event()
    endpoint = Endpoint("127.0.0.1:0", ReportApi(desk, TOKEN), desk)
    server = threading.Thread(target=endpoint.serve, args=(stop,))
    server.start()
    try:
        yield endpoint.url
    finally:
        stop.set()
        server.join()


def report(url: str, *, site: str = "office", text: str = "a ladder") -> list[str]:
    return ["report", site, text, "--author", "me", "--url", url, "--state", "st"]


def token(folder: Path, text: str = TOKEN) -> None:
    (folder / "st").mkdir(exist_ok=True)
    (folder / "st/token").write_text(f"{text}\n")


def test_a_report_is_taken_or_told_why_not(fusewatch: Fusewatch, tmp_path: Path) -> None:
    with running() as url:
        assert "no token" in fusewatch(*report(url)).err
        token(tmp_path)
        assert fusewatch(*report(url)).code == 0
        said = fusewatch(*report(url, site="bank"))
        assert (said.code, "there is office" in said.err) == (2, True)
        assert fusewatch(*report(url, text=" ")).code == 2
        assert fusewatch(*report(url, text="x" * 20_000)).code == 2
        said = fusewatch(*report(url, text="\udcff"))  # a byte that is no UTF-8, as argv has it
        assert (said.code, "UTF-8" in said.err) == (2, True)
        token(tmp_path, "s3cret-but-of-another-daemon")
        said = fusewatch(*report(url))
        assert (said.code, "does not know this token" in said.err) == (2, True)
    said = fusewatch(*report(url))
    assert (said.code, "start it: fusewatch run" in said.err) == (3, True)


@pytest.mark.parametrize("given", ["file:{}/key", "${{FUSEWATCH_KEY}}", "state"])
def test_a_report_finds_address_and_token_in_the_daemon_s_config(
    fusewatch: Fusewatch,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    token(tmp_path, TOKEN if given == "state" else "the-token-of-another-daemon")
    (tmp_path / "key").write_text(TOKEN + "\n")
    monkeypatch.setenv("FUSEWATCH_KEY", TOKEN)
    named = "" if given == "state" else f', token: "{given.format(tmp_path)}"'
    with running() as url:
        listen = url.removeprefix("http://")
        config.write_text(f'{CONFIG}state: st\napi: {{listen: "{listen}"{named}}}\n')
        words = ("report", "office", "a ladder", "--author", "me")
        assert fusewatch(*words, "--config", config).code == 0
        said = fusewatch(*words, "--config", config, "--state", "nosuch")
        assert (said.code, "--config or --state names it" in said.err) == (2, True)


def test_who_has_no_right_token_is_told_where_it_is(fusewatch: Fusewatch, tmp_path: Path) -> None:
    token(tmp_path, "the-token-of-another-daemon")
    with running() as url:
        assert "name its config: --config FILE" in fusewatch(*report(url)).err


@pytest.mark.parametrize("text", ["", "s3cret\ns3cret", "s3cret\u00e9s3cret", "s3cret s3cret"])
def test_a_token_that_is_none_is_told_and_not_shown(
    fusewatch: Fusewatch, tmp_path: Path, text: str
) -> None:
    token(tmp_path, text)
    said = fusewatch(*report("http://127.0.0.1:1"))
    assert (said.code, "no token" in said.err) == (2, True)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1:1",
        "127.0.0.1",
        "http://",
        "http://127.0.0.1:99999",
        "http://no such host/",
        "http://h\n/",
        "http://ops:s3cretpw@127.0.0.1:1",
        "",
    ],
)
def test_an_address_that_is_no_daemons_is_wrong_use(
    fusewatch: Fusewatch, tmp_path: Path, url: str
) -> None:
    token(tmp_path)
    said = fusewatch(*report(url))
    assert (said.code, "is like http://127.0.0.1:8674" in said.err) == (2, True)


def test_an_address_is_shown_without_its_query(fusewatch: Fusewatch, tmp_path: Path) -> None:
    token(tmp_path)
    said = fusewatch(*report("http://127.0.0.1:1/?token=s3cretpw"))
    assert (said.code, "http://127.0.0.1:1 " in said.err) == (3, True)


# Webhooks, weights


def hooked(config: Path, *hooks: str) -> Path:
    config.write_text(CONFIG + "webhooks:\n" + "".join(f"  - {{{hook}}}\n" for hook in hooks))
    return config


def test_without_webhooks_there_is_nothing_to_test(fusewatch: Fusewatch, config: Path) -> None:
    said = fusewatch("webhooks", "test", config)
    assert (said.code, "there are none to test" in said.err) == (2, True)


def test_a_webhook_takes_the_test_event_or_is_told_why_not(
    fusewatch: Fusewatch, config: Path
) -> None:
    with Receiver(SECRET, answer=lambda got: Reply(500 if "bad" in got.path else 204)) as receiver:
        good = f'url: "{receiver.url}?key=s3cretpw", secret: "{SECRET}", name: good'
        bad = f'url: "{receiver.url}/bad", secret: "{SECRET}", name: bad'
        dead = f'url: "http://127.0.0.1:1/?key=s3cretpw", secret: "{SECRET}", name: dead'
        hooked(config, good, bad, dead)
        assert fusewatch("webhooks", "test", config, "good").code == 0
        assert fusewatch("webhooks", "test", config, "bad").code == 3
        said = fusewatch("webhooks", "test", config)
        assert said.code == 3
        assert "http://127.0.0.1:1: no answer" in said.out
        said = fusewatch("webhooks", "test", config, "nosuch")
        assert (said.code, "there are good, bad, dead" in said.err) == (2, True)


def test_a_test_event_names_each_webhook_and_is_json_for_programs(
    fusewatch: Fusewatch, config: Path
) -> None:
    with Receiver(SECRET, answer=lambda got: Reply(410)) as receiver:
        gone = f'url: "{receiver.url}", secret: "{SECRET}", name: gone'
        dead = f'url: "http://127.0.0.1:1/", secret: "{SECRET}", name: dead'
        hooked(config, gone, dead)
        said = fusewatch("webhooks", "test", config)
        first, second = said.out.splitlines()
        place = receiver.url.removesuffix("/alerts")
        assert first.startswith(f"gone at {place}: 410, Gone: the receiver wants no more alerts (")
        assert second.startswith("dead at http://127.0.0.1:1: no answer, ConnectError: ")
        said = fusewatch("webhooks", "test", config, "--json")
        rows = json.loads(said.out)
        assert said.code == 3
        assert [(row["name"], row["ok"], row["status"]) for row in rows] == [
            ("gone", False, 410),
            ("dead", False, None),
        ]
        assert rows[0]["place"] == place
        assert all(row["seconds"] >= 0 and row["enabled"] is None for row in rows)


def test_who_is_enabled_must_be_known_and_have_a_log(fusewatch: Fusewatch, config: Path) -> None:
    hooked(config, f'url: "http://127.0.0.1:1/", secret: "{SECRET}", name: siem')
    state = config.parent / "state"
    said = fusewatch("webhooks", "enable", config, "sime", "--state", state)
    assert (said.code, "did you mean" in said.err) == (2, True)
    assert "siem, evidence, jsonl" in said.err
    said = fusewatch("webhooks", "enable", config, "siem", "--state", state)
    assert (said.code, "holds no log of a daemon" in said.err) == (3, True)
    assert not state.exists()
    (state / "log").mkdir(parents=True)
    said = fusewatch("webhooks", "enable", config, "jsonl", "--state", state)
    assert (said.code, said.out) == (0, "jsonl was not disabled: it takes alerts\n")
    assert (state / "enabled" / "jsonl").exists()
    said = fusewatch("webhooks", "enable", config, "siem", "--state", state, "--json")
    assert json.loads(said.out)["name"] == "siem"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("file:none", "cannot be read: No such file"),
        ("${NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE is not set"),
        ("file:short", "is not `whsec_`"),
    ],
)
@pytest.mark.parametrize("command", ["webhooks test {}", "run {} --state st"])
def test_a_secret_that_is_none_is_told_and_not_shown(
    fusewatch: Fusewatch, config: Path, command: str, secret: str, why: str
) -> None:
    (config.parent / "short").write_text("s3cretpw")
    hooked(config, f'url: "http://127.0.0.1:1/", secret: "{secret}"')
    said = fusewatch(*command.format(config).split())
    assert (said.code, why in said.err) == (2, True)


@pytest.mark.parametrize("action", ["list", "pull", "verify"])
def test_weights_of_unknown_name_are_wrong_use(fusewatch: Fusewatch, action: str) -> None:
    said = fusewatch("weights", action, "yolox_nano", "nosuch")
    assert (said.code, "no such weights: 'nosuch'; there are yolox_nano" in said.err) == (2, True)


def test_weights_that_are_missing_or_wrong_are_found(
    fusewatch: Fusewatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(tmp_path))
    name = "faster-whisper-tiny.en"
    assert fusewatch("weights", "verify", name).code == 1
    rows = json.loads(fusewatch("weights", "list", name, "--json").out)
    assert [(row["name"], row["state"]) for row in rows] == [(name, "missing")]


CAMERA_ONLY = """
version: 1
sites:
  yard:
    cameras: {gate: {source: "device:0"}}
    rules: [{rule: keyword, words: {en: [help]}}]
"""


@pytest.mark.parametrize("action", ["list", "pull", "verify"])
def test_weights_of_a_config_are_those_that_it_needs(
    fusewatch: Fusewatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FUSEWATCH_WEIGHTS", raising=False)
    config = tmp_path / "yard.yaml"
    config.write_text(CAMERA_ONLY)
    said = fusewatch("weights", action, "--config", config, "--json")
    assert (said.code, said.err) == (0, "")
    assert [row["name"] for row in json.loads(said.out)] == ["yolox_nano"]
    both = fusewatch("weights", action, "yamnet", "--config", config)
    assert (both.code, "either names of models, or --config" in both.err) == (2, True)


def test_optional_weights_are_listed_and_come_when_they_are_asked_for(
    fusewatch: Fusewatch, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(weights))
    named = {
        action: [row["name"] for row in json.loads(fusewatch("weights", action, "--json").out)]
        for action in ("list", "pull", "verify")
    }
    assert "movenet_lightning_int8" in named["list"]
    assert named["pull"] == named["verify"] == [n for n in named["list"] if n in DEFAULTS]
    config = tmp_path / "yard.yaml"
    config.write_text(CAMERA_ONLY.replace('"device:0"', '"device:0", detect: {poses: 2}'))
    said = fusewatch("weights", "verify", "--config", config, "--json")
    assert [row["name"] for row in json.loads(said.out)] == ["yolox_nano", "movenet_lightning_int8"]
    config.write_text(
        config.read_text() + "models: {pose: {kind: blazepose, weights: blazepose}}\n"
    )
    said = fusewatch("weights", "verify", "--config", config, "--json")
    assert [row["name"] for row in json.loads(said.out)] == ["yolox_nano", "blazepose"]


def test_a_kind_of_pose_model_that_is_none_is_refused(fusewatch: Fusewatch, tmp_path: Path) -> None:
    config = tmp_path / "yard.yaml"
    config.write_text(CAMERA_ONLY + "models: {pose: {kind: openpose, weights: blazepose}}\n")
    said = fusewatch("check", config)
    assert said.code != 0
    assert "models.pose.kind" in said.out + said.err
    assert "movenet, blazepose" in said.out + said.err


def test_doctor_looks_for_relative_files_beside_the_config(
    fusewatch: Fusewatch, tmp_path: Path
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    reels.sound(folder / "room.wav", np.sin(np.arange(32_000) / 5) / 2)
    (folder / "hook").write_text(SECRET)
    config = folder / "office.yaml"
    config.write_text(
        "version: 1\nstate: st\nsites: {office: {microphones: {room: {source: room.wav}}}}\n"
        'webhooks: [{url: "http://127.0.0.1:1/", secret: "file:hook", name: hook}]\n'
    )
    said = fusewatch("doctor", config, "--json")
    checks = {check["name"]: check for check in json.loads(said.out)}
    assert checks["microphone office/room"]["ok"], checks["microphone office/room"]
    assert checks["webhook hook"]["ok"], checks["webhook hook"]
    assert said.code in (0, 1)  # by what else this machine has
