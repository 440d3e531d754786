"""Every example loads on a bare machine, fits its scenes, and stays quiet on ordinary words."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from models.language.keywords import Keywords
from models.language.text import TextEncoder
from pipeline.config import rule_kinds, schema
from pipeline.config.fields import SOUNDS, Settings
from pipeline.config.rule_kinds import KeywordRule, PhraseRule, SoundRule
from pipeline.config.schema import Config, KafkaBus
from workers.config.loader import load
from workers.config.yaml_reader import read_yaml
from workers.replay.scene_file import load_scene

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))

# What people write when nothing is wrong: invented, to keep the examples from alarming on it.
ORDINARY = (
    "all quiet on my round, nothing to report",
    "the delivery has arrived",
    "a customer asked about the opening hours, can I help her",
    "the fire drill is over, everybody is back",
    "the floor is wet near the entrance",
    "someone parked in the wrong place",
    "the guard on duty is Tom",
    "a police parade comes by at noon",
    "a musician plays the guitar and people are dancing",
    "the coffee machine is broken again",
    "a customer returned a pair of shoes",
    "the lights in the hallway were left on",
)


def example(name: str) -> Config:
    return load(FOLDER / f"{name}.yaml", {})


def test_the_promised_examples_are_there() -> None:
    assert [path.stem for path in EXAMPLES] == [*("kafka", "office", "plaza", "retail", "webcam")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_loads_with_no_variable_set(path: Path) -> None:
    config = load(path, {})
    assert config.sites
    assert all(site.rules for site in config.sites.values())


def test_over_brokers_the_sites_are_what_they_are_alone() -> None:
    together = example("kafka")
    assert together.bus == KafkaBus(brokers=("kafka-1:9093", "kafka-2:9093", "kafka-3:9093"))
    assert together.sites == {name: example(name).sites[name] for name in together.sites}
    assert set(together.sites) == {"office", "retail", "plaza"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_only_a_sound_rule_speaks_of_sounds(path: Path) -> None:
    for site in load(path, {}).sites.values():
        for rule in site.rules:
            if isinstance(rule, SoundRule):
                assert set(rule.labels) == set(SOUNDS)
            else:
                assert rule.label not in SOUNDS


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_its_words_are_not_in_ordinary_speech(path: Path, media: Path) -> None:
    with (media / "speech" / "lj_metadata.csv").open(newline="") as file:
        read = [row[-1] for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)]
    assert len(read) > 2
    for site in load(path, {}).sites.values():
        for rule in site.rules:
            if isinstance(rule, KeywordRule):
                words = Keywords(rule.words)
                assert [text for text in (*read, *ORDINARY) if words(text)] == []


def test_a_call_for_help_is_heard_in_every_example() -> None:
    for path in EXAMPLES:
        for site in load(path, {}).sites.values():
            rules = [rule for rule in site.rules if isinstance(rule, KeywordRule)]
            assert any(Keywords(rule.words)("Oh no! Call the police, now!") for rule in rules)


@pytest.mark.parametrize("name", ["office", "retail", "plaza"])
def test_it_has_every_source_of_its_scenes(name: str, scenes: Path) -> None:
    site = example(name).sites[name]
    paths = [path for path in scenes.glob("*.yaml") if path.stem.startswith(f"{name}-")]
    assert paths
    for path in paths:
        scene, _ = read_yaml(path)
        assert scene["site"] == name
        assert set(scene["cameras"]) <= set(site.cameras)
        assert set(scene.get("microphones", ())) <= set(site.microphones)
        assert load_scene(path).site == name


def test_a_closed_office_forbids_what_open_sites_allow() -> None:
    labels = {
        name: {getattr(rule, "label", "") for rule in example(name).sites[name].rules}
        for name in ("office", "retail", "plaza")
    }
    assert "intrusion" in labels["office"]
    assert "intrusion" not in labels["retail"] | labels["plaza"]


@pytest.mark.parametrize("name", ["office", "retail", "plaza"])
def test_a_report_of_a_quiet_round_is_far_from_every_phrase(name: str, weights: Path) -> None:
    encode = TextEncoder(weights / "all-MiniLM-L6-v2-int8")
    ordinary = encode(ORDINARY)
    for rule in example(name).sites[name].rules:
        if isinstance(rule, PhraseRule):
            near = max(float(a @ b) for a in encode(rule.phrases) for b in ordinary)
            assert near < rule.min_similarity - 0.05


def test_the_documentation_names_every_setting() -> None:
    told = (FOLDER.parents[1] / "docs/reference/config.md").read_text()
    words = set(re.findall(r"[a-z_]+", told))
    known = {
        field
        for kind in {**vars(schema), **vars(rule_kinds)}.values()
        if isinstance(kind, type) and issubclass(kind, Settings)
        for field in kind.__struct_fields__
    }
    assert known - words == set()
