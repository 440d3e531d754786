"""Reads files of alerts, as `fusewatch replay --out` and the JSON lines sink write them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.errors import ConfigError
from workers.delivery.alert_document import Time
from workers.delivery.jsonl import LINE_BEGIN
from workers.replay.diff import Incident, flat, incidents
from workers.replay.diff_fields import Fields, ns_of

SUFFIX = ".jsonl"
ROTATED = ".1"  # behind the name of the file with the older lines
TEST = "fusewatch.test"  # the type of an event that tells of no alert
log = logging.getLogger("fusewatch")
HINT = "files of alerts are what `fusewatch replay --out` writes, and alerts.jsonl of a daemon"


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What every version tells of an alert; the rest is compared as it is."""

    alert_id: Annotated[str, Meta(min_length=1)]
    revision: Annotated[int, Meta(ge=0)]
    state: str
    site: str
    labels: tuple[str, ...]
    start: Time
    end: Time | None


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    specversion: str
    type: str
    time: Time
    data: msgspec.Raw


_event = msgspec.json.Decoder(_Event)
_told = msgspec.json.Decoder(_Told)


def read_alerts(path: Path) -> list[Incident]:
    """Returns the incidents in a file; `NAME.1` beside it has its older lines.

    Raises ConfigError with file and line for a line that is no alert, and for two lines of one
    revision that differ.
    An unfinished last line, as a running daemon may leave it, is left out with a warning.
    """
    found: dict[tuple[str, int], tuple[Fields, str]] = {}
    for place, fields in _documents(path):
        key = str(fields["alert_id"]), int(str(fields["revision"]))
        known, where = found.setdefault(key, (fields, place))
        if known != fields:
            msg = (
                f"{place}: revision {key[1]} of alert {key[0]} has another content than in {where}:"
                " several runs are in this file; compare files of one run each"
            )
            raise ConfigError(msg)
    return incidents(fields for fields, _ in found.values())


def files_of(folder: Path) -> dict[str, Path]:
    """Returns the files of alerts in a folder by name; raises ConfigError if there is none."""
    try:
        found = {path.name: path for path in sorted(folder.glob(f"*{SUFFIX}")) if path.is_file()}
        found |= {  # of a file that was moved away, the older part alone may be left
            path.name.removesuffix(ROTATED): path
            for path in sorted(folder.glob(f"*{SUFFIX}{ROTATED}"))
            if path.name.removesuffix(ROTATED) not in found
        }
    except OSError as error:
        msg = f"{folder}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    if not found:
        msg = f"{folder}: holds no file of alerts (*{SUFFIX}); {HINT}"
        raise ConfigError(msg)
    return found


def _documents(path: Path) -> Iterator[tuple[str, Fields]]:
    older = path.with_name(f"{path.name}{ROTATED}")
    for file in (older, path) if older.is_file() else (path,):
        try:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    place = f"{file}:{number}"
                    if line.strip() and (fields := _fields(line, place)) is not None:
                        yield place, fields
        except OSError as error:
            msg = f"{file}: cannot be read: {error.strerror}; {HINT}"
            raise ConfigError(msg) from error


def _fields(line: bytes, place: str) -> Fields | None:
    """The fields of a line; None for a test event and for a line that is not finished."""
    try:
        event = _event.decode(line)
        if event.type == TEST:
            return None
        told = _told.decode(event.data)
        for time in filter(None, (event.time, told.start, told.end)):
            ns_of(time)
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        begins = line.startswith(LINE_BEGIN[: len(line)]) and not line.endswith(b"\n")
        broken = isinstance(error, msgspec.DecodeError | UnicodeDecodeError)
        if begins and broken and not isinstance(error, msgspec.ValidationError):
            log.warning("%s: is cut off, and left out", place)
            return None
        msg = f"{place}: is no alert: {error}; {HINT}"
        raise ConfigError(msg) from error
    return flat(document)
