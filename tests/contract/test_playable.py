"""What is wrong of scenes to learn from is told before the long work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from workers.training.datasets import check_scenes

CONFIG = "version: 1\nsites: {office: {cameras: {door: {source: 'device:0'}}}}\n"


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "site.yaml").write_text(CONFIG)

    def make(name: str, site: str = "office", more: str = "truth: []\n") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"site: {site}\nstart: 2026-01-05T22:00:00Z\nduration: 20\n{more}")
        return path

    return make


def test_scenes_of_the_config_with_names_and_truths_of_their_own_are_fine(
    tmp_path: Path, scene: Callable[..., Path]
) -> None:
    check_scenes(tmp_path / "site.yaml", [scene("a.yaml"), scene("b.yaml")])


def test_two_scenes_of_one_name_are_refused(tmp_path: Path, scene: Callable[..., Path]) -> None:
    given = [scene("one/night.yaml"), scene("two/night.yaml")]
    with pytest.raises(ConfigError, match=r"two/night\.yaml: .*one/night\.yaml has the same name"):
        check_scenes(tmp_path / "site.yaml", given)


def test_a_scene_of_another_site_is_refused(tmp_path: Path, scene: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"b\.yaml: site: 'yard' is not in .*site\.yaml"):
        check_scenes(tmp_path / "site.yaml", [scene("a.yaml"), scene("b.yaml", site="yard")])


def test_a_scene_without_truth_is_refused(tmp_path: Path, scene: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml:1: has no `truth`"):
        check_scenes(tmp_path / "site.yaml", [scene("a.yaml", more="")])
