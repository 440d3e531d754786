"""Measures the docs: long lines, wide cells, reading grade, dead links; before and after.

    python -m benchmarks.docs [BEFORE] [AFTER] [--pages]

BEFORE and AFTER are folders or revisions of git; AFTER is this folder if it is left out. It needs
the extra `docs`. The grade is that of Flesch and Kincaid (1975): years of school that a reader
needs. Code and tables do not count for it.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import textstat

from docs.generate import markdown

HEAD = """\
| tree | pages | words | grade | words/sentence | lines > 120, in prose | cells > 160 | dead links |
|---|---|---|---|---|---|---|---|"""


class Measured(NamedTuple):
    """What was counted in a page or in all pages."""

    words: int
    grade: float
    sentence: float  # words
    raw_long: int  # lines over 120 characters, of every kind
    long: int  # the same outside code and tables
    wide: int
    dead: int


def pages(root: Path) -> dict[str, Path]:
    """The pages of a tree by name; the changelog tells of things as they were."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    return {str(p.relative_to(root)): p for p in sorted(found) if p.name != "CHANGELOG.md"}


def measure(paths: list[Path]) -> Measured:
    """The figures of some pages together."""
    texts = [path.read_text() for path in paths]
    said = "\n".join(markdown.prose(text) for text in texts)
    words = len(said.split())
    return Measured(
        words=words,
        grade=textstat.flesch_kincaid_grade(said) if words else 0.0,
        sentence=words / max(1, textstat.sentence_count(said)),
        raw_long=sum(len(line) > markdown.LONGEST_LINE for t in texts for line in t.splitlines()),
        long=sum(len(markdown.long_lines(text)) for text in texts),
        wide=sum(len(markdown.wide_cells(text)) for text in texts),
        dead=sum(len(markdown.dead_links(path)) for path in paths),
    )


def tree(name: str, folder: Path) -> Path:
    """The folder of that name, or the files of that revision, unpacked into `folder`."""
    if Path(name).is_dir():
        return Path(name)
    packed = subprocess.run(["git", "archive", name], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(folder, filter="data")
    return folder


def main() -> None:
    """Prints a table of the whole, and with --pages one of each page."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("trees", nargs="*", default=["."])
    ask.add_argument("--pages", action="store_true")
    given = ask.parse_args()
    print(HEAD)
    for name in given.trees:
        with tempfile.TemporaryDirectory() as folder:
            found = pages(tree(name, Path(folder)))
            rows = {name: list(found.values())}
            if given.pages:
                rows |= {page: [path] for page, path in found.items()}
            for title, paths in rows.items():
                m = measure(paths)
                print(
                    f"| {title} | {len(paths)} | {m.words} | {m.grade:.1f} | {m.sentence:.1f}"
                    f" | {m.raw_long}, {m.long} | {m.wide} | {m.dead} |"
                )


if __name__ == "__main__":
    main()
