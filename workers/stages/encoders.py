"""Loads the models that the stages of a process need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from models import weights
from models.registry import REGISTRY
from pipeline.config import schema
from pipeline.errors import ConfigError
from pipeline.ports import Model
from pipeline.stages import ALL_STAGES, TABLE
from workers.config.adapters import ADAPTERS

RECORDED_THREADS = 2


class Encoders(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded models; they depend on no time and no site, so scenes and stages share them."""

    detector: Model
    sound: Model
    sound_head: Callable[..., Mapping[str, float]]
    voice: Model
    speech: Model
    text: Model


def load_encoders(
    settings: schema.Models, *, recorded: bool = False, stages: Sequence[str] = ALL_STAGES
) -> Encoders:
    """Loads the models of `stages` that the config names; raises WeightsError or ConfigError.

    With `recorded`, a number of threads that the config leaves open is `RECORDED_THREADS`, so that
    a replay gives the same bytes on every machine.
    """
    if recorded:
        settings = _fixed(settings)
    wanted = {name for row in TABLE if row.name in stages for name in row.encoders}
    made: dict[str, Any] = {
        name: _made(name, settings) if name in wanted else _absent(name)
        for name in Encoders.__struct_fields__
    }
    return Encoders(**made)


def _made(name: str, settings: schema.Models) -> object:
    match name:
        case "sound_head":
            from models.hearing.sound import SoundHead

            return SoundHead.shipped()
        case "voice":
            from models.hearing.voice_activity import VoiceActivity

            return VoiceActivity()
        case _:
            return adapted(name, getattr(settings, name))


def adapted(part: str, model: schema.Model) -> Model:
    """The model that a setting below `models` names; raises WeightsError or ConfigError."""
    kinds = ADAPTERS[part]
    if model.kind not in kinds:
        msg = f"models.{part}.kind: no adapter {model.kind!r}; there are {', '.join(kinds)}"
        raise ConfigError(msg)
    loaded: Model = import_module(kinds[model.kind].module).load(_folder(model), model)
    return loaded


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


def _folder(model: schema.Model) -> Path:
    if model.weights in REGISTRY:
        return weights.find(model.weights)
    given = Path(model.weights).expanduser()
    if not given.exists():
        known = ", ".join(sorted(REGISTRY))
        msg = f"weights {model.weights!r}: no such file, and not one of {known}"
        raise ConfigError(msg)
    return given
