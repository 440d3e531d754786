"""Runs a command under strace and tells every address that it, or a child of it, turned to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.live.servers import eventually, need

SECONDS = 12  # ONNX Runtime looks its maker up 6 to 9 s after a start
ROOT = Path(__file__).resolve().parents[1]
# ONNX Runtime is silent where it takes itself to be tested; ultralytics does the same for pytest.
TESTED = (
    *("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TRAVIS", "JENKINS_URL", "TF_BUILD"),
    *("CODEBUILD_BUILD_ID", "ORT_RUNNING_UNIT_TESTS", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"),
)
# What `models/__init__.py` set for this process: a child must set it by itself.
SWITCHES = ("ORT_", "HF_", "YOLO_", "DO_NOT_TRACK")

_CALL = re.compile(r"^\d+ +(connect|bind|sendto|sendmsg|sendmmsg)\(")
_INTERNET = re.compile(
    r"\{sa_family=AF_INET6?, sin6?_port=htons\((\d+)\), "
    r'(?:sin6_flowinfo=htonl\(\d+\), )?inet_pton\(AF_INET6, "([^"]+)"|'
    r'\{sa_family=AF_INET, sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)'
)
_OTHER_FAMILY = re.compile(r"\{sa_family=(AF_\w+)")
_LOCAL = re.compile(r'\{sa_family=AF_UNIX, sun_path=@?"([^"]+)"')


class Traffic:
    """What a command turned to: HOST:PORT in `called` and `listened`, sockets in `local`."""

    def __init__(self, log: Path) -> None:
        self.called: set[str] = set()
        self.listened: set[str] = set()
        self.local: set[str] = set()
        for line in log.read_text(errors="replace").splitlines():
            if (call := _CALL.match(line)) is None:
                continue
            addresses = set(_addresses(line))
            self.local |= set(_LOCAL.findall(line))
            (self.listened if call[1] == "bind" else self.called).update(addresses)

    @property
    def names_asked(self) -> set[str]:
        """Local services that look names up in the network, where they are there."""
        asked = {path for path in self.local if "resolve" in path or "nscd" in path}
        return {path for path in asked if Path(path).exists()}


def _addresses(line: str) -> Iterator[str]:
    for port6, host6, port4, host4 in _INTERNET.findall(line):
        yield f"{host4}:{port4}" if host4 else f"[{host6}]:{port6}"
    for family in _OTHER_FAMILY.findall(line):
        if family not in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_UNSPEC"):
            yield family


def environment(home: Path) -> dict[str, str]:
    """The environment of a user with an empty home, who tests nothing and switched nothing off."""
    home.mkdir(exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in TESTED and not name.startswith(SWITCHES)
    }
    return kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}


def watched(
    words: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    *,
    ready: Callable[[str], object] | None = None,
) -> tuple[Traffic, str]:
    """Runs Python with `words`; gives its traffic and its stderr.

    It runs to its end, or for `SECONDS` after its stderr is what `ready` wants.
    """
    need("strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody trace a process: the network was NOT watched")
    said = log.with_suffix(".stderr")
    with said.open("w") as stderr, subprocess.Popen(
        ["strace", "-f", "-qq", "-s", "256", "-e", "trace=network", "-e", "signal=none",
         "-o", str(log), sys.executable, *words],
        cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
    ) as tracer:  # fmt: skip
        try:
            if ready is not None:
                eventually(lambda: ready(said.read_text()), within=120, every=0.2)
                time.sleep(SECONDS)
                os.kill(_traced(tracer.pid), signal.SIGTERM)
            status = tracer.wait(180)
        finally:
            if tracer.poll() is None:
                os.killpg(tracer.pid, signal.SIGKILL)
    assert status == 0, said.read_text()[-3000:]
    return Traffic(log), said.read_text()


def _traced(tracer: int) -> int:
    """The command's process; strace starts others for a moment, to try the kernel."""
    for child in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
        if Path(f"/proc/{child}/cmdline").read_bytes().startswith(sys.executable.encode()):
            return int(child)
    msg = "the command has ended before its time"
    raise AssertionError(msg)
