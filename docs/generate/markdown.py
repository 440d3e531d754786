"""Takes a page of Markdown apart: prose, code, cells of tables, links, anchors."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST_LINE, WIDEST_CELL = 120, 160  # characters
LINK = re.compile(r"(?<!!)\[([^][]*)\]\(([^()\s]+)\)")
IMAGE = re.compile(r"!\[([^]]*)\]\(([^()\s]+)\)")
_CELL = re.compile(r"(?<!\\)\|")


class Line(NamedTuple):
    """One line: its number, its text and what it is: prose, code, table, heading or blank."""

    number: int
    text: str
    kind: str


def lines(text: str) -> Iterator[Line]:
    """The lines of a page; indented code begins after a blank line and outside of lists."""
    fence, code, listed, blank = "", False, False, True
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if fence or stripped.startswith(("```", "~~~")):
            fence = "" if fence and stripped == fence else fence or stripped[:3]
            yield Line(number, line, "code")
            blank = False
            continue
        depth = 8 if listed else 4
        indented = line.startswith(" " * depth)
        code = (indented and (blank or code)) if stripped else code
        if not stripped:
            yield Line(number, line, "blank")
        elif code:
            yield Line(number, line, "code")
        elif stripped.startswith("|"):
            yield Line(number, line, "table")
        elif line.startswith("#"):
            yield Line(number, line, "heading")
        else:
            yield Line(number, line, "prose")
        if stripped and not code:
            listed = bool(re.match(r"\s*([-*]|\d+\.) ", line)) or (listed and line.startswith(" "))
        blank = not stripped


def code_blocks(text: str) -> Iterator[str]:
    """The blocks of code of a page, without their fences and their common indent."""
    block: list[str] = []
    for line in (*lines(text), Line(0, "", "prose")):
        if line.kind == "code":
            block.append("" if line.text.startswith(("```", "~~~")) else line.text)
        elif block and line.kind != "blank":
            yield textwrap.dedent("\n".join(block)).strip("\n") + "\n"
            block = []
        elif block:
            block.append("")


def long_lines(text: str) -> list[int]:
    """Numbers of the lines that are too long; targets of links and images do not count."""
    return [
        line.number
        for line in lines(text)
        if line.kind in ("prose", "heading")
        and not line.text.startswith("<!--")
        and len(LINK.sub(r"[\1]", IMAGE.sub(r"![\1]", line.text))) > LONGEST_LINE
    ]


def wide_cells(text: str) -> list[int]:
    """Numbers of the lines with a cell that is too wide; targets of links do not count."""
    return [
        line.number
        for line in lines(text)
        if line.kind == "table"
        and any(len(cell.strip()) > WIDEST_CELL for cell in _CELL.split(LINK.sub(r"\1", line.text)))
    ]


def prose(text: str) -> str:
    """The sentences of a page: without code, tables and headings; code in a line is one word."""
    parts: list[str] = []
    for line in lines(text):
        if line.kind == "prose" and not line.text.lstrip().startswith(("<", "!")):
            plain = LINK.sub(r"\1", IMAGE.sub("", line.text))
            plain = re.sub(r"`[^`]*`", "code", plain).replace("**", "").replace("*", "")
            item = re.match(r"\s*([-*]|\d+\.) +(.*)", plain)
            parts.append(f"\n{item[2]}" if item else plain)
        else:
            parts.append("\n")
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    """Paragraphs and items, each on a line and with a full stop at its end."""
    found = [" ".join(each.split()) for each in re.split(r"\n+", " ".join(parts))]
    return "\n".join(f"{p}." if p[-1] not in ".!?" else p for p in found if len(p.split()) > 2)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    found: set[str] = set()
    for line in lines(text):
        if line.kind == "heading":
            title = LINK.sub(r"\1", line.text.lstrip("# "))
            slug = re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()
            slug = re.sub(r"[-\s]+", "-", slug)
            number = 1
            made = slug
            while made in found:
                made, number = f"{slug}_{number}", number + 1
            found.add(made)
    return found


def dead_links(page: Path) -> list[str]:
    """The links of a page to files or anchors that are not there."""
    text = page.read_text()
    said = "\n".join(line.text for line in lines(text) if line.kind != "code")
    dead = []
    for pattern in (LINK, IMAGE):
        for _, target in pattern.findall(said):
            name, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = page.parent / name if name else page
            there = file.exists() or file.name == "changelog.md"
            if not there or (
                anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())
            ):
                dead.append(target)
    return dead


def opening(text: str) -> tuple[str, str]:
    """The title of a page, and the kind of what follows it."""
    said = [line for line in lines(text) if line.kind != "blank"]
    if not said or not said[0].text.startswith("# "):
        return "", ""
    follows = said[1] if len(said) > 1 else Line(0, "", "blank")
    listed = re.match(r"\s*([-*]|\d+\.) |[!<]", follows.text)
    return said[0].text[2:], "list" if listed else follows.kind
