"""The kinds of models that a config may name: a new kind is a file in `models/` and a line here.

The file has a function `load(path, settings)`, which gives the model. It is imported when a config
names it, so the packages of the others may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from pipeline.config.fields import PROVIDERS
from pipeline.config.problem import Problem, Way, known_only
from pipeline.config.schema import Model, Models


class Adapter(msgspec.Struct, frozen=True):
    """The module of a kind of model, and its providers; `several`: it may use more than one.

    `package` is what it imports if that comes with an extra of ours, `extra`.
    """

    module: str
    providers: tuple[str, ...]
    several: bool = False
    package: str = ""
    extra: str = ""


ONNX, GPU = tuple(PROVIDERS), ("cpu", "cuda")
_DETECTORS = {
    "yolox": Adapter("models.vision.detector", ONNX, several=True),
    "onnx": Adapter("models.vision.detector", ONNX, several=True),
    "ultralytics": Adapter(
        "models.vision.ultralytics_detector", ONNX, package="ultralytics", extra="ultralytics"
    ),
}
ADAPTERS: Mapping[str, Mapping[str, Adapter]] = {  # setting below `models` -> kind
    "detector": _DETECTORS,
    "detector_high": _DETECTORS,
    "speech": {
        "faster-whisper": Adapter("models.hearing.speech", GPU),
        "openai-whisper": Adapter(
            "models.hearing.openai_speech", GPU, package="whisper", extra="whisper"
        ),
    },
    "sound": {"yamnet": Adapter("models.hearing.sound", ("cpu",))},
    "text": {"minilm": Adapter("models.language.text", ONNX, several=True)},
    "pose": {
        "movenet": Adapter("models.vision.movenet", ("cpu",)),
        "blazepose": Adapter("models.vision.blazepose", ("cpu",)),
    },
}


def problems(models: Models) -> Iterator[Problem]:
    """What is wrong with the models that a config names."""
    for part, kinds in ADAPTERS.items():
        model: Model = getattr(models, part)
        way: Way = ("models", part, "providers")
        adapter = kinds.get(model.kind)
        yield from known_only((model.kind,), kinds, ("models", part, "kind"), f"kind of {part}")
        usable, of = (adapter.providers, f" of {model.kind}") if adapter else (ONNX, "")
        yield from known_only(model.providers, usable, way, f"provider{of}")
        if not model.providers:
            yield Problem(way, "is empty; one or more of: " + ", ".join(usable))
        elif len(model.providers) > 1 and adapter and not adapter.several:
            yield Problem(way, f"names {len(model.providers)}; {model.kind} runs on one")
