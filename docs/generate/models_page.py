"""The page docs/reference/models.md: the registered model files, their licences and sources."""

from __future__ import annotations

from docs.generate.fields import NOTE, table
from models.registry import REGISTRY, File, Weights
from workers.config.adapters import ADAPTERS

HEAD = """\
# Models

The model files that Fusewatch knows: what each is for, its licence, its size, and where it comes from. Read it before
you choose another detector.

    fusewatch weights list                       # all models: licence, size, purpose, where the files are
    fusewatch weights pull yolox_s               # download one
    fusewatch weights verify                     # hash the files
    fusewatch weights recommend fusewatch.yaml   # measure what this machine bears

A model is looked for in the folder that `FUSEWATCH_WEIGHTS` names, then among the files that come with Fusewatch, then
in your cache. What is in none of them is downloaded to the cache, `weights pull` included. Only what a config needs is
downloaded by `run`.
"""
TRUST = """\
## What is trusted

Each file has a SHA-256 in the registry. A file with other bytes is refused, wherever it lies, and never replaced by
guess. There is no entry without a SHA-256. For a file that is not registered, name its path; then you answer for it:

    models: {detector: {kind: onnx, weights: /opt/models/mine.onnx}}

The files are ONNX, TFLite or CTranslate2: data, not code. A `.pt` file can run any code. It is loaded only if a config
names its path, and needs the extra `ultralytics`.
"""
DETECTORS = """\
## Detectors

`models.detector` and `models.detector_high` take each of these, with `kind: yolox` or `kind: onnx`. AP is the average
precision on COCO val2017 that the authors publish. [Cameras](../guides/camera.md#choose-the-detector) says how to
choose.
"""
OTHERS = "## Other models\n"
NOTES = "## Notes\n"


def page() -> str:
    """The whole page."""
    eyes = [one for one in REGISTRY.values() if one.ap]
    others = [one for one in REGISTRY.values() if not one.ap]
    notes = [f"- `{one.name}`: {one.note}." for one in REGISTRY.values() if one.note]
    parts = [
        HEAD,
        TRUST,
        DETECTORS,
        table(
            ("name", "what", "AP", "licence", "MB", "from"),
            [
                (f"`{w.name}`", _what(w), f"{w.ap:.3f}", w.licence, _size(w), _hosts(w))
                for w in eyes
            ],
        ),
        OTHERS,
        table(
            ("name", "for `models.`", "what", "licence", "MB", "from"),
            [(f"`{w.name}`", _for(w), _what(w), w.licence, _size(w), _hosts(w)) for w in others],
        ),
        NOTES,
        "\n".join(_wrapped(note) for note in notes) + "\n",
        NOTE.format("models/registry.py"),
    ]
    return "\n".join(parts)


def _what(weights: Weights) -> str:
    return weights.about.removeprefix("objects in pictures: ")


def _for(weights: Weights) -> str:
    parts = [
        part
        for part, kinds in ADAPTERS.items()
        if any(weights.name in kind.weights for kind in kinds.values())
    ]
    return ", ".join(f"`{part}`" for part in parts)


def _size(weights: Weights) -> str:
    return f"{sum(file.size for file in weights.files) / 1e6:.1f}"


def _hosts(weights: Weights) -> str:
    hosts = dict.fromkeys(host for file in weights.files for host in _of(file))
    return ", ".join(hosts)


def _of(file: File) -> list[str]:
    addresses = [file.archive.url] if file.archive else [file.url]
    addresses += [file.other.url] if file.other else []
    hosts = [address.split("/")[2] for address in addresses if address]
    return [*hosts, *(["PyPI"] if file.wheel else [])]


def _wrapped(text: str, width: int = 116) -> str:
    """A list's item in lines of at most so many characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
