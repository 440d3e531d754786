"""The pages and figures that are made of the code are as the code has them, and lack nothing."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
import pytest

from docs.generate import alert_page, config_page, metrics_page, records_page
from docs.generate.everything import everything
from docs.generate.fields import fields
from docs.generate.schema_files import structs_in
from pipeline.topics import ALL_TOPICS
from workers.capture.report_api import ROUTES
from workers.config.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[2]
MADE = everything()
SETTINGS = [section.cls for section in config_page.SECTIONS] + [*config_page.rule_classes()]


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_of_the_code_is_not_stale(name: str) -> None:
    path = ROOT / name
    text = path.read_text() if path.is_file() else ""
    assert text == MADE[name], f"{name} is stale: run make reference"


def test_every_figure_belongs_to_a_generator() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/figures").glob("*.svg")}
    assert there == {name for name in MADE if name.endswith(".svg")}


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_every_setting_says_what_it_is(cls: type) -> None:
    assert [row.name for row in fields(cls) if not row.about] == []


def test_every_settings_type_has_a_section() -> None:
    base = msgspec.inspect.type_info(config_page.schema.Config)
    assert {each.__name__ for each in structs_in(base)} == {cls.__name__ for cls in SETTINGS}


@pytest.mark.parametrize("section", config_page.SECTIONS, ids=lambda each: each.cls.__name__)
def test_every_example_of_a_setting_is_right(section: config_page.Section, tmp_path: Path) -> None:
    whole = _yaml(section.example, tmp_path)
    given: Any = reduce(lambda value, key: value[key], section.way, whole)
    msgspec.convert(given, section.cls)


@pytest.mark.parametrize("cls", config_page.rule_classes(), ids=lambda cls: cls.__name__)
def test_every_example_of_a_rule_is_right(cls: type, tmp_path: Path) -> None:
    example = config_page.RULES[str(cls.__struct_config__.tag)]
    (given,) = _yaml(f"rules:\n  - {example}\n", tmp_path)["rules"]
    msgspec.convert(given, cls)


@pytest.mark.parametrize("cls", records_page.record_types(), ids=lambda cls: cls.__name__)
def test_every_field_of_a_record_says_what_it_is(cls: type) -> None:
    assert [row[0] for row in records_page.rows(cls) if not row[3]] == []


@pytest.mark.parametrize("section", alert_page.SECTIONS, ids=lambda each: each.title)
def test_every_field_of_an_alert_says_what_it_is(section: alert_page.Section) -> None:
    assert [row[0] for row in alert_page.rows(section.cls) if not row[2]] == []


def test_every_metric_that_the_code_counts_is_explained() -> None:
    assert metrics_page.emitted() == metrics_page.documented()


def test_every_route_of_the_endpoint_has_a_section() -> None:
    page = (ROOT / "docs/reference/http.md").read_text()
    assert set(re.findall(r"^## `(\w+ /\S*)`", page, re.M)) == {
        f"{method} {path}" for path, methods in ROUTES.items() for method in methods
    }


def test_every_topic_has_a_row() -> None:
    page = (ROOT / "docs/reference/topics.md").read_text()
    assert [topic for topic in ALL_TOPICS if f"`PREFIX.{topic}`" not in page] == []


def _yaml(text: str, folder: Path) -> Any:
    file = folder / "example.yaml"
    file.write_text(text)
    return read_yaml(file)[0]
