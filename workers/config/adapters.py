"""The kinds of models that a config may name: a new kind is a file in `models/` and a line here.

The file has a function `load(path, settings)`, which gives the model. It is imported when a config
names it, so the packages of the others may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from models.registered_detectors import DETECTORS
from models.registry import REGISTRY
from pipeline.config.fields import PROVIDERS
from pipeline.config.problem import Problem, Way, known_only
from pipeline.config.schema import Model, Models

RECORDED_THREADS = 2  # in a replay, where nothing better is known


class Adapter(msgspec.Struct, frozen=True):
    """The module of a kind of model, and its providers; `several`: it may use more than one.

    `weights` are the registered models that are of this kind; a path may be given for each kind.
    `package` is what it imports if that comes with an extra of ours, `extra`. `recorded` is its
    number of threads on the CPU in a replay, where the config leaves it open. The bytes must not
    depend on the machine: with 0, one thread computes each result, on however many cores.
    """

    module: str
    providers: tuple[str, ...]
    several: bool = False
    weights: tuple[str, ...] = ()
    package: str = ""
    extra: str = ""
    recorded: int = RECORDED_THREADS


ONNX, GPU = tuple(PROVIDERS), ("cpu", "cuda")
_SEEING = tuple(weights.name for weights in DETECTORS)
_DETECTORS = {
    "yolox": Adapter("models.vision.detector", ONNX, several=True, weights=_SEEING, recorded=0),
    "onnx": Adapter("models.vision.detector", ONNX, several=True, weights=_SEEING, recorded=0),
    "ultralytics": Adapter(
        "models.vision.ultralytics_detector", ONNX, package="ultralytics", extra="ultralytics"
    ),
}
ADAPTERS: Mapping[str, Mapping[str, Adapter]] = {  # setting below `models` -> kind
    "detector": _DETECTORS,
    "detector_high": _DETECTORS,
    "speech": {
        "faster-whisper": Adapter(
            "models.hearing.speech", GPU, weights=("faster-whisper-tiny.en",), recorded=1
        ),
        "openai-whisper": Adapter(
            "models.hearing.openai_speech", GPU, package="whisper", extra="whisper"
        ),
    },
    "sound": {"yamnet": Adapter("models.hearing.sound", ("cpu",), weights=("yamnet",), recorded=1)},
    "text": {
        "minilm": Adapter(
            "models.language.text",
            ONNX,
            several=True,
            weights=("all-MiniLM-L6-v2-int8",),
            recorded=1,
        )
    },
    "pose": {
        "movenet": Adapter(
            "models.vision.movenet", ("cpu",), weights=("movenet_lightning_int8",), recorded=1
        ),
        "blazepose": Adapter(
            "models.vision.blazepose", ("cpu",), weights=("blazepose",), recorded=1
        ),
    },
}


def problems(models: Models) -> Iterator[Problem]:
    """What is wrong with the models that a config names."""
    for part, kinds in ADAPTERS.items():
        model: Model = getattr(models, part)
        way: Way = ("models", part, "providers")
        adapter = kinds.get(model.kind)
        yield from known_only((model.kind,), kinds, ("models", part, "kind"), f"kind of {part}")
        if adapter and model.weights in REGISTRY and model.weights not in adapter.weights:
            fit = " or ".join(f"`{name}`" for name in adapter.weights[:2])
            fit += ", another one of `fusewatch weights list`" if adapter.weights[2:] else ""
            what = f"`{model.weights}` is no model of the kind `{model.kind}`"
            better = f"use {fit}, or a path" if fit else "give a path"
            yield Problem(("models", part, "weights"), f"{what}; {better}")
        usable, of = (adapter.providers, f" of {model.kind}") if adapter else (ONNX, "")
        yield from known_only(model.providers, usable, way, f"provider{of}")
        if not model.providers:
            yield Problem(way, "is empty; one or more of: " + ", ".join(usable))
        elif len(model.providers) > 1 and adapter and not adapter.several:
            yield Problem(way, f"names {len(model.providers)}; {model.kind} runs on one")
