"""A record of ours as Kafka carries it: key, value, three headers. Imports no client.

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
_SHOWN = 60  # characters of a strange header that an error repeats


class Consumed(Protocol):
    """What a client gives for one record."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


def topic(prefix: str, name: str) -> str:
    """What the brokers call a topic of ours."""
    return f"{prefix}.{name}"


def group(prefix: str, name: str) -> str:
    """What the brokers call a group of ours."""
    return f"{prefix}-{name}"


def headers(trace: str) -> list[tuple[str, bytes]]:
    """The headers of a record that is published."""
    return [_TYPE, _VERSION, (_TRACE, trace.encode())] if trace else [_TYPE, _VERSION]


def entry(partition: int, record: Consumed) -> Entry:
    """The entry in a consumed record; what is wrong with it is its `fault`, never an exception."""
    found = record.headers
    trace, fault = "", ""
    if len(found) == 3 and found[0] == _TYPE and found[1] == _VERSION and found[2][0] == _TRACE:
        trace = _text(found[2][1])
    elif found:  # another producer's, or none: it may have left out any of them
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
    """A trace that is not ASCII is none of W3C's."""
    return value.decode("ascii", errors="ignore") if value else ""


def _shown(value: bytes | None) -> str:
    return "(empty)" if not value else repr(value.decode(errors="backslashreplace")[:_SHOWN])
