"""The real daemon and its commands with a secret in every place that may hold one: none is shown.

Every password here holds `s3cret`, every user name `qops`: so it is enough to look for these two.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import pytest

from tests.live.daemon import ROOT, daemon, said
from tests.live.servers import eventually, rtsp_server
from workers.delivery.receiver import Receiver

pytestmark = [pytest.mark.live, pytest.mark.slow]

USER, PASSWORD = "qops@site", "s3cret/right#1"
TOKEN = "s3cret-token-of-the-endpoint"
HOOK = "whsec_s3cretAAs3cretBBs3cretCCs3cretDDs3cretEE"
DEAD_HOOK = "whsec_s3cretZZs3cretYYs3cretXXs3cretWWs3cretVV"
MARKS = ("s3cret", "qops")
ENV = {"DESK_USER": quote(USER, safe=""), "DESK_PASSWORD": quote(PASSWORD, safe=""),
       "RAW_PASSWORD": PASSWORD}  # fmt: skip

# Name -> address on HOST, and whether the server lets it in.
CAMERAS = {
    "encoded": (f'"rtsp://{ENV["DESK_USER"]}:{ENV["DESK_PASSWORD"]}@HOST/live"', True),
    "variables": ('"rtsp://${DESK_USER}:${DESK_PASSWORD}@HOST/live"', True),
    "mapping": (
        f'{{url: "rtsp://HOST/live", username: "{USER}", password: "${{RAW_PASSWORD}}"}}',
        True,
    ),
    "dotted": ('"rtsp://qops.user:s3cret-2@HOST/live"', False),
    "wrong": ('"rtsp://qops%40site:s3cret-3@HOST/live"', False),
    "nobody": ('"rtsp://:s3cret-4@HOST/live"', False),
    "query": ('"rtsp://HOST/live?usr=qops&pwd=s3cret-5"', False),
    "turned": ('"rtsp://HOST/live?password=s3cret-6&user=qops"', False),
    "path": ('"rtsp://HOST/user=qops&password=s3cret-7&channel=1"', False),
    "web": ('"http://qops.user:s3cret-8@HOST/mjpg?pwd=s3cret-8"', False),
    "dead": ('"rtsp://qops.user:s3cret-9@127.0.0.1:1/live"', False),
}
MICROPHONES = {
    "dotted_mic": '"rtsp://qops.user:s3cret-12@HOST/live"',
    "right_mic": CAMERAS["encoded"][0],  # shares the camera's connection
    "dead_mic": '"rtsp://qops.user:s3cret-13@127.0.0.1:1/live?pwd=s3cret-13"',
}


@pytest.fixture
def host(media: Path) -> Iterator[str]:
    """A camera that asks for user and password."""
    guard = ("--user", USER, "--password", PASSWORD)
    with rtsp_server(media / "video/Retail02_short.mp4", "--sound", *guard) as url:
        yield url.removeprefix("rtsp://").removesuffix("/live")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setenv("FUSEWATCH_WEIGHTS", str(weights))
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def written(folder: Path, host: str, url: str) -> Path:
    """A config with a secret wherever one may be."""
    (folder / "hook").write_text(f"{HOOK}\n")
    (folder / "api").write_text(f"{TOKEN}\n")
    detect = "detect: {fps: 1}, zones: {floor: {coordinates: '0,0, 1,0, 1,1, 0,1'}}"
    cameras = "".join(
        f"      {name}: {{source: {source.replace('HOST', host)}, {detect}}}\n"
        for name, (source, _) in CAMERAS.items()
    )
    rooms = "".join(
        f"      {name}: {{source: {source.replace('HOST', host)}}}\n"
        for name, source in MICROPHONES.items()
    )
    path = folder / "office.yaml"
    path.write_text(f"""
version: 1
sites:
  office:
    cameras:
{cameras}
    microphones:
{rooms}
    rules: [{{rule: zone, zone: floor, label: intrusion, severity: high}}]
    incidents: {{close_after: 2, lost_after: 5}}
api: {{listen: "127.0.0.1:{free_port()}", token: "file:api"}}
webhooks:
  - {{url: "{url}?key=s3cret-14", secret: "file:hook", name: good}}
  - {{url: "http://127.0.0.1:1/s3cret-15?key=s3cret-16", secret: "{DEAD_HOOK}", name: dead}}
  - {{url: "{url}/refused?key=s3cret-17", secret: "{DEAD_HOOK}", name: refused}}
""")
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def clean(what: str, text: str | bytes) -> None:
    """No secret in this, in no spelling of it."""
    shown = text.decode("latin-1") if isinstance(text, bytes) else text
    for mark in MARKS:
        at = shown.find(mark)
        assert at < 0, f"{what}: ...{shown[max(0, at - 200) : at + 100]}"


def titles(pid: int) -> str:
    """What `ps` shows of a process and its threads."""
    process = Path(f"/proc/{pid}")
    threads = [file.read_text() for file in process.glob("task/*/comm")]
    return "\n".join([(process / "cmdline").read_text(), (process / "comm").read_text(), *threads])


def asked(url: str) -> str:
    """What the endpoint answers."""
    answer = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    return answer.raise_for_status().text


def listening(config: Path) -> str:
    text = config.read_text()
    return "http://" + text[text.index("127.0.0.1:", text.index("listen")) :].split('"')[0]


def test_the_daemon_shows_no_secret_whatever_its_sources_and_receivers_do(
    tmp_path: Path, host: str
) -> None:
    state = tmp_path / "state"
    with Receiver(HOOK) as receiver:
        config = written(tmp_path, host, receiver.url)
        with daemon(config, state) as process:
            eventually(lambda: receiver.events, within=90)
            live = {name for name, (_, right) in CAMERAS.items() if right} | {"right_mic"}
            lost = {*CAMERAS, *MICROPHONES} - live

            def told() -> dict[str, str]:
                status = msgspec.json.decode(asked(f"{listening(config)}/v1/status"))
                return {name: of["state"] for name, of in status["sources"]["office"].items()}

            eventually(
                lambda: live <= {name for name, state in told().items() if state == "live"},
                within=60, every=0.5,
            )  # fmt: skip
            eventually(
                lambda: lost <= {name for name, state in told().items() if state != "live"},
                within=60, every=0.5,
            )  # fmt: skip
            eventually(lambda: any("/refused" in post.path for post in receiver.posts), within=30)
            clean("status", asked(f"{listening(config)}/v1/status"))
            clean("titles", titles(process.pid))
            clean("health", asked(f"{listening(config)}/healthz"))
        bodies = [post.body for post in receiver.posts]
        headers = [f"{post.headers}" for post in receiver.posts]
    clean("stderr", (state / "said").read_text())
    reasons = " ".join(line["message"] for line in said(state))
    assert "password" in reasons, "what was wrong with the cameras is told"
    for body in bodies:
        clean("alert", body)
    for header in headers:
        clean("headers", header)
    files = [file for file in state.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"alerts.jsonl", "frames.v1.db", "alerts.v1.db"}
    for file in files:
        clean(str(file), file.read_bytes())
        clean("names", str(file.relative_to(state)))


def fusewatch(*words: object) -> tuple[int, str]:
    """A command's exit code and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_no_command_shows_a_secret(tmp_path: Path, host: str) -> None:
    with Receiver(HOOK) as receiver:
        config = written(tmp_path, host, receiver.url)
        told = {
            "check": fusewatch("check", config),
            "doctor": fusewatch("doctor", config),
            "doctor --json": fusewatch("doctor", config, "--json"),
            "webhooks test": fusewatch("webhooks", "test", config),
        }
    for command, (_, text) in told.items():
        clean(command, text)
    assert {command: code for command, (code, _) in told.items()} == {
        "check": 0,
        "doctor": 1,
        "doctor --json": 1,
        "webhooks test": 3,
    }
    assert "refuses this user or password" in " ".join(told["doctor"][1].split())
    checks = {check["name"]: check for check in msgspec.json.decode(told["doctor --json"][1])}
    for name, (_, right) in CAMERAS.items():
        check = checks[f"camera office/{name}"]
        assert check["ok"] == right, check


@pytest.mark.parametrize(
    "source",
    [
        '"rtsp://qops:s3cret@s3cret@h/live"',
        '"rtsp://qops:s3cret/s3cret@h/live"',
        '"rtsp://qops:s3cret s3cret@h/live"',
        '"rtsp://qops:s3cret#s3cret@h/live"',
        '"rtsp://qops:%s3cret@h/live"',
        '"exec:s3cret qops"',
        '"rtsp://qops:${AT}@h/live"',
        '{url: "rtsp://qops:s3cret@h/live", username: qops, password: s3cret}',
        '{url: "rtsp://h/live", user: qops, password: s3cret}',
        "rtsp://qops:s3cret@h/live: s3cret",
        "[rtsp://qops:s3cret@h/live]",
    ],
)
def test_an_address_that_is_refused_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("AT", "s3cret@s3cret")
    config = tmp_path / "office.yaml"
    config.write_text(
        f"version: 1\nsites:\n  office:\n    cameras:\n      desk:\n        source: {source}\n"
    )
    no_yaml = source.startswith("rtsp:")  # all else is a problem of one source: doctor goes on
    for command, code in (("check", 1), ("doctor", 2 if no_yaml else 1), ("run", 2)):
        words = [command, config, *(["--state", tmp_path / "st"] if command == "run" else [])]
        got, text = fusewatch(*words)
        clean(command, text)
        assert got == code, text
        assert "office.yaml:" in text


FAILING = """
import sys
from pathlib import Path
from msgspec.structs import replace
from tests.graph.conftest import FAKES
from workers import cli, daemon

config, where = Path(sys.argv[1]), sys.argv[2]
shown = config.read_text().split("'")[1 if where == "stage" else 3]

def broken(batch=()):
    raise RuntimeError(f"cannot look at {shown}") from OSError(f"no route to {shown}")

class Broken:
    detector = property(broken)

real = daemon.run
encoders = Broken() if where == "start" else replace(FAKES, detector=broken)
daemon.run = lambda *given, **more: real(*given, **more, encoders=encoders)
sys.exit(cli.main(["run", str(config), "--state", sys.argv[3]]))
"""


@pytest.mark.parametrize("where", ["stage", "start"])
def test_a_stage_that_dies_with_a_secret_in_hand_does_not_tell_it(
    tmp_path: Path, host: str, where: str
) -> None:
    config = tmp_path / "office.yaml"
    source = CAMERAS["encoded"][0].replace("HOST", host).replace('"', "'")
    hook = "http://127.0.0.1:1/?key=s3cret-18"
    config.write_text(
        f"version: 1\nsites: {{office: {{cameras: {{desk: {{source: {source}}}}}}}}}\n"
        f"webhooks: [{{url: '{hook}', secret: '{HOOK}'}}]\napi: {{listen: '127.0.0.1:0'}}\n"
    )
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(config), where, str(state)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 70, done.stdout
    assert "RuntimeError: cannot look at" in done.stdout, "the traceback is there"
    assert "***" in done.stdout
    clean("traceback", done.stdout)
    for file in state.rglob("*"):
        if file.is_file():
            clean(str(file), file.read_bytes())
