"""The manifest of clips: the content and the split of each clip, as tab-separated lines.

    path  text  label  kind  licence  split  visible

A line is a clip (`path` below the media folder; kind `sound`, `speech` or `video`) or the text of a
report (kind `report`). `label` is empty for normal content. A video without a split serves all of
them; `visible` is the seconds in which a person is clearly in view: `2.5-11,14-20`, `always`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from models.fusion.labels import LABELS, SPLITS
from pipeline.config.problem import nearest
from pipeline.errors import ConfigError
from pipeline.words import words
from workers.replay.scene_file import MAX_SECONDS

BUILT_IN = Path(__file__).resolve().parents[2] / "models" / "training" / "media.tsv"
MANIFEST_FILE = "manifest.tsv"  # in a media folder
COLUMNS = ("path", "text", "label", "kind", "licence", "split", "visible")
CLIP_KINDS = ("sound", "speech", "video", "report")
ALWAYS_VISIBLE = "always"
MAX_MANIFEST_BYTES = 10_000_000
MAX_REPORT_BYTES = 4_000  # bytes of a report
MAX_FAULTS = 50  # limit of faults in one error; the rest is counted

_SPAN = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)-(\d{1,5}(?:\.\d{1,3})?)")
Spans = tuple[tuple[float, float], ...]  # seconds, in order, with gaps between them


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """One line; `split` is empty for a video of all splits."""

    line: int
    path: str
    text: str
    label: str
    kind: str
    licence: str
    split: str
    visible: Spans = ()  # s
    always: bool = False  # a person is in view in every frame


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All clips of a media folder, checked: no clip and no text is in two splits."""

    file: Path
    media: Path  # resolved
    sha256: str
    clips: tuple[Clip, ...]

    def of(self, split: str, *kinds: str) -> tuple[Clip, ...]:
        """Returns the clips of these kinds that a scene of `split` may use."""
        return tuple(c for c in self.clips if c.kind in kinds and c.split in (split, ""))


def manifest_path(media: Path, given: Path | None = None) -> Path:
    """Returns the manifest to read: the one given, that of the media folder, or the built-in one.

    Raises ConfigError if there is none.
    """
    if given is not None:
        return given
    if (own := media / MANIFEST_FILE).is_file():
        return own
    listed = [row.split("\t")[0] for row in BUILT_IN.read_text("utf-8").splitlines()[1:]]
    if all((media / path).is_file() for path in listed if path):
        return BUILT_IN
    msg = (
        f"{media}: has no {MANIFEST_FILE}, and is not the folder that Fusewatch knows; add "
        "--manifest FILE"
    )
    raise ConfigError(msg)


def read(file: Path, media: Path) -> Manifest:
    """Reads a manifest; raises one ConfigError with every fault as `file:line: what is wrong`."""
    if not media.is_dir():
        msg = f"{media}: there is no such folder of clips"
        raise ConfigError(msg)
    raw = _bytes(file)
    lines = [row.removesuffix("\r") for row in _text(file, raw).split("\n")]
    head = lines[0].split("\t")
    faults = list(_head(head))
    clips: list[Clip] = []
    root = media.resolve()
    if not faults:
        for number, row in enumerate(lines[1:], 2):
            if row.strip():
                clip, found = _clip(number, head, row.split("\t"), root)
                clips.append(clip)
                faults += [(number, what) for what in found]
        faults += _twice(clips, root)
    if faults:
        told = [f"{file}:{line}: {what}" for line, what in sorted(faults)]
        if len(told) > MAX_FAULTS:
            told[MAX_FAULTS:] = [f"{file}: and {len(told) - MAX_FAULTS} more faults"]
        raise ConfigError("\n".join(told))
    return Manifest(
        file=file, media=root, sha256=hashlib.sha256(raw).hexdigest(), clips=tuple(clips)
    )


Fault = tuple[int, str]  # line, what is wrong


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        msg = f"{file}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    if len(raw) > MAX_MANIFEST_BYTES:
        msg = f"{file}: is larger than {MAX_MANIFEST_BYTES} bytes, so it is no manifest"
        raise ConfigError(msg)
    return raw


def _text(file: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"{file}:{line}: is not UTF-8; save the file in that encoding"
        raise ConfigError(msg) from None


def _head(head: Sequence[str]) -> Iterator[Fault]:
    missing = [column for column in COLUMNS if column not in head]
    for place, column in enumerate(head):
        if column not in COLUMNS:
            known = nearest(column, missing or COLUMNS) or f"; known are: {', '.join(COLUMNS)}"
            yield 1, f"`{column[:40]}` is no column{known}"
        elif column in head[:place]:
            yield 1, f"the column `{column}` is given twice"
    for column in missing:
        yield 1, f"the column `{column}` is missing; columns are separated by tabs"


def _clip(
    line: int, head: Sequence[str], cells: Sequence[str], root: Path
) -> tuple[Clip, list[str]]:
    """Returns the clip of a line and what is wrong with it."""
    faults = []
    if len(cells) != len(head):
        faults.append(f"has {len(cells)} cells, the header has {len(head)}; tabs separate them")
    given = dict(zip(head, (cell.strip() for cell in cells), strict=False))
    cell = {column: given.get(column, "") for column in COLUMNS}
    kind, label, split = cell["kind"], cell["label"], cell["split"]
    if not all(text.isprintable() for text in cell.values()):
        faults.append("holds control characters; remove them")
    for column, value, known in (
        ("kind", kind, CLIP_KINDS),
        ("label", label, ("", *LABELS)),
        ("split", split, ("", *SPLITS) if kind == "video" else SPLITS),
    ):
        if value not in known:
            words = ", ".join(word for word in known if word)
            near = nearest(value, known) or f"; one of: {words}"
            faults.append(f"{column} `{value[:40]}` is not known{near}")
    faults += _content(kind, cell, root)
    visible, fault = _visible(cell["visible"])
    if fault or (cell["visible"] and kind in CLIP_KINDS and kind != "video"):
        faults.append(fault or f"visible is for videos; leave it empty for a {kind}")
    clip = Clip(
        line=line,
        path=cell["path"],
        text=cell["text"],
        label=label,
        kind=kind,
        licence=cell["licence"],
        split=split,
        visible=visible,
        always=cell["visible"] == ALWAYS_VISIBLE,
    )
    return clip, faults


def _content(kind: str, cell: dict[str, str], root: Path) -> Iterator[str]:
    path, text = cell["path"], cell["text"]
    if kind == "video" and cell["label"]:
        yield "a video has no label: `visible` says when somebody is in view"
    if kind == "report":
        if path:
            yield "a report has a text and no path"
        if not text:
            yield "a report needs a text"
        if len(text.encode()) > MAX_REPORT_BYTES:
            yield f"the text is longer than {MAX_REPORT_BYTES} bytes"
        return
    if text:
        yield "only a report has a text"
    if not path:
        yield "the path is missing"
    elif not path.isprintable():
        return
    elif Path(path).is_absolute() or ".." in Path(path).parts:
        yield f"`{path}` must be a path below the media folder"
    elif not (root / path).is_file():
        yield f"`{path}` does not exist in {root}"
    elif not (root / path).resolve().is_relative_to(root):
        yield f"`{path}` is a link that leaves the media folder"


def _visible(text: str) -> tuple[Spans, str]:
    """Returns the spans in `text`, or what is wrong with them."""
    wrong = f"visible `{text[:60]}` must be `{ALWAYS_VISIBLE}`, or spans in order: `2.5-11,14-20`"
    if text in ("", ALWAYS_VISIBLE):
        return (), ""
    spans: list[tuple[float, float]] = []
    for part in text.split(","):
        found = _SPAN.fullmatch(part.strip())
        if found is None:
            return (), wrong
        spans.append((float(found[1]), float(found[2])))
    ends = [moment for span in spans for moment in span]
    ordered = all(a < b for a, b in pairwise(ends))
    return (tuple(spans), "") if ordered and ends[-1] <= MAX_SECONDS else ((), wrong)


def _twice(clips: Sequence[Clip], root: Path) -> Iterator[Fault]:
    """Yields clips and texts that occur twice, under any name: they would leak between splits."""
    first: dict[str, Clip] = {}
    for clip in clips:
        key = _key(clip, root)
        if not key:
            continue
        before = first.setdefault(key, clip)
        if before is clip:
            continue
        what = "the text" if clip.kind == "report" else f"`{clip.path}`"
        if before.split == clip.split:
            yield clip.line, f"{what} is given twice; first in line {before.line}"
        else:
            yield (
                clip.line,
                f"{what} is in two splits: {clip.split or 'all'} here, "
                f"{before.split or 'all'} in line {before.line}",
            )


def _key(clip: Clip, root: Path) -> str:
    if clip.kind == "report":
        return "text " + " ".join(words(clip.text))
    path = root / clip.path
    if not clip.path or not clip.path.isprintable() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def by_name(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Groups clips whose paths differ only in digits: `rain`, `casual`."""
    kinds: dict[str, list[Clip]] = {}
    for clip in clips:
        kinds.setdefault(re.sub(r"[\d._]+", "", clip.path), []).append(clip)
    return list(kinds.values())
