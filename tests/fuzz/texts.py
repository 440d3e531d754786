"""Mutated configs and scene files: each loads, or its errors name the file and the line."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests import reels
from tests.config_mistakes import MISTAKES, RIGHT
from tests.fuzz.mutations import WORDS, rewritten
from workers.config.findings import FaultyFile
from workers.config.loader import examine
from workers.replay.scene_file import load_scene

ENV = {"FUSEWATCH_WEIGHTS": "/nonexistent", "A": "", "HOME": "/nonexistent"}
SCENE = """\
site: office
start: 2026-01-05T22:00:00Z
duration: 20
cameras:
  desk: {file: film.mkv, fps: 5, at: 1, loop: true, black: [[2, 3]], dark: [[4, 5]]}
microphones:
  room:
    - {file: sound.wav, at: 0.5, gain_db: -6}
    - {file: "sound.wav", track: 1}
reports:
  - {at: 3, author: guard-1, text: "a man at the fence"}
truth: {labels: [intrusion]}
"""


def told(path: Path, error: FaultyFile) -> None:
    """Asserts that an error of a file names the file and a line of it."""
    lines = path.read_bytes().count(b"\n") + path.read_bytes().count(b"\r") + 1
    assert error.findings
    for found in error.findings:
        assert found.file == str(path)
        assert 1 <= found.line <= lines + 1, (found.line, lines)
        assert found.message
    for line in str(error).split("\n"):
        assert re.match(re.escape(str(path)) + r":(\d+:)? ", line), line


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**40, 10**30, 1e300, 0.5, -0.5, "", "x", " ", [], {}, [[]], [{}],
    {"": 1}, "${", "0,0, 1,0, 1,1", *WORDS,
)  # fmt: skip


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (mapping or list, key or index) for each value below a node."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def reshaped(dice: random.Random, data: bytes) -> bytes:
    """The YAML `data` with one to three of its values or keys changed; it stays YAML."""
    tree = yaml.safe_load(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        inside, key = dice.choice(list(_places(tree)) or [({"": 0}, "")])
        other = dice.choice(list(_places(tree)) or [({"": 0}, "")])
        match dice.randrange(6):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[dice.choice((str(other[1]), *WORDS))] = inside.pop(key)
            case 2:
                inside[key] = copy.deepcopy(other[0][other[1]])
            case 3 if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[key]))
            case _:
                inside[key] = copy.deepcopy(dice.choice(VALUES))
    made: bytes = yaml.safe_dump(tree, encoding="utf-8", sort_keys=False)
    return made


class Configs:
    """A case is one config, read as `fusewatch check` reads it."""

    name, target, batch, patience = "configs", 2000, 50, 30.0
    files = True

    def __init__(self, folder: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        examples = sorted((root / "deploy/examples").glob("*.yaml"))
        self._folder = folder
        self._seeds = [RIGHT.encode()] * 5 + [path.read_bytes() for path in examples]
        self._others = [*self._seeds, *(mistake.data for mistake in MISTAKES)]

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Checks one mutated config."""
        data = dice.choice(self._seeds if dice.random() < 0.8 else self._others)
        path = self._folder / f"{number}-site.yaml"
        if dice.random() < 0.6:
            path.write_bytes(reshaped(dice, dice.choice(self._seeds)))
        else:
            path.write_bytes(rewritten(dice, data, self._others))
        try:
            found = examine(path, ENV, salvage=dice.random() < 0.3)
            if found.problems:
                found.settings()
        except FaultyFile as error:
            told(path, error)
        path.unlink()


class Scenes:
    """A case is one scene file with small media beside it."""

    name, target, batch, patience = "scenes", 500, 20, 30.0
    files = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        reels.film(folder / "film.mkv", [(k / 5, k) for k in range(5)])
        reels.sound(folder / "sound.wav", [0.1] * 1600)

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Loads one mutated scene."""
        path = self._folder / f"{number}-scene.yaml"
        path.write_bytes(rewritten(dice, SCENE.encode(), [RIGHT.encode()]))
        try:
            assert load_scene(path).duration > 0
        except FaultyFile as error:
            told(path, error)
        path.unlink()
