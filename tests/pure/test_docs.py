"""The docs and docstrings name files that exist, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
SOURCES = [p for f in ("pipeline", "models", "workers", "tests", "benchmarks")
           for p in (ROOT / f).rglob("*.py")]  # fmt: skip
FOLDERS = "pipeline|models|workers|tests|benchmarks|deploy|docs"
FILE = re.compile(rf"\b(?:{FOLDERS})/[\w./-]+\.(?:py|md|sh|tsv)")
NAME = re.compile(rf"\b((?:{FOLDERS})/[\w./-]+\.py): (\w+)[.\w]*`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    if page.name == "CHANGELOG.md":  # it tells of files as they were
        return
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_name_that_is_said_to_be_in_a_file_is_there(page: Path) -> None:
    named = NAME.findall(page.read_text())
    assert [n for file, n in named if not re.search(rf"\b{n}\b", (ROOT / file).read_text())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
