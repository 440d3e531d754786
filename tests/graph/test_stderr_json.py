"""Where stderr is no terminal, every line of `run` and `worker` is JSON, whoever writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import SECRET
from workers.delivery.receiver import Receiver
from workers.runtime.stderr_log import MAX_LINE, Lines

ROOT = Path(__file__).resolve().parents[2]
PLANTED = "s3cret-value-18"


def fusewatch(who: str, *words: object, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Runs the command with its noise; returns its exit code and the lines of its stderr."""
    said = folder / "said"
    with said.open("w") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "tests.live.noisy_command", who, *map(str, words)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PLANTED": PLANTED},
        )  # fmt: skip
    assert done.stdout == b""
    text = said.read_bytes().decode()
    assert PLANTED not in text
    return done.returncode, [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def run(
    config: Path, scene: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[[str], tuple[int, list[dict[str, Any]]]]]:
    with Receiver(SECRET) as receiver:
        hook = f"{{url: '{receiver.url}?key=${{PLANTED}}', secret: '{SECRET}'}}"
        config.write_text(f"{config.read_text()}webhooks: [{hook}]\n")
        words = ("run", config, "--scene", scene(person=(3, 6)), "--state", tmp_path / "state")
        yield lambda who: fusewatch(who, *words, folder=tmp_path)


MESSAGES = {
    "print": ("a printed line", "info", "native"),
    "native": ("native line", "info", "native"),
    "warning": ("a warning\nof two lines", "warning", "vision"),
    "thread": ("thread theirs failed", "critical", "theirs"),
    "destructor": ("an exception was ignored", "error", "vision"),
    "log": ("a line of a library", "warning", "vision"),
    "secret": ("connecting to ***", "info", "native"),
}


def test_all_that_others_write_is_json(run: Callable[[str], Any]) -> None:
    code, lines = run("all")
    assert code == 0
    for what, level, thread in MESSAGES.values():
        found = [line for line in lines if what in line["message"]]
        assert found, what
        assert any((line["level"], line["thread"]) == (level, thread) for line in found), found
    (failed, *_) = (line for line in lines if line["message"] == "thread theirs failed")
    assert failed["error"].endswith("RuntimeError: a thread has failed")


def test_a_stage_that_fails_is_told_with_its_traceback(run: Callable[[str], Any]) -> None:
    code, lines = run("exception")
    assert code == 70
    (told,) = (line for line in lines if line["message"] == "vision failed")
    assert "RuntimeError: a stage has failed" in told["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "missing argument 'config'"),
        (("run", "--bogus"), "no such option: --bogus"),
        (("run", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("worker", "vision", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("worker", "everything", "x.yaml"), "'everything' is none of"),
    ],
)
def test_wrong_use_is_json(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, lines = fusewatch("nobody", *words, folder=tmp_path)
    assert code == 2
    assert message in lines[-1]["message"]
    assert lines[-1]["level"] == "critical"


def test_other_commands_say_text(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "check", "nowhere.yaml"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[:24]) == (2, "fusewatch: nowhere.yaml:")


CRASH = """
import ctypes, os, sys
from workers import cli, daemon
libc = ctypes.CDLL(None)
def run(*given, **more):
    HAPPENS
daemon.run = run
sys.exit(cli.main(["run", "x.yaml"]))
"""


def crashed(happens: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CRASH.replace("HAPPENS", happens)],
        cwd=ROOT, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_crash_shows_the_stacks() -> None:
    done = crashed("ctypes.string_at(0)")
    assert done.returncode == -11
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "in run" in done.stderr


def test_the_last_words_of_a_library_that_aborts_are_not_lost() -> None:
    done = crashed("libc.write(2, b'double free or corruption', 25), libc.abort()")
    assert done.returncode == -6
    assert "double free or corruption" in done.stderr
    assert "Fatal Python error: Aborted" in done.stderr


def test_the_last_words_show_no_secret() -> None:
    done = crashed(
        "from workers.config.secrets import Secrets; from workers.view import View;"
        "from workers.runtime.status import Status; known = Secrets(env={'P': 's3cret-18'});"
        "View(Status(), known); known.expand('${P}', ''); os.write(2, b'no route to s3cret-18');"
        "os.abort()"
    )
    assert "no route to ***" in done.stderr
    assert "s3cret" not in done.stderr


def test_what_is_written_at_the_very_end_is_not_lost() -> None:
    done = crashed("os.write(2, b'x' * 60_000 + b'\\nlast'); return 0")
    lines = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert lines == ["x" * 60_000, "last"]


def test_a_child_that_holds_stderr_open_does_not_keep_the_command() -> None:
    done = crashed("import subprocess; subprocess.Popen(['sleep', '30'], stdout=-3); return 0")
    assert (done.returncode, done.stderr) == (0, "")


def test_lines_are_cut_out_of_any_pieces_and_an_endless_one_is_left_out() -> None:
    lines: list[str] = []
    made = Lines(lines.append)
    for piece in (b"a", b"b\r\n\r\nc\rd", b"\n", b"e" * MAX_LINE, b"e\nf"):
        made.put(piece)
    made.put(b"g" * MAX_LINE)
    made.end()
    left = f"(a line of {MAX_LINE + 1} bytes is left out)"
    assert lines == ["ab", "c", "d", left, left]
