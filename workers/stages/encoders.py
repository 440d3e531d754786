"""Loads the models that the stages of a process need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from models import weights
from models.registry import REGISTRY
from pipeline.config import schema
from pipeline.config.model_needs import COMMON, ENCODERS
from pipeline.errors import ConfigError, WeightsError
from pipeline.ports import Model
from pipeline.stages import ALL_STAGES, TABLE
from workers.config.adapters import ADAPTERS, RECORDED_THREADS
from workers.stages.absent_encoders import QUIET, guard, no_embedding


class Encoders(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded models; they depend on no time and no site, so scenes and stages share them."""

    detector: Model
    detector_high: Model
    sound: Model
    sound_head: Callable[..., Mapping[str, float]]
    voice: Model
    speech: Model
    text: Model
    pose: Model


def load_encoders(
    settings: schema.Models,
    *,
    recorded: bool = False,
    stages: Sequence[str] = ALL_STAGES,
    needed: Collection[str] = COMMON,
) -> Encoders:
    """Loads the models of `stages` that the config names; raises WeightsError or ConfigError.

    With `recorded`, a number of threads that the config leaves open is fixed, so that a replay
    gives the same bytes on every machine. `needed` are the encoders that the config needs
    (`needed_encoders`): the others are neither loaded nor downloaded. Without the text model, a
    report has no embedding.
    """
    if recorded:
        settings = _fixed(settings)
    used = {name for row in TABLE if row.name in stages for name in row.encoders}
    made: dict[str, Any] = {name: guard(name) for name in ENCODERS}
    if "text" in used:
        made["text"] = no_embedding
    made |= {name: _made(name, settings) for name in ENCODERS if name in used & set(needed)}
    return Encoders(**made)


def load_available(
    settings: schema.Models,
    *,
    recorded: bool = False,
    stages: Sequence[str] = ALL_STAGES,
    needed: Collection[str] = COMMON,
) -> tuple[Encoders, dict[str, str]]:
    """Loads what can be had here; returns it, and why each other model is absent (name -> reason).

    For a demonstration only. A missing model is replaced by one that finds nothing: no boxes, no
    poses, no labels of sounds, no utterances, no embeddings. Models that are not `needed` are not
    loaded. Raises ConfigError.
    """
    if recorded:
        settings = _fixed(settings)
    used = {name for row in TABLE if row.name in stages for name in row.encoders}
    made: dict[str, Any] = {name: guard(name) for name in ENCODERS}
    absent: dict[str, str] = {}
    for model, quiet in QUIET.items():
        wanted = [name for name in quiet if name in used & set(needed)]
        try:
            made |= {name: _made(name, settings) for name in wanted}
        except WeightsError as error:
            absent[model] = " ".join(str(error).split())
            made |= {name: quiet[name] for name in wanted}
    return Encoders(**made), absent


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


def _fixed(settings: schema.Models) -> schema.Models:
    """The same models, with the threads of a replay where their number is left open."""
    models = {name: getattr(settings, name) for name in settings.__struct_fields__}
    fixed = {
        name: msgspec.structs.replace(model, threads=_recorded_threads(name, model))
        for name, model in models.items()
        if not model.threads
    }
    return msgspec.structs.replace(settings, **fixed)


def _recorded_threads(part: str, model: schema.Model) -> int:
    adapter = ADAPTERS[part].get(model.kind)
    if adapter is None or model.providers != ("cpu",):
        return RECORDED_THREADS
    return adapter.recorded


def _folder(model: schema.Model) -> Path:
    if model.weights in REGISTRY:
        return weights.find(model.weights)
    given = Path(model.weights).expanduser()
    if not given.exists():
        known = ", ".join(sorted(REGISTRY))
        msg = f"weights {model.weights!r}: no such file, and not one of {known}"
        raise ConfigError(msg)
    return given
