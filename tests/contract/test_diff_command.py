"""`fusewatch diff` on files of alerts: what a user's own CI does with golden alerts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.types import ns
from tests import make
from tests.golden import stored
from workers.cli import main
from workers.delivery.cloudevent import event_bytes, test_event
from workers.delivery.jsonl import write_all

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

pytestmark = pytest.mark.no_schema  # the builders' alerts have no reasons


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int) -> str:
    capsys.readouterr()
    assert main(["diff", *map(str, words)]) == code
    out, err = capsys.readouterr()
    return err if code == 2 else out


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """The stored alerts of a scene."""
    file = tmp_path / "golden.jsonl"
    file.write_bytes(stored.alerts_of("office-break-in"))
    return file


def test_a_file_equals_itself(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, golden, golden, code=0).endswith("incident, the same\n")


def test_all_golden_alerts_equal_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, GOLDEN, GOLDEN, code=0).splitlines()
    assert len(lines) == len(list(GOLDEN.glob("*.jsonl")))
    assert all(line.endswith(", the same") for line in lines)


def test_a_difference_ends_with_one_and_is_told(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "now.jsonl"
    text = golden.read_text()
    other.write_text(
        text.replace('"severity":"critical"', '"severity":"high"').replace(
            "zone floor", "zone door"
        )
    )
    lines = said(capsys, golden, other, code=1).splitlines()
    assert lines[0] == f"{golden} -> {other}: 1 incident and 1: 1 changed"
    assert lines[1].startswith("  changed 76fb73c77c5fea24 office: glass, intrusion")
    assert "    severity: critical -> high" in lines
    assert "      - 22:00:07Z person in zone floor (camera desk)" in lines
    assert "      + 22:00:07Z person in zone door (camera desk)" in lines
    assert said(capsys, golden, other, "--ignore", "severity,reasons", code=0)


def test_the_same_as_json(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    (row,) = json.loads(said(capsys, golden, empty, "--json", code=1))
    assert (row["before_file"], row["after_file"]) == (str(golden), str(empty))
    assert (row["before"], row["after"]) == (1, 0)
    (one,) = row["differences"]
    assert (one["what"], one["after"], one["before"][0]["labels"]) == (
        "gone",
        [],
        ["glass", "intrusion"],
    )


def test_files_of_folders_are_paired_by_name(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
        (folder / "same.jsonl").write_bytes(golden.read_bytes())
    (before / "old.jsonl").write_bytes(golden.read_bytes())
    (after / "new.jsonl").write_bytes(golden.read_bytes())
    rows = json.loads(said(capsys, before, after, "--json", code=1))
    assert [[each["what"] for each in row["differences"]] for row in rows] == [
        ["added"],
        ["gone"],
        [],
    ]
    text = said(capsys, before, after, code=1)
    assert f"(no such file) -> {after / 'new.jsonl'}" in text


def test_the_older_lines_of_a_rotated_file_are_read_too(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = golden.read_bytes().splitlines(keepends=True)
    folder = tmp_path / "rotated"
    folder.mkdir()
    file = folder / "alerts.jsonl"
    file.write_bytes(b"".join(lines[2:]))
    file.with_name("alerts.jsonl.1").write_bytes(b"".join(lines[:2]))
    assert said(capsys, golden, file, code=0)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/alerts.jsonl").write_bytes(golden.read_bytes())
    assert said(capsys, tmp_path / "one", folder, code=0)


def test_what_a_crash_leaves_and_test_events_are_passed_over(
    golden: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = golden.read_bytes().splitlines(keepends=True)
    _, tested = test_event("hook", ns(1000))
    other = tmp_path / "live.jsonl"
    other.write_bytes(b"".join([tested + b"\n", *lines, lines[0], lines[-1][:200]]))
    assert said(capsys, golden, other, code=0)
    assert f"live.jsonl:{len(lines) + 3}: is cut off, and left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"{}\n", ":1: is no alert: Object missing required field"),
        (b"no alert\n", ":1: is no alert: "),
        (b"no alert", ":1: is no alert: "),
        (b"\xff\xfe\n", ":1: is no alert: "),
        (b'{"specversion":"1.0","type":"x","time":"yesterday","data":{}}\n', ":1: is no alert: "),
        pytest.param(
            b'{"specversion":"1.0","type":"x","data":' + b"[" * 100_000 + b"\n",
            ":1: is no alert: ",
            id="deep",
        ),
    ],
)
def test_a_line_that_is_no_alert_is_an_error_with_file_and_line(
    content: bytes,
    wanted: str,
    golden: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(content)
    line = said(capsys, golden, other, code=2)
    assert f"{other}{wanted}" in line
    assert "fusewatch replay --out" in line


def test_values_of_any_kind_are_compared(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another version, or somebody's script, may have written anything into a field."""
    lines = [json.loads(line) for line in golden.read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    dates = "25:00:00Z", "2026-99-99T00:00:00.000000000Z"
    wild = (None, 5, "soon", [], [None, 5, [], {}], {"a": {}}, *dates)
    last = lines[-1]["data"]
    for fields in (last, last["findings"][0]):
        for name, before in list(fields.items()):
            for value in wild:
                fields[name] = value
                other.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
                assert main(["diff", str(golden), str(other)]) in (0, 1, 2)
            fields[name] = before
    capsys.readouterr()


def test_two_runs_in_one_file_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "twice.jsonl"
    write_all(file, [make.alert(score=0.5), make.alert(score=0.6)])
    line = said(capsys, file, file, code=2)
    assert "twice.jsonl:2: revision 0 of alert 0123456789abcdef has another content than in" in line


def test_wrong_use_is_told(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, wanted in (
        ((golden, tmp_path / "none.jsonl"), "none.jsonl: cannot be read: No such file"),
        ((golden, empty), f"{empty} is a folder and {golden} is not"),
        ((empty, empty), f"{empty}: holds no file of alerts"),
        ((golden, golden, "--ignore", "socre"), "--ignore 'socre': is no field of an alert"),
        ((golden, golden, "--score-tolerance", "-1"), "--score-tolerance -1: must be 0 or more"),
    ):
        assert wanted in said(capsys, *words, code=2)


def test_words_of_strangers_are_made_printable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for n, word in enumerate(("quiet", "\x1b[2J\x1b]0;owned\x07")):
        files.append(tmp_path / f"{n}.jsonl")
        write_all(files[-1], [make.alert(transcript=(word,), reasons=(word,))])
    text = said(capsys, *files, code=1)
    assert "\x1b" not in text
    assert "owned" in text


def test_many_differences_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = [make.alert(id=f"{n:016x}", start=ns(n), time=ns(n + 1)) for n in range(60)]
    files = tmp_path / "many.jsonl", tmp_path / "none.jsonl"
    write_all(files[0], run)
    write_all(files[1], [])
    assert "and 10 more; --json names all of them" in said(capsys, *files, code=1)
    assert len(json.loads(said(capsys, *files, "--json", code=1))[0]["differences"]) == 60


CI = """\
#!/bin/sh
# What a user's CI runs: the golden alerts were stored once, and must come again.
set -e
fusewatch diff golden/ out/ --ignore evidence
"""


def test_a_ci_script_fails_when_golden_alerts_change(tmp_path: Path) -> None:
    """The exit code alone ends the script."""
    for folder in ("golden", "out"):
        (tmp_path / folder).mkdir()
        for scene in ("office-break-in", "demo"):
            (tmp_path / folder / f"{scene}.jsonl").write_bytes(stored.judged(scene))
    script, bin_ = tmp_path / "ci.sh", tmp_path / "bin"
    script.write_text(CI)
    bin_.mkdir()
    (bin_ / "fusewatch").write_text(f'#!/bin/sh\nexec {sys.executable} -m workers.cli "$@"\n')
    (bin_ / "fusewatch").chmod(0o755)
    env = os.environ | {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }

    def run() -> subprocess.CompletedProcess[str]:
        command: list[Any] = ["sh", script]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    assert run().returncode == 0
    file = tmp_path / "out/demo.jsonl"
    file.write_text(file.read_text().replace('"severity":"critical"', '"severity":"low"'))
    failed = run()
    assert failed.returncode == 1
    assert "severity: critical -> low" in failed.stdout
    assert failed.stderr == ""


def test_an_alert_that_was_cut_to_fit_is_compared_as_it_was_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = make.alert(reasons=tuple(f"{n} {'x' * 400}" for n in range(200)))
    file = tmp_path / "long.jsonl"
    file.write_bytes(event_bytes(long) + b"\n")
    assert said(capsys, file, file, code=0)
