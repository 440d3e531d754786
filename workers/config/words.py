"""The words that a config may hold, for a person to choose from (`fusewatch check --words`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from models.registry import REGISTRY
from pipeline.config.fields import LANGUAGES, OBJECTS, PROVIDERS, SOUNDS
from pipeline.config.rule_kinds import WORD_MODALITIES, Rule
from pipeline.config.schedule import DAYS
from pipeline.types import SEVERITIES
from workers.config.adapters import ADAPTERS
from workers.config.source_address import SCHEMES


def words() -> Iterator[tuple[str, Sequence[str]]]:
    """Yields each kind of word, and the words of that kind."""
    yield f"objects ({len(OBJECTS)} classes of COCO)", OBJECTS
    yield "sounds", SOUNDS
    yield "languages of keywords", [f"{code} ({name})" for code, name in LANGUAGES.items()]
    yield "what keywords and phrases are taken from (`on`)", WORD_MODALITIES
    yield "rules", [str(kind.__struct_config__.tag) for kind in get_args(Rule)]
    yield "severities", SEVERITIES
    yield "days of a schedule", DAYS
    yield "addresses begin with", [f"{scheme}:" for scheme in SCHEMES]
    for part, kinds in ADAPTERS.items():
        yield f"models.{part}.kind", list(kinds)
    yield "registered weights", list(REGISTRY)
    yield "providers", list(PROVIDERS)
