"""Mistakes as people make them, and as nobody would: each is told with file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.problem import Problem
from pipeline.errors import ConfigError
from tests.config_mistakes import MISTAKES, RIGHT, Mistake, findings, main, told
from workers.cli import main as fusewatch
from workers.config.findings import FaultyFile, located
from workers.config.loader import examine, load

PIECES = re.split(r"(\s+|[{}\[\]:,\"'-])", RIGHT)
ODD = (
    *("\t", "\x00", "\ufeff", "\u2028", "\u202e", "é", "😀", "\r", "\n", "  ", "---\n", "...\n"),
    *("&a ", "*a ", "<<: ", "!!python/name:os.system ", "!x ", "|", ">", "? ", "- ", ": ", "#"),
    *("{", "}", "[", "]", '"', "'", "`", "@", "%", "${", "${A}", "~", "null", "true", "1e9", "NaN"),
    *("-1", "0x10", "9" * 400, "[" * 50, "{a: " * 50, "a" * 3000, "file:", "exec:id", "."),
)


def test_the_config_that_the_mistakes_are_made_in_is_right(tmp_path: Path) -> None:
    assert findings(tmp_path / "site.yaml", RIGHT.encode()) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_typical_mistake_is_told_with_its_line_and_the_nearest_right_word(
    tmp_path: Path, mistake: Mistake
) -> None:
    says = "\n".join(f"site.yaml:{line}" for line in mistake.says.splitlines())
    assert told(tmp_path, mistake) == says


def test_the_table_of_mistakes_has_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(MISTAKES) >= 26
    assert all("site.yaml:" in row for row in rows)


@pytest.mark.parametrize(
    "data",
    [RIGHT.encode("utf-8-sig"), RIGHT.replace("\n", "\r\n").encode(), RIGHT.strip().encode()],
    ids=["byte order mark", "lines that end as in Windows", "no end of line"],
)
def test_what_editors_do_is_no_mistake(tmp_path: Path, data: bytes) -> None:
    assert findings(tmp_path / "site.yaml", data) == []


def test_a_problem_has_its_file_line_and_path_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(RIGHT.replace("rule: zone", "rule: zoen").replace("fps: 5", "fps: x"))
    assert fusewatch(["check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert [(one["file"], one["line"], one["path"]) for one in found["problems"]] == [
        (str(path), 8, "sites.shop.cameras.door.detect.fps"),
        (str(path), 14, "sites.shop.rules[0].rule"),
    ]
    path.write_text("sites: [\n")
    assert fusewatch(["check", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["line"] == 2


def checked(text: str, path: Path) -> None:
    """Either the config loads, or each line of the error names the file and a line in it."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    error: FaultyFile | None = None
    try:
        load(path, {})
        examine(path, {})
        return
    except FaultyFile as raised:
        error = raised
    assert error.findings
    assert error.__cause__ is None
    last = len(re.findall(r"[\n\r\x85\u2028\u2029]", text)) + 2
    assert all(1 <= finding.line <= last for finding in error.findings)
    assert all(finding.message for finding in error.findings)
    for line in str(error).split("\n"):
        assert line.startswith(f"{path}:"), line


SLOW_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=10_000)
places = st.integers(0, len(PIECES) - 1)
pieces = st.one_of(st.sampled_from(PIECES), st.sampled_from(ODD), st.text(max_size=5))
edits = st.tuples(st.sampled_from(["delete", "insert", "replace", "swap"]), places, places, pieces)


@SLOW_FILES
@given(changes=st.lists(edits, min_size=1, max_size=4))
def test_no_change_of_a_config_ends_in_a_traceback(
    tmp_path: Path, changes: list[tuple[str, int, int, str]]
) -> None:
    parts = list(PIECES)
    for what, place, other, piece in changes:
        match what:
            case "delete":
                parts[place] = ""
            case "insert":
                parts[place] += piece
            case "replace":
                parts[place] = piece
            case "swap":
                parts[place], parts[other] = parts[other], parts[place]
    checked("".join(parts), tmp_path / "site.yaml")


@SLOW_FILES
@given(text=st.text(st.characters(codec=None), max_size=200))
def test_no_text_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    checked(text, tmp_path / "site.yaml")


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
        st.sampled_from(["file:", "${", "${A}", "rtsp://h/x", "device:0", "22:00-06:00", "a:b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
LEAVES = [
    "version", "sites", "state", "storage", "bus", "webhooks", "jsonl", "models", "api",
    "sites.shop", "sites.shop.timezone", "sites.shop.cameras", "sites.shop.rules",
    "sites.shop.cameras.door", "sites.shop.cameras.door.source", "sites.shop.cameras.door.zones",
    "sites.shop.cameras.door.detect", "sites.shop.windows", "sites.shop.fusion",
]  # fmt: skip


@SLOW_FILES
@given(leaf=st.sampled_from(LEAVES), value=VALUES)
def test_any_value_at_any_place_is_taken_or_told(tmp_path: Path, leaf: str, value: object) -> None:
    data: dict[str, object] = {
        "version": 1,
        "sites": {"shop": {"cameras": {"door": {"source": "device:0"}}}},
    }
    *way, last = leaf.split(".")
    place: dict[str, object] = data
    for step in way:
        place = place[step]  # type: ignore[assignment]
    place[last] = value
    checked(json.dumps(data, ensure_ascii=False), tmp_path / "site.yaml")


def test_a_problem_whose_path_has_no_line_has_that_of_what_holds_it() -> None:
    lines = {(): 1, ("a",): 4}
    [found] = located("f.yaml", lines, [Problem(("a", "b", 3), "is missing")])
    assert (found.line, found.path, str(found)) == (4, "a.b[3]", "f.yaml:4: a.b[3]: is missing")


def test_a_file_that_cannot_be_read_has_no_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        examine(tmp_path / "none.yaml")
