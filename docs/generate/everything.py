"""All generated files: their paths below the root, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from docs.generate import (
    cli_page,
    config_page,
    figures,
    labels_page,
    metrics_page,
    records_page,
)

ROOT = Path(__file__).resolve().parents[2]


def everything() -> Mapping[str, str]:
    """Path -> text of every generated file."""
    pages = {
        "docs/reference/config.md": config_page.page(),
        "docs/reference/cli.md": cli_page.page(),
        "docs/reference/records.md": records_page.page(),
        "docs/reference/labels.md": labels_page.page(),
        "docs/reference/metrics.md": metrics_page.page(),
    }
    return pages | {f"docs/figures/{name}.svg": svg for name, svg in figures.every().items()}
