"""The docs name files that exist; links and anchors lead somewhere; pages are easy on the eye."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import markdown
from workers.config.loader import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
SITE = [*ROOT.glob("docs/**/*.md")]
SOURCES = [p for f in ("pipeline", "models", "workers", "tests", "benchmarks")
           for p in (ROOT / f).rglob("*.py")]  # fmt: skip
FOLDERS = "pipeline|models|workers|tests|benchmarks|deploy|docs"
FILE = re.compile(rf"\b(?:{FOLDERS})/[\w./-]+\.(?:py|md|sh|tsv)")
NAME = re.compile(rf"\b((?:{FOLDERS})/[\w./-]+\.py): (\w+)[.\w]*`")
PAPER = re.compile(r"the design,\s+section|\bdesign\.md")


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
    assert markdown.dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_line_and_no_cell_is_too_wide(page: Path) -> None:
    text = "" if page.name == "CHANGELOG.md" else page.read_text()
    lines, cells = markdown.long_lines(text), markdown.wide_cells(text)
    assert (lines, cells) == ([], []), "lines of more than 120, cells of more than 160 characters"


@pytest.mark.parametrize("page", SITE, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_page_says_first_what_it_is_for(page: Path) -> None:
    title, follows = markdown.opening(page.read_text())
    assert title, "a page begins with its title: `# Title`"
    assert follows == "prose", "after the title comes a paragraph that says what the page is for"


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_refers_to_a_paper_that_readers_do_not_have(page: Path) -> None:
    assert PAPER.findall(page.read_text()) == []


@pytest.mark.parametrize("page", SITE, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_whole_config_in_a_page_is_right(page: Path, tmp_path: Path) -> None:
    for number, config in enumerate(markdown.code_blocks(page.read_text())):
        if config.startswith("version: 1\n"):
            file = tmp_path / f"{number}.yaml"
            file.write_text(config)
            load(file)
