"""Training windows as JSON lines, one window per line; a bad line is reported with file and line.

The file has two kinds of lines, in one format. Lines of scenes have the truth of their window
(`truth`: a label, "" for nothing, null where an observer cannot tell, that is within a second of
the start or end of an event). Lines of a running system (`fusewatch export`) belong to an alert; a
person says whether it was right (`verdict`: true or false; null: not reviewed, not used) and, if
necessary, gives its `label`. A true verdict concerns the alert and not each of its windows, so
these are weak labels (`weak`).

Vectors are base64 of little-endian float16, as `models/fusion/features.py` rounds them. A file
whose name ends in .gz is compressed.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Annotated

import msgspec
import numpy as np
from msgspec import Meta

from models.fusion.features import SCHEMA, SIZES, Tokens
from models.fusion.labels import LABELS, MODALITIES, SPLITS
from pipeline.errors import ConfigError
from pipeline.types import SECOND, Presence

TRUTH_COLLAR = SECOND  # ns around the ends of a truth: nobody can place them better
Span = tuple[int, int, str]  # start, end (ns), label
MAX_FAULTS = 20  # limit of bad lines in an error


class OtherLayout(ValueError):
    """A row has the features of another version of Fusewatch, as its whole file then has."""


class WindowRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training window: its origin, its truth, and the features that a head gets."""

    format: str = SCHEMA  # layout of the vectors
    scene: str  # or the alert's id
    site: str
    camera: str = ""  # the name of the video, for leave-one-out
    split: str = "train"
    start: Annotated[int, Meta(ge=0, lt=2**62)]
    end: Annotated[int, Meta(ge=0, lt=2**62)]
    truth: str | None = None
    whole: bool = False  # `truth` is the scene's; only some of its windows show it
    alert: str = ""
    verdict: bool | None = None
    label: str = ""
    states: Mapping[str, Presence]
    vectors: Mapping[str, str]

    @property
    def weak(self) -> bool:
        """Whether the label is that of a scene or alert, and not of this window."""
        return bool(self.answer()) and (self.whole or bool(self.alert))

    def answer(self) -> str | None:
        """Returns the label to learn, "" for nothing, or None if the window is not used."""
        if not self.alert:
            return self.truth
        if self.verdict is None:
            return None
        return self.label if self.verdict else ""

    def tokens(self) -> Tokens:
        """Returns the features for a head; raises ValueError for invalid vectors."""
        return Tokens({m: _vector(m, text) for m, text in self.vectors.items()}, self.states)


def packed(tokens: Tokens) -> dict[str, str]:
    """Encodes the vectors for a line."""
    return {
        modality: base64.b64encode(vector.astype("<f2").tobytes()).decode()
        for modality, vector in tokens.vectors.items()
    }


def _vector(modality: str, text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"vectors.{modality} is no base64 ({error})"
        raise ValueError(msg) from error
    if len(data) != 2 * SIZES[modality]:
        msg = f"vectors.{modality} has {len(data)} bytes, and {2 * SIZES[modality]} are expected"
        raise ValueError(msg)
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(vector).all():
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        msg = f"vectors.{modality}[{at}] is {vector[at]}: only finite numbers can be learned from"
        raise ValueError(msg)
    return vector


def truth_of(start: int, end: int, spans: Sequence[Span]) -> str | None:
    """Returns the truth of the window `[start, end)`: the label of the span with the most overlap.

    Returns None, for unclear, if the window overlaps less than a second of a span (or less than
    half of a short one), or ends within a second of one.
    """
    best, name, near = 0, "", False
    for first, last, label in spans:
        shown = min(end, last) - max(start, first)
        if shown >= min(TRUTH_COLLAR, (last - first) // 2) and shown > best:
            best, name = shown, label
        near = near or shown > -TRUTH_COLLAR
    return name if best else None if near else ""


def write(path: Path, rows: Iterable[WindowRow]) -> int:
    """Writes one line per row and returns the count; replaces the file only when it is complete.

    Raises ConfigError for a folder.
    """
    if path.is_dir():
        msg = f"{path} is a folder: name the file to write"
        raise ConfigError(msg)
    count, partial = 0, path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        out: IO[bytes] = opened.enter_context(partial.open("wb"))
        if path.suffix == ".gz":  # without name and time: the same rows give the same bytes
            out = opened.enter_context(gzip.GzipFile("", "wb", 9, out, mtime=0))
        for row in rows:
            out.write(msgspec.json.encode(row) + b"\n")
            count += 1
    partial.replace(path)
    return count


def read(paths: Sequence[Path]) -> list[WindowRow]:
    """Returns the rows of several files; raises ConfigError with file and line of each bad line."""
    rows: list[WindowRow] = []
    faults: list[str] = []
    splits: dict[str, tuple[str, str]] = {}
    places: dict[tuple[str, int, int], str] = {}
    files: dict[str, Path] = {}
    verdicts: dict[str, tuple[bool | None, str]] = {}
    for path in paths:
        for number, line in _lines(path):
            try:
                row = _row(line)
                known, where = splits.setdefault(row.scene, (row.split, f"{path}:{number}"))
                if row.scene in files and files[row.scene] != path:
                    msg = f"scene {row.scene!r} is in {files[row.scene]}, too: give it another name"
                    raise ValueError(msg)
                files[row.scene] = path
                if known != row.split:
                    msg = (
                        f"scene {row.scene!r} is in split {row.split!r}, and in {known!r} ({where})"
                    )
                    raise ValueError(msg)
                window = row.scene, row.start, row.end
                said = verdicts.setdefault(row.alert, (row.verdict, f"{path}:{number}"))
                if row.alert and said[0] != row.verdict:
                    msg = f"alert {row.alert} has another verdict here than in {said[1]}"
                    raise ValueError(msg)
                if window in places:
                    msg = f"this window of scene {row.scene!r} is in {places[window]} already"
                    raise ValueError(msg)
                places[window] = f"{path}:{number}"
            except OtherLayout as error:
                faults.append(f"{path}:{number}: {error}")
                break
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
                faults.append(f"{path}:{number}: {error}")
                continue
            rows.append(row)
    if faults:
        more = f"\n... and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise ConfigError("\n".join(faults[:MAX_FAULTS]) + more)
    return rows


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path}: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(msg) from error


def _row(line: bytes) -> WindowRow:
    row = msgspec.json.decode(line, type=WindowRow)
    if row.format != SCHEMA:
        msg = (
            f"format is {row.format!r}, and this Fusewatch makes {SCHEMA!r}: make the file anew, "
            "with `fusewatch features` from scenes or `fusewatch export` from alerts (and review "
            "them again)"
        )
        raise OtherLayout(msg)
    if row.start >= row.end:
        msg = f"start {row.start} is not before end {row.end}"
        raise ValueError(msg)
    if row.split not in SPLITS:
        msg = f"split {row.split!r} is none of {', '.join(SPLITS)}"
        raise ValueError(msg)
    for name, label in (("truth", row.truth), ("label", row.label)):
        if label and label not in LABELS:
            near = get_close_matches(label, LABELS, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            msg = f"{name} {label!r} is none of {', '.join(LABELS)}{hint}"
            raise ValueError(msg)
    if row.verdict is not None and not row.alert:
        msg = "a verdict is on an alert, and `alert` is empty: the truth of a scene is `truth`"
        raise ValueError(msg)
    if row.verdict is True and not row.label:
        msg = f"alert {row.alert} was right: its label must be one of {', '.join(LABELS)}"
        raise ValueError(msg)
    for name in ("states", "vectors"):
        if unknown := set(getattr(row, name)) - set(MODALITIES):
            msg = f"{name} has {sorted(unknown)[0]!r}, which is none of {', '.join(MODALITIES)}"
            raise ValueError(msg)
    if missing := set(MODALITIES) - set(row.states):
        msg = f"states lacks {sorted(missing)[0]!r}"
        raise ValueError(msg)
    row.tokens()
    return row
