"""The page docs/reference/alert.md, made of the types in workers/delivery/alert_document.py."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from docs.generate.example_events import alert_example, test_example
from docs.generate.fields import NOTE, about, fields, table, wrapped
from workers.delivery.alert_document import AlertData, AlertEvent, FindingData, TestEvent

HEAD = """\
# Alert

Every field of the document that a webhook or a JSON lines file gets for an alert. [Receive alerts by
webhook](../guides/webhooks.md) explains how it is sent, and what a receiver must do.

The document is a [CloudEvent 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md)
in structured JSON, smaller than 20 kB. A time is RFC 3339 in UTC with nine fractional digits.

Later versions may add fields, and words to `kind` and `changed`. No field is removed, and none changes its meaning. So
a receiver ignores fields that it does not know.

`fusewatch schema alert` prints the JSON Schema of the document. `fusewatch schema asyncapi` prints the AsyncAPI
document of the webhooks, with headers and test event.
"""


class Section(NamedTuple):
    """One struct, its title and its place in the document."""

    cls: type
    title: str
    place: str


SECTIONS = (
    Section(AlertEvent, "The event", ""),
    Section(AlertData, "Data", "data"),
    Section(FindingData, "Finding", "data.findings[]"),
    Section(TestEvent, "The test event", ""),
)
_LINKS = {each.cls.__name__: each for each in SECTIONS}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for section in SECTIONS:
        parts.append(_section(section))
        if section.cls is FindingData:
            parts.append(f"## Example\n\n{_json(alert_example())}")
    parts.append(_json(test_example()))
    return "\n".join([*parts, NOTE.format("workers/delivery/alert_document.py")])


def rows(cls: type) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each field."""
    return [(f"`{row.name}`", _linked(row.type), row.about) for row in fields(cls)]


def _section(section: Section) -> str:
    place = f"Where: `{section.place}`\n\n" if section.place else ""
    cells = table(("field", "type", "meaning"), rows(section.cls))
    return f"## {section.title}\n\n{place}{wrapped(about(section.cls))}\n\n{cells}"


def _linked(kind: str) -> str:
    """A type with its links to the sections of this page."""
    for name, section in _LINKS.items():
        anchor = section.title.lower().replace(" ", "-")
        kind = kind.replace(f"[{name}](#{name.lower()})", f"[{section.title.lower()}](#{anchor})")
    return kind.replace("[TestData](#testdata)", "mapping with `message`, text")


def _json(document: object) -> str:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    short = re.sub(r"\[([^][{}]+)\]", lambda list_: f"[{' '.join(list_[1].split())}]", text)
    return f"```json\n{short}\n```\n"
