"""Hooks of MkDocs: folders in the navigation, and the pages that lie beside the README.

https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"changelog.md": "CHANGELOG.md"}  # page -> file below the root


def on_files(files: Files, /, config: MkDocsConfig) -> Files:
    """Adds the pages from outside `docs`, and lists the pages of folders in the navigation."""
    for page, name in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    named = set(_named(config.nav or []))
    paths = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = list(_listed(config.nav or [], [path for path in paths if path not in named]))
    return files


def _named(nav: list[Any]) -> Iterator[str]:
    for item in nav:
        for value in item.values() if isinstance(item, dict) else (item,):
            yield from _named(value) if isinstance(value, list) else (value,)


def _listed(nav: list[Any], others: list[str]) -> Iterator[Any]:
    for item in nav:
        if isinstance(item, dict):
            for title, value in item.items():
                inside = list(_listed(value, others)) if isinstance(value, list) else value
                if inside:  # a folder without pages has no entry
                    yield {title: inside}
        elif item.endswith("/"):
            yield from (path for path in others if path.startswith(item))
        else:
            yield item
