"""Files of windows: what is written is read, and what is bad is refused with file and line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.fusion.features import SIZES
from models.training import dataset
from pipeline.errors import ConfigError
from pipeline.types import ns
from tests.windows import row

SHOT = (ns(10), ns(13), "gunshot")


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (0, ""),
        (5, ""),
        (6, None),
        (7, "gunshot"),
        (9, "gunshot"),
        (12, "gunshot"),
        (12.5, None),
        (13.5, None),
        (14, ""),
    ],
)
def test_a_window_shows_a_span_or_not_or_nobody_can_say(start: float, says: str | None) -> None:
    assert dataset.truth_of(ns(start), ns(start + 4), [SHOT]) == says


def test_half_of_something_short_is_enough() -> None:
    assert dataset.truth_of(ns(0), ns(4), [(ns(3.9), ns(4.1), "glass")]) == "glass"


def test_what_a_window_shows_most_of_is_its_label() -> None:
    spans = [SHOT, (ns(12), ns(20), "siren")]
    assert dataset.truth_of(ns(12), ns(16), spans) == "siren"


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [row(second=i, truth=t) for i, t in enumerate(("", "gunshot", None))]
    assert dataset.write(tmp_path / "rows.jsonl", rows) == 3
    assert dataset.read([tmp_path / "rows.jsonl"]) == rows


def test_a_verdict_is_the_answer_of_an_alert() -> None:
    right = row("a1", alert="a1", verdict=True, label="scream", truth=None)
    assert (right.answer(), right.weak) == ("scream", True)
    assert row("a1", alert="a1", verdict=False, label="scream", truth=None).answer() == ""
    assert row("a1", alert="a1", truth=None).answer() is None


Change = Callable[[dict[str, Any]], object]


def put(**given: object) -> Change:
    return lambda line: line.update(given)


def sound(values: np.ndarray) -> Change:
    text = base64.b64encode(values.astype("<f2").tobytes()).decode()
    return lambda line: line["vectors"].update(sound=text)


WITH_NAN = np.zeros(SIZES["sound"])
WITH_NAN[3] = np.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(format="1-old"), "make the file anew"),
        (put(truth="gunshoot"), "did you mean 'gunshot'?"),
        (put(label="party"), "label 'party' is none of gunshot"),
        (put(split="testing"), "split 'testing' is none of train, val, test"),
        (put(start=ns(9)), "is not before end"),
        (put(start=-1), "`$.start`"),
        (put(colour="red"), "colour"),
        (put(alert="a", verdict=True), "its label must be one of"),
        (put(alert="", verdict=False), "a verdict is on an alert, and `alert` is empty"),
        (put(vectors={"smell": ""}), "'smell', which is none of"),
        (put(states={"sound": "asleep"}), "asleep"),
        (put(states={}), "states lacks"),
        (put(vectors={"sound": "!"}), "no base64"),
        (sound(np.zeros(3)), "has 6 bytes, and 1054 are expected"),
        (sound(WITH_NAN), "vectors.sound[3] is nan"),
        (sound(np.full(SIZES["sound"], np.inf)), "vectors.sound[0] is inf"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line(
    tmp_path: Path, change: Change, says: str
) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [row(), row(second=1)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines[1])
    path.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(ConfigError) as caught:
        dataset.read([path])
    assert f"{path}:2: " in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_was_damaged_is_refused_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [row(), row(second=1)])
    path.write_bytes(path.read_bytes()[:-40] + b"\n{\n\xff\xfe\n")
    with pytest.raises(ConfigError) as caught:
        dataset.read([path])
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        f"{path}:{number}" for number in (2, 3, 4)
    ]


def test_a_file_of_another_layout_is_refused_once_with_what_to_do(tmp_path: Path) -> None:
    path, other = tmp_path / "old.jsonl", tmp_path / "bad.jsonl"
    dataset.write(path, [row(second=n, format="1-1d86ab23877f") for n in range(5)])
    other.write_text("{\n")
    with pytest.raises(ConfigError) as caught:
        dataset.read([path, other])
    layout, bad = str(caught.value).splitlines()
    assert layout.startswith(f"{path}:1: format is '1-1d86ab23877f'")
    assert "fusewatch features" in layout
    assert "fusewatch export" in layout
    assert bad.startswith(f"{other}:1: ")


def test_an_alert_has_one_verdict(tmp_path: Path) -> None:
    rows = [
        row("a1", second, truth=None, alert="a1", label="siren", verdict=verdict)
        for second, verdict in enumerate((True, True, False))
    ]
    dataset.write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ConfigError, match=r":3: alert a1 has another verdict here than in .*:1"):
        dataset.read([tmp_path / "rows.jsonl"])


def test_a_scene_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [row(split="train"), row(second=1, split="test")])
    with pytest.raises(ConfigError, match=r":2: scene 'one' is in split 'test', and in 'train'"):
        dataset.read([path])


@pytest.mark.parametrize("times", [1, 2])
def test_a_window_that_comes_twice_is_refused_with_where_it_was(tmp_path: Path, times: int) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [row(second=1), *[row()] * (3 - times)])
    with pytest.raises(ConfigError, match=r"this window of scene 'one' is in .*rows\.jsonl:2 alr"):
        dataset.read([path] * times)


def test_of_very_many_faults_some_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n" * 25)
    with pytest.raises(ConfigError) as caught:
        dataset.read([path])
    lines = str(caught.value).splitlines()
    assert len(lines) == dataset.MAX_FAULTS + 1
    assert lines[-1] == "... and 5 more"


def test_faults_of_several_files_come_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text("{\n")
    with pytest.raises(ConfigError) as caught:
        dataset.read(paths)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        f"{path}:1" for path in paths
    ]


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    dataset.write(path, [row()])

    def broken() -> Iterator[dataset.WindowRow]:
        yield row(second=1)
        msg = "no more"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError):
        dataset.write(path, broken())
    assert dataset.read([path]) == [row()]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        dataset.read([tmp_path])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: No such file"):
        dataset.read([tmp_path / "none.jsonl"])
