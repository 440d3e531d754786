"""Nothing leaves the machine but what the config names: the processes are watched by strace."""

from __future__ import annotations

import ast
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.live.daemon import office
from tests.live.test_daemon import free_port
from tests.network_watch import Traffic, environment, watched
from workers.capture.report_client import read_token, send_report
from workers.delivery.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def env(tmp_path: Path, weights: Path) -> dict[str, str]:
    return {**environment(tmp_path / "home"), "FUSEWATCH_WEIGHTS": str(weights)}


def cached(tmp_path: Path) -> set[str]:
    """The files in the user's home, but those of Fusewatch's own cache."""
    home = tmp_path / "home"
    files = {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()}
    return {file for file in files if not file.startswith("cache/fusewatch/")}


def test_the_daemon_turns_to_the_receiver_of_its_config_and_to_nobody_else(
    tmp_path: Path, media: Path, env: dict[str, str]
) -> None:
    port, state = free_port(), tmp_path / "state"
    with Receiver(SECRET) as receiver:
        config = office(
            tmp_path,
            camera=str(media / "video/office_a.mp4"),
            microphone=str(media / "speech/jfk.flac"),
            url=receiver.url,
        )
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        reporting = threading.Thread(target=report, args=(port, state))
        reporting.start()
        words = ["-m", "workers.cli", "run", str(config), "--state", str(state)]
        traffic, _ = watched(
            words, tmp_path / "net.log", env,
            ready=lambda _: intruded(receiver) and not reporting.is_alive(),
        )  # fmt: skip
    assert traffic.called == {receiver.url.removeprefix("http://").partition("/")[0]}
    assert traffic.listened == {f"127.0.0.1:{port}"}
    assert not traffic.names_asked
    assert not cached(tmp_path)


def intruded(receiver: Receiver) -> bool:
    """Whether an alert of the camera was delivered."""
    return any("intrusion" in e["data"]["labels"] for e in list(receiver.events.values()))


def report(port: int, state: Path) -> None:
    """Sends a report as soon as the daemon takes it: the text model runs, too."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            token = read_token(state)
            send_report(f"http://127.0.0.1:{port}", token, "office", "a man climbs in", "guard")
        except Exception:  # not up yet
            time.sleep(0.2)
        else:
            return


def test_a_replay_turns_to_nobody_and_leaves_nothing_in_the_home(
    tmp_path: Path, scenes: Path, env: dict[str, str]
) -> None:
    words = [
        *("-m", "workers.cli", "replay", str(ROOT / "deploy/examples/office.yaml")),
        *(str(scenes / "office-break-in.yaml"), "--out", str(tmp_path / "out.jsonl")),
    ]
    traffic, _ = watched(words, tmp_path / "net.log", env)
    assert (tmp_path / "out.jsonl").stat().st_size
    assert (traffic.called, traffic.listened) == (set(), set())
    assert not traffic.names_asked
    assert not cached(tmp_path)


def test_a_home_that_cannot_be_written_to_breaks_no_line_of_the_log(
    tmp_path: Path, media: Path, env: dict[str, str]
) -> None:
    config = office(
        tmp_path, camera=str(media / "video/office_a.mp4"), microphone="device:none", url=""
    )
    text = config.read_text().partition("    microphones:")[0] + "api: {listen: '127.0.0.1:0'}\n"
    config.write_text(text)
    nowhere = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache"}
    words = ["-m", "workers.cli", "run", str(config), "--state", str(tmp_path / "state")]
    traffic, said = watched(words, tmp_path / "net.log", {**env, **nowhere},
                            ready=lambda said: "office/desk is live" in said)  # fmt: skip
    assert [json.loads(line)["message"] for line in said.splitlines()]
    assert traffic.called == set()


@pytest.mark.parametrize("code", [
    "import models.vision.detector", "import models.fusion.learned_head",
    "import models.language.text", "import models.hearing.voice_activity",
    "import models.hearing.speech", "import tests", "import benchmarks",
])  # fmt: skip
def test_whoever_imports_one_of_our_modules_is_covered(
    code: str, tmp_path: Path, env: dict[str, str]
) -> None:
    session = (
        f"{code}\nimport onnxruntime, huggingface_hub.constants as hub, os\n"
        "from models.fusion.learned_head import LearnedHead\nLearnedHead.shipped()\n"
        "assert hub.HF_HUB_OFFLINE and hub.HF_HUB_DISABLE_TELEMETRY\n"
    )
    traffic, _ = watched(["-c", session], tmp_path / "net.log", env)
    assert traffic.called == set()
    assert not cached(tmp_path)


def test_the_watch_sees_names_that_are_looked_up_and_every_kind_of_address(
    tmp_path: Path, env: dict[str, str]
) -> None:
    code = """
import contextlib, socket, subprocess, sys
with contextlib.suppress(OSError):
    socket.getaddrinfo("mobile.events.example", 443)
for family, kind, place in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 1)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 2)),
):
    with socket.socket(family, kind) as one, contextlib.suppress(OSError):
        one.connect(place)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.sendto(b"x", ("127.0.0.1", 3))
    one.sendmsg([b"x"], [], 0, ("127.0.0.1", 4))
child = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 5))"
subprocess.run([sys.executable, "-c", child], check=True)
"""
    traffic, _ = watched(["-c", code], tmp_path / "net.log", env)
    expected = {"127.0.0.1:1", "[::1]:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"}
    assert expected <= traffic.called
    servers = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    if "nameserver" in servers:
        others = traffic.called - expected
        assert any(place.endswith(":53") for place in others) or traffic.names_asked


def test_the_watch_reads_strace_s_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16 '
        "<unfinished ...>\n"
        "8 connect(4, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "2606::1", &sin6_addr), sin6_scope_id=0}, 28) = 0\n'
        "9 sendmmsg(5, [{msg_hdr={msg_name={sa_family=AF_INET, sin_port=htons(9), "
        'sin_addr=inet_addr("10.0.0.2")}, msg_namelen=16}}], 1, 0) = 1\n'
        '9 connect(6, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42)'
        " = 0\n"
        "9 connect(6, {sa_family=AF_BLUETOOTH, sa_data=[]}, 42) = 0\n"
        '9 recvfrom(6, "x", 9, 0, {sa_family=AF_INET, sin_port=htons(1), '
        'sin_addr=inet_addr("9.9.9.9")}, [16]) = 1\n'
        '9 bind(7, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("0.0.0.0")}, 16) = 0'
    )
    traffic = Traffic(log)
    assert traffic.called == {"10.0.0.1:53", "[2606::1]:443", "10.0.0.2:9", "AF_BLUETOOTH"}
    assert traffic.listened == {"0.0.0.0:80"}
    assert traffic.local == {"/run/systemd/resolve/io.systemd.Resolve"}


def test_no_other_file_loads_a_library_for_models_before_models_itself() -> None:
    """`models/__init__.py` comes first, and so does the `__init__.py` of tests and benchmarks."""
    talkative = {"onnxruntime", "ultralytics", "huggingface_hub", "faster_whisper"}
    for file in ROOT.rglob("*.py"):
        top = file.relative_to(ROOT).parts[0]
        if top.startswith(".") or top in ("build", "models"):
            continue
        names = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(file.read_bytes()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        }
        if names & talkative:
            assert top in ("tests", "benchmarks"), file
    for top in ("tests", "benchmarks"):
        tree = ast.parse((ROOT / top / "__init__.py").read_bytes())
        first = next(n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
        assert isinstance(first, ast.Import)
        assert first.names[0].name == "models"
    assert sys.modules["models"]
