"""A real RTSP server, and a real sound server with a virtual microphone, while a test runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-gi belongs to


def need(*programs: str, reason: str = "see deploy/apt.txt") -> None:
    """Skip aloud where a program is missing; in CI that is a failure."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        missing(f"{', '.join(absent)} not found: {reason}")


def eventually(what: Callable[[], object], *, within: float, every: float = 0.02) -> object:
    """What `what` gives as soon as it is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(every)
    return found


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def rtsp_server(file: Path, *options: str, port: int = 0) -> Iterator[str]:
    """Plays `file`; gives its address. Options as in rtsp_server.py."""
    need(SYSTEM_PYTHON)
    asked = [SYSTEM_PYTHON, str(HERE / "rtsp_server.py"), str(file), "--port", str(port), *options]
    with subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline().split()
            if not ready:
                server.wait(5)
                assert server.stderr is not None
                missing(f"no RTSP server: {server.stderr.read()[-300:]}")
            yield f"rtsp://127.0.0.1:{ready[1]}/live"
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def virtual_microphone(folder: Path, rate: int = 48_000) -> Iterator[Callable[[Path], None]]:
    """A sound server of its own, in `folder`; what is played to it is what its microphone hears.

    Gives `play(file)`, which returns at the end of the sound. The microphone is ALSA's `pulse` and
    `default` device for this process and those that it starts.
    """
    need("pulseaudio", "paplay", "pactl")
    socket = folder / "pulse.socket"
    alsa = folder / "asound.conf"
    alsa.write_text("</usr/share/alsa/alsa.conf>\npcm.!default { type pulse }\n")
    mine = {
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_RUNTIME_PATH": str(folder / "run"),
        "ALSA_CONFIG_PATH": str(alsa),
    }
    before = {key: os.environ.get(key) for key in mine}
    os.environ.update(mine)
    (folder / "run").mkdir(mode=0o700)
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
            *("--disable-shm=yes", "--log-target=file:" + str(folder / "pulse.log")),
            f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
            f"--load=module-null-sink sink_name=speaker rate={rate}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers("pactl", "info"), within=10, every=0.1)
        assert _answers("pactl", "set-default-source", "speaker.monitor")
        yield lambda file: subprocess.run(["paplay", str(file)], check=True, timeout=60)
    finally:
        server.kill()
        server.wait()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


def missing(reason: str) -> None:
    """Skip for `reason`; in CI, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
