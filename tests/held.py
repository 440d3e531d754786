"""Holds what the tests make against the schemas: each document of an event, and each config.

A document must be as the schema of today says, with no field and no word that it does not name, and
as the schema of version 0.1.0 says, which receivers of before may check with. A config that the
loader takes must be right by the schema of configs. `tests/conftest.py` asks after every test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from pipeline.config import checks
from pipeline.config.problem import Problem
from pipeline.config.schema import Config
from workers.config import adapters, loader
from workers.delivery import cloudevent
from workers.delivery.alert_document import AlertEvent
from workers.delivery.receiver import Receiver
from workers.schemas.shipped import shipped

FOLDER = Path(__file__).parent / "schemas"


def closed(schema: Any) -> Any:
    """The schema without room for the fields and words of later versions."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(each) for key, each in schema.items()}
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    match made.get("anyOf"):
        case [{"enum": list(words)}, {"pattern": _}]:
            made["anyOf"] = [{"enum": words}]
    return made


def checking(schema: Any) -> Any:
    """A validator of a schema, also of its formats."""
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def _test_schema() -> Any:
    components = json.loads(shipped("asyncapi"))["components"]
    return {"components": components, "$ref": "#/components/schemas/TestEvent"}


ALERT = json.loads(shipped("alert"))
BEFORE = json.loads((FOLDER / "alert-0.1.0.schema.json").read_text())
strict, before, test_event = (
    checking(schema) for schema in (closed(ALERT), BEFORE, closed(_test_schema()))
)
config = checking(json.loads(shipped("config")))


def faults_of(document: Any) -> Iterator[str]:
    """What is wrong with the document of an event."""
    is_test = document.get("type") == "fusewatch.test"
    for validator in (test_event,) if is_test else (strict, before):
        if not validator.is_valid(document):
            for error in validator.iter_errors(document):
                yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"


def documents_in(folder: Path) -> list[str]:
    """What is wrong with the alerts that were written into a folder."""
    faults = []
    for path in folder.rglob("alerts.jsonl*"):
        if path.name not in ("alerts.jsonl", "alerts.jsonl.1"):
            continue  # set aside, because it is damaged
        for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
            if line.startswith(b'{"specversion"'):
                told = faults_of(msgspec.json.decode(line))
                faults += [f"{path.name}: {fault}" for fault in told]
    return faults


def problems_of(settings: Config) -> list[Problem]:
    """What the loader finds wrong with a config whose shape is right."""
    return [
        *checks.problems(settings),
        *adapters.problems(settings.models),
        *loader._addresses(settings, {}, Path()),
    ]


class Holding:
    """Looks at what `cloudevent` encodes, a `Receiver` verifies and `loader` takes.

    `faults` has what was wrong.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.documents = self.configs = 0
        self._encoder = msgspec.json.Encoder()
        self._convert = loader.convert
        self._verified = Receiver._verified

    def encode(self, document: AlertEvent) -> bytes:
        """As `msgspec.json.Encoder.encode`."""
        body = self._encoder.encode(document)
        self.documents += 1
        self.faults += faults_of(msgspec.json.decode(body))
        return body

    def verified(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> Any:
        """As `Receiver._verified`: what came over the network, also from other processes."""
        event = self._verified(receiver, headers, body)
        if event is not None and str(event.get("type")).startswith("fusewatch."):
            self.documents += 1
            self.faults += faults_of(event)
        return event

    def convert(self, data: Any, wanted: type[Any]) -> Any:
        """As `loader.convert`."""
        found = self._convert(data, wanted)
        if wanted is Config and not found[1]:
            self.configs += 1
            if not config.is_valid(data) and not problems_of(found[0]):
                self.faults += [
                    f"a config that loads: {error}" for error in config.iter_errors(data)
                ]
        return found

    def install(self, patch: Any) -> None:
        """Puts itself in the place of the encoder, the receiver's check and the loader's."""

        def verified(receiver: Receiver, headers: Mapping[str, str], body: bytes) -> Any:
            return self.verified(receiver, headers, body)

        patch.setattr(Receiver, "_verified", verified)
        patch.setattr(cloudevent, "_encoder", self)
        patch.setattr(loader, "convert", self.convert)
