"""Converts records to and from Kafka messages: key, value, three headers. Imports no client.

content-type: application/msgpack
schema-version: 1
traceparent: 00-...            only where the record has a trace
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline import codec
from pipeline.ports import Entry

Headers = Sequence[tuple[str, bytes | None]]

_TYPE = ("content-type", codec.CONTENT_TYPE.encode())
_VERSION = ("schema-version", str(codec.SCHEMA_VERSION).encode())
_TRACE = "traceparent"
_SHOWN = 60  # characters of an unknown header that an error quotes


class Consumed(Protocol):
    """One message as a Kafka client returns it."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


def topic(prefix: str, name: str) -> str:
    """Returns the brokers' name of a topic."""
    return f"{prefix}.{name}"


def group(prefix: str, name: str) -> str:
    """Returns the brokers' name of a consumer group."""
    return f"{prefix}-{name}"


def headers(trace: str) -> list[tuple[str, bytes]]:
    """Returns the headers of a record to publish."""
    return [_TYPE, _VERSION, (_TRACE, trace.encode())] if trace else [_TYPE, _VERSION]


def entry(partition: int, record: Consumed) -> Entry:
    """Returns the entry of a consumed message; a defect is stored in its `fault`, never raised."""
    found = record.headers
    trace, fault = "", ""
    if len(found) == 3 and found[0] == _TYPE and found[1] == _VERSION and found[2][0] == _TRACE:
        trace = _text(found[2][1])
    elif found:  # another producer: any of the headers may be missing
        trace, fault = _read(found)
    key, value = record.key, record.value
    try:
        name = "" if key is None else key.decode()
    except UnicodeDecodeError:
        name, fault = key.decode(errors="backslashreplace") if key else "", "the key is no UTF-8"
    if value is None:
        value, fault = b"", "no value: a tombstone"
    return Entry(partition, record.offset, name, value, trace, fault)


def _read(found: Headers) -> tuple[str, str]:
    trace = fault = ""
    for name, value in found:
        if name == _TRACE:
            trace = _text(value)
        elif name == _TYPE[0] and value != _TYPE[1]:
            fault = f"content type {_shown(value)}, and we read {codec.CONTENT_TYPE}"
        elif name == _VERSION[0] and value != _VERSION[1]:
            fault = (
                f"schema version {_shown(value)}, and this Fusewatch reads {codec.SCHEMA_VERSION}"
            )
    return trace, fault


def _text(value: bytes | None) -> str:
    """Returns a trace as text; characters outside ASCII are dropped (W3C traces are ASCII)."""
    return value.decode("ascii", errors="ignore") if value else ""


def _shown(value: bytes | None) -> str:
    return "(empty)" if not value else repr(value.decode(errors="backslashreplace")[:_SHOWN])
