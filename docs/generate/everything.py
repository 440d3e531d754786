"""All generated files: their paths below the root, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from docs.generate import (
    alert_page,
    asyncapi_file,
    cli_page,
    config_page,
    labels_page,
    metrics_page,
    models_page,
    records_page,
    schema_files,
)
from docs.generate.figures import architecture
from workers.schemas.shipped import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]


def everything() -> Mapping[str, str]:
    """Path -> text of every generated file."""
    pages = {
        "docs/reference/alert.md": alert_page.page(),
        "docs/reference/config.md": config_page.page(),
        "docs/reference/cli.md": cli_page.page(),
        "docs/reference/records.md": records_page.page(),
        "docs/reference/labels.md": labels_page.page(),
        "docs/reference/metrics.md": metrics_page.page(),
        "docs/reference/models.md": models_page.page(),
    }
    made = {
        "alert": schema_files.alert_schema(),
        "config": schema_files.config_schema(),
        "asyncapi": asyncapi_file.asyncapi(),
    }
    schemas = {
        f"workers/schemas/{SCHEMAS[name]}": schema_files.text(each) for name, each in made.items()
    }
    return (
        pages
        | schemas
        | {f"docs/figures/{name}.svg": svg for name, svg in architecture.every().items()}
    )
