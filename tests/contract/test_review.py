"""`fusewatch review`: verdicts into the file that training reads, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from models.training import dataset
from tests.windows import row
from workers.cli import main

FIRST, SECOND, WORDS = "5e0c1d9f1a2b3c4d", "5e0cffff1a2b3c4d", "9b00000000000000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three alerts of two windows each, and a scene's window; the words have no label of ours."""
    rows = [
        row(alert, second + 10 * place, truth=None, alert=alert, label=label)
        for place, (alert, label) in enumerate(
            ((FIRST, "gunshot"), (SECOND, "scream"), (WORDS, ""))
        )
        for second in (1, 2)
    ]
    path = tmp_path / "alerts.jsonl"
    dataset.write(path, [*rows, row("scene", 0, truth="siren")])
    return path


def verdicts(file: Path) -> list[tuple[str, bool | None, str]]:
    return [(r.alert, r.verdict, r.label) for r in dataset.read([file]) if r.alert]


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["review", *map(str, words)]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_without_a_verdict_the_alerts_are_listed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_bytes()
    lines = said(capsys, file).splitlines()
    assert [line.split()[:2] for line in lines] == [[FIRST, "-"], [SECOND, "-"], [WORDS, "-"]]
    assert "gunshot     1970-01-01T00:00:01" in lines[0]
    assert "(no label)" in lines[2]
    assert file.read_bytes() == before


def test_json_has_a_line_an_alert(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [json.loads(line) for line in said(capsys, file, "--json").splitlines()]
    assert [(each["id"], each["verdict"], each["windows"]) for each in found] == [
        (FIRST, None, 2), (SECOND, None, 2), (WORDS, None, 2)
    ]  # fmt: skip


def test_a_verdict_is_on_every_window_of_the_alert_and_on_no_other(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataset.read([file])[2:]
    (line,) = said(capsys, file, FIRST, "--wrong").splitlines()
    assert line.split()[:2] == [FIRST, "wrong"]
    assert verdicts(file)[:2] == [(FIRST, False, "gunshot")] * 2
    assert dataset.read([file])[2:] == other


def test_an_id_may_be_told_by_its_beginning(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, file, "5e0cf", "--right")
    assert verdicts(file)[2:4] == [(SECOND, True, "scream")] * 2


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_options_and_names_come_in_any_order(file: Path, order: tuple[int, ...]) -> None:
    words = [str(file), "--right", FIRST]
    assert main(["review", *(words[i] for i in order)]) == 0
    assert verdicts(file)[0][:2] == (FIRST, True)


def test_all_are_wrong_in_one_command_and_one_is_taken_back(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, file, "--all", "--wrong")
    said(capsys, file, SECOND, "--unsure")
    assert [verdict for _, verdict, _ in verdicts(file)] == [False, False, None, None, False, False]
    assert dataset.read([file])[-1].truth == "siren"


def test_a_right_one_may_have_been_something_else(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, file, WORDS, "--right", "--label", "threat")
    assert verdicts(file)[4:] == [(WORDS, True, "threat")] * 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((WORDS, "--right"), f"alert {WORDS} was told with no label .*--label gunshot"),
        (("5e0c", "--wrong"), f"'5e0c' may be {FIRST}, {SECOND}: .*review .* lists"),
        (("77", "--wrong"), r"'77' is in no line of .*alerts\.jsonl"),
        ((FIRST, "--right", "--label", "gunshoot"), "--label gunshoot: it is none of gunshot"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], why: str
) -> None:
    before = file.read_bytes()
    assert re.search(why, said(capsys, file, *words, code=2))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "words", [[FIRST], ["--all"], ["--label", "siren"], ["--wrong"], [FIRST, "--all", "--wrong"]]
)
def test_half_a_wish_is_wrong_use(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert "usage: fusewatch review" in said(capsys, file, *words, code=2)


def test_a_file_without_alerts_is_told_so(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.write(file, [row("scene", 0)])
    assert "holds no alert to review" in said(capsys, file, code=2)
    assert "No such file" in said(capsys, tmp_path / "none.jsonl", code=2)


def test_a_bad_line_is_told_and_the_file_stays(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes() + b'{"scene": 1}\n')
    before = file.read_bytes()
    assert "alerts.jsonl:8: " in said(capsys, file, "--all", "--wrong", code=2)
    assert file.read_bytes() == before
    assert msgspec.json.decode(before.splitlines()[0])["verdict"] is None
