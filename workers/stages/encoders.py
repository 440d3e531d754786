"""Loads the models that the stages of a process need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from models import weights
from models.registry import REGISTRY
from pipeline.config import schema
from pipeline.errors import ConfigError
from pipeline.ports import Model

RECORDED_THREADS = 2
NEEDS: Mapping[str, tuple[str, ...]] = {  # stage, in the order that records flow -> its encoders
    "vision": ("detector",),
    "sound": ("sound", "sound_head"),
    "speech": ("voice", "speech", "text"),
    "text": ("text",),
    "fusion": ("text",),  # for the phrases of rules
    "alert": (),
}
STAGES = tuple(NEEDS)


class Encoders(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded models; they depend on no time and no site, so scenes and stages share them."""

    detector: Model
    sound: Model
    sound_head: Callable[..., Mapping[str, float]]
    voice: Model
    speech: Model
    text: Model


def load_encoders(
    settings: schema.Models, *, recorded: bool = False, stages: Sequence[str] = STAGES
) -> Encoders:
    """Loads the models of `stages` that the config names; raises WeightsError or ConfigError.

    With `recorded`, a number of threads that the config leaves open is `RECORDED_THREADS`, so that
    a replay gives the same bytes on every machine.
    """
    if recorded:
        settings = _fixed(settings)
    wanted = {name for stage in stages for name in NEEDS[stage]}
    made: dict[str, Any] = {
        name: _made(name, settings) if name in wanted else _absent(name)
        for name in Encoders.__struct_fields__
    }
    return Encoders(**made)


def _made(name: str, settings: schema.Models) -> object:
    match name:
        case "detector":
            return _detector(settings.detector)
        case "sound":
            from models.hearing.sound import Yamnet

            return Yamnet(_folder(settings.sound), threads=settings.sound.threads)
        case "sound_head":
            from models.hearing.sound import SoundHead

            return SoundHead.shipped()
        case "voice":
            from models.hearing.voice_activity import VoiceActivity

            return VoiceActivity()
        case "speech":
            return _speech(settings.speech)
        case _:
            return _text(settings.text)


def _absent(name: str) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        msg = f"{name} was not loaded: no stage of this process was said to need it"
        raise RuntimeError(msg)

    return call


def _fixed(settings: schema.Models) -> schema.Models:
    """The same models with `RECORDED_THREADS` where the number of threads is left open."""
    fixed = {
        name: msgspec.structs.replace(model, threads=RECORDED_THREADS)
        for name in settings.__struct_fields__
        if not (model := getattr(settings, name)).threads
    }
    return msgspec.structs.replace(settings, **fixed)


def _detector(model: schema.Model) -> Model:
    path = _folder(model)
    match model.kind:
        case "onnx" | "yolox":
            from models.vision.detector import Detector

            return Detector(_onnx(path), providers=model.providers, threads=model.threads)
        case "ultralytics":
            from models.vision.ultralytics_detector import UltralyticsDetector

            return UltralyticsDetector(path, providers=model.providers, threads=model.threads)
    msg = "detector"
    raise _unknown(msg, model.kind, ("yolox", "onnx", "ultralytics"))


def _onnx(path: Path) -> Path:
    """The one ONNX file of a folder of weights, or the file itself."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        msg = f"models.detector.weights: {path} holds {len(files)} .onnx files: name the one to use"
        raise ConfigError(msg)
    return files[0]


def _speech(model: schema.Model) -> Model:
    (device,) = model.providers  # `cpu` or `cuda`: the check has seen to it
    match model.kind:
        case "faster-whisper":
            from models.hearing.speech import FasterWhisper

            return FasterWhisper(
                _folder(model),
                threads=model.threads,
                device=device,
                compute_type="float16" if device == "cuda" else "int8",
            )
        case "openai-whisper":
            from models.hearing.openai_speech import OpenAIWhisper

            return OpenAIWhisper(_folder(model), threads=model.threads, device=device)
    msg = "speech"
    raise _unknown(msg, model.kind, ("faster-whisper", "openai-whisper"))


def _text(model: schema.Model) -> Model:
    from models.language.text import TextEncoder

    return TextEncoder(_folder(model), providers=model.providers, threads=model.threads)


def _folder(model: schema.Model) -> Path:
    if model.weights in REGISTRY:
        return weights.find(model.weights)
    given = Path(model.weights).expanduser()
    if not given.exists():
        known = ", ".join(sorted(REGISTRY))
        msg = f"weights {model.weights!r}: no such file, and not one of {known}"
        raise ConfigError(msg)
    return given


def _unknown(what: str, kind: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(f"models.{what}.kind: no adapter {kind!r}; there are {', '.join(known)}")
