"""Reads the schemas that ship with Fusewatch."""

from __future__ import annotations

from importlib.resources import files

SCHEMAS = {  # name -> its file in this folder
    "alert": "alert.schema.json",
    "config": "config.schema.json",
    "asyncapi": "webhooks.asyncapi.json",
}


def shipped(name: str) -> str:
    """Returns the text of a schema, JSON; raises KeyError for an unknown name."""
    return files(__package__).joinpath(SCHEMAS[name]).read_text("utf-8")
