"""What a head is rehearsed with: as many labelled windows as ordinary ones, no scene twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.fusion.features import SIZES
from models.fusion.labels import LABELS
from models.fusion.learned_head import SHIPPED_FOLDER
from models.training import dataset, rehearsal
from pipeline.errors import ConfigError
from tests.windows import row

SOUND = {"sound": np.zeros(SIZES["sound"], np.float32)}


def rows(prefix: str, labels: int) -> list[dataset.WindowRow]:
    """Scenes of three windows: 40 of each of so many labels, 200 ordinary ones, in each split."""
    return [
        row(f"{prefix}-{split}-{label}-{scene}", second, truth=label, split=split, vectors=SOUND)
        for split in ("train", "val", "test")
        for label, scenes in (*((name, 40) for name in LABELS[:labels]), ("", 200))
        for scene in range(scenes)
        for second in range(3)
    ]


def test_each_label_is_there_and_as_many_ordinary_windows() -> None:
    found = Counter((r.split, r.truth) for r in rehearsal.select_windows([rows("a", 7)], seed=1))
    wanted = {(split, name): n for split, n in rehearsal.WINDOWS_A_LABEL.items() for name in LABELS}
    assert found == wanted | {(split, ""): 7 * n for split, n in rehearsal.WINDOWS_A_LABEL.items()}


def test_no_scene_is_there_twice_and_sources_take_turns() -> None:
    kept = rehearsal.select_windows([rows("a", 7), rows("b", 7)], seed=1)
    assert len({r.scene for r in kept}) == len(kept)
    assert Counter(r.scene[4] for r in kept) == {"a": len(kept) // 2, "b": len(kept) // 2}


def test_nothing_tells_in_which_folder_a_clip_lay() -> None:
    (first, *_) = rehearsal.select_windows([rows("/home/somebody/clips/", 7)], seed=1)
    assert first.scene.startswith("000 ")
    assert "/" not in first.scene


def test_one_source_gives_what_the_other_lacks() -> None:
    kept = rehearsal.select_windows([rows("a", 1), rows("b", 7)], seed=1)
    assert {r.truth for r in kept} == {*LABELS, ""}


def test_the_same_rows_and_seed_are_the_same_file(tmp_path: Path) -> None:
    given = rows("a", 7)
    for name, seed, order in (("one", 1, given), ("two", 1, given[::-1]), ("other", 2, given)):
        (tmp_path / name).mkdir()
        dataset.write(
            tmp_path / name / rehearsal.REHEARSAL_FILE, rehearsal.select_windows([order], seed)
        )
    one, two, other = (
        (tmp_path / name / rehearsal.REHEARSAL_FILE).read_bytes()
        for name in ("one", "two", "other")
    )
    assert one == two != other


def test_a_head_may_have_none(tmp_path: Path) -> None:
    assert rehearsal.read(tmp_path) == []


@pytest.mark.parametrize("harm", ["cut", "plain", "flipped"])
def test_a_damaged_file_is_told_by_name(tmp_path: Path, harm: str) -> None:
    file = tmp_path / rehearsal.REHEARSAL_FILE
    dataset.write(file, rehearsal.select_windows([rows("a", 7)], seed=1))
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(
        {
            "cut": whole[:half],
            "plain": b'{"scene": 1}\n',
            "flipped": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
        }[harm]
    )
    with pytest.raises(ConfigError, match=r"rehearsal\.jsonl\.gz"):
        rehearsal.read(tmp_path)


def test_the_shipped_head_has_windows_of_each_label_and_as_many_ordinary_ones() -> None:
    found = Counter((r.split, r.truth) for r in rehearsal.read(SHIPPED_FOLDER))
    assert all(found["train", label] for label in LABELS)
    for split in rehearsal.WINDOWS_A_LABEL:
        assert found[split, ""] == sum(found[split, label] for label in LABELS) > 0
