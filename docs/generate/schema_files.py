"""The schemas in workers/schemas/: made of the types of the config and of the documents.

What msgspec makes of the types is JSON Schema 2020-12. To it come: the comments of the fields as
descriptions, patterns that every engine reads, lists of words where only those are right, and the
short forms that the loader takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from docs.generate.fields import UNITS, about, comment, sentence
from pipeline.config import rule_kinds, schema
from pipeline.config.fields import LANGUAGES, OBJECTS, PROVIDERS, SOUNDS
from workers.config.adapters import ADAPTERS
from workers.config.loader import SHORT
from workers.delivery.alert_document import AlertEvent

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_WORDS = re.compile(r"\^\(([\w|-]+)\)\\Z")
_EMPTY: tuple[object, ...] = ("", None, (), [], {})
_LOGIN = {  # of a camera or microphone that is given as a mapping
    "url": "the address, without user and password",
    "username": "the user's name; a secret may stand in it as `${NAME}`",
    "password": "`${NAME}`, or `file:PATH`",
}


def text(made: Schema) -> str:
    """The text of a file."""
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def alert_schema() -> Schema:
    """The JSON Schema of an alert; unknown fields are allowed, as later versions add some."""
    made = definitions(AlertEvent, "#/$defs/{name}")
    alert = made.pop("AlertEvent")
    alert["title"] = "Fusewatch alert"
    return {"$schema": DIALECT, **alert, "$defs": made}


def config_schema() -> Schema:
    """The JSON Schema of a config file: what an editor can check and complete."""
    made = definitions(schema.Config, "#/$defs/{name}")
    for name, each in made.items():
        _known_words(name, each["properties"])
    made["ObjectClass"] = {
        "description": "A class of objects that the detector knows.",
        "enum": list(OBJECTS),
    }
    for cls, field in SHORT.items():
        made[cls.__name__] = _with_short_form(made[cls.__name__], field)
    config = made.pop("Config")
    config["properties"]["sites"]["minProperties"] = 1
    config["title"], config["description"] = "Fusewatch config", "A config file of Fusewatch."
    return {"$schema": DIALECT, **config, "$defs": made}


def definitions(cls: type, template: str) -> dict[str, Schema]:
    """Name -> schema of a Struct and all that it holds; `template` is how they name each other."""
    _, made = msgspec.json.schema_components([cls], ref_template=template)
    structs = {each.__name__: each for each in structs_in(msgspec.inspect.type_info(cls))}
    for name, each in made.items():
        described = _described(each, structs[name])
        made[name] = {**_portable(described), "description": about(structs[name])}
    return made


def structs_in(made: Any) -> set[type]:
    """The structs in a type of `msgspec.inspect`, down to its leaves."""
    found: set[type] = set()
    if isinstance(made, msgspec.inspect.StructType):
        found.add(made.cls)
        parts = [field.type for field in made.fields]
    else:
        names = ("type", "item_type", "value_type")
        parts = [getattr(made, name) for name in names if hasattr(made, name)]
        parts += getattr(made, "types", ())
    for part in parts:
        found |= structs_in(part)
    return found


def _described(made: Schema, cls: type) -> Schema:
    """With the comment of each field as its description."""
    tag = cls.__struct_config__.tag_field
    fields = {
        name: {**each, "description": "The kind." if name == tag else _said(cls, name)}
        for name, each in made["properties"].items()
    }
    return {**made, "properties": fields}


def _said(cls: type, name: str) -> str:
    unit, _, rest = comment(cls, name).partition("; ")
    if unit not in UNITS:
        return f"{sentence(comment(cls, name))}."
    return f"{sentence(rest)}. Unit: {unit}." if rest else f"Unit: {unit}."


def _portable(made: Any) -> Any:
    """Without what only Python's patterns and OpenAPI know, and without defaults that say nothing.

    A pattern that lists words becomes the list: editors complete it.
    """
    if isinstance(made, list):
        return [_portable(each) for each in made]
    if not isinstance(made, dict):
        return made
    left: Schema = {}
    for key, value in made.items():
        if key == "pattern" and (words := _WORDS.fullmatch(value)):
            left["enum"] = words[1].split("|")
        elif key == "pattern":
            left[key] = value.replace(r"\Z", "$")
        elif key == "default":
            if value not in _EMPTY and not isinstance(value, dict):
                left[key] = value
        elif key == "properties":
            left[key] = {name: _portable(each) for name, each in value.items()}
        elif key == "discriminator":  # tells which kinds there are, where none of them fits
            tag, words = value["propertyName"], list(value["mapping"])
            left.update(type="object", required=[tag], properties={tag: {"enum": words}})
        elif (key, value) != ("required", []):
            left[key] = _portable(value)
    return left


def _known_words(name: str, fields: Mapping[str, Schema]) -> None:
    """Adds the lists of words that the checks of the config know."""
    addresses = {"Camera": ("source",), "Microphone": ("source",), "Streams": ("detect", "record")}
    for field in addresses.get(name, ()):
        fields[field]["anyOf"][1] = {
            "type": "object",
            "properties": {
                key: {"type": "string", "description": f"{sentence(said)}."}
                for key, said in _LOGIN.items()
            },
            "required": ["url"],
            "additionalProperties": False,
        }
    if name == "Models":
        for part, kinds in ADAPTERS.items():
            kind = {"type": "object", "properties": {"kind": {"enum": list(kinds)}}}
            fields[part] = {"allOf": [{"$ref": fields[part].pop("$ref")}, kind], **fields[part]}
    if name == "SoundRule":
        fields["labels"].update(propertyNames={"enum": list(SOUNDS)}, minProperties=1)
    if name == "KeywordRule":
        fields["words"].update(propertyNames={"enum": list(LANGUAGES)}, minProperties=1)
    for key, items in (
        ("objects", {"$ref": "#/$defs/ObjectClass"}),
        ("on", {"enum": list(rule_kinds.WORD_MODALITIES)}),
        ("providers", {"enum": list(PROVIDERS)}),
    ):
        if key in fields:
            fields[key]["items"] = items


def _with_short_form(made: Schema, field: str) -> Schema:
    """The schema of a mapping, or of one word for `field` of it."""
    word = made["properties"][field]
    return {"title": made["title"], "description": made["description"], "anyOf": [word, made]}
