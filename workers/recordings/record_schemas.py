"""The JSON Schema of each type of record, which a recording holds so that viewers know its fields.

Viewers read the schemas as descriptions, not as checks: every message is an object.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from pipeline import types
from workers.recordings.entry_messages import ENTRY

_PLACE = {
    "type": "object",
    "description": "Where the record stood on the bus.",
    "properties": {
        "partition": {"type": "integer"},
        "offset": {"type": "integer"},
        "key": {"type": "string"},
        "trace": {"type": "string", "description": "a W3C traceparent"},
        "fault": {"type": "string", "description": "why the bus could not use it"},
        "paths": {
            "type": "array",
            "items": {"type": "string"},
            "description": "the fields that are bytes, here in base64",
        },
        "raw": {
            "type": "array",
            "items": {"type": "string"},
            "description": "in base64: the record as it was, where its fields do not give it back",
        },
    },
}


def schema_name(kind: str) -> str:
    """Returns the name of the schema of a type of record."""
    return f"fusewatch.{kind}"


@functools.cache
def record_schema(kind: str) -> bytes:
    """Returns the JSON Schema of a type of record; of one that is not known, only its place."""
    known = getattr(types, kind, None)
    made: dict[str, Any] = {"title": schema_name(kind), "type": "object", "properties": {}}
    if isinstance(known, type) and issubclass(known, types.Record):
        whole = msgspec.json.schema(known)
        parts = whole.get("$defs", {})
        made |= _plain(parts[kind], parts)
        made["title"] = schema_name(kind)
    made["properties"][ENTRY] = _PLACE
    return msgspec.json.encode(made)


def _plain(node: Any, parts: dict[str, Any]) -> Any:
    """The schema without references, alternatives and limits, which viewers do not know."""
    if "$ref" in node:
        return _plain(parts[node["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in node:
        node = next((each for each in node["anyOf"] if each.get("type") != "null"), {})
        return _plain(node, parts)
    kept = {key: node[key] for key in ("type", "description", "contentEncoding") if key in node}
    if "enum" in node:
        return {"type": "string", **kept}
    if kept.get("type") == "array":
        items = node.get("items") or next(iter(node.get("prefixItems", ())), {"type": "string"})
        kept["items"] = _plain(items, parts)
    if kept.get("type") == "object":
        named = {name: _plain(each, parts) for name, each in node.get("properties", {}).items()}
        kept["properties"] = {name: each for name, each in named.items() if not _is_table(each)}
    return kept


def _is_table(node: dict[str, Any]) -> bool:
    """Whether it is an array of arrays, which Foxglove refuses in a schema."""
    return node.get("type") == "array" and node["items"].get("type") == "array"
