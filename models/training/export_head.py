"""Exports a trained network as a head: ONNX for the daemon, weights for fine-tuning, and card."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.fusion.features import ANEW, SCHEMA, arrays
from models.fusion.labels import LABELS
from models.fusion.learned_head import CARD_FILE, MODEL_FILE, WEIGHTS_FILE, Card, LearnedHead
from models.training.fit import Trained
from models.training.networks import NETWORKS, Calibrated, Ensemble
from pipeline.errors import WeightsError

ASIDE = ".new"  # subfolder in which a new head is written
MAX_HEAD_BYTES = 3_000_000  # bytes


def write_head(
    folder: Path,
    trained: Trained,
    *,
    name: str,
    version: str,
    threshold: float,
    per_hour: float,
    config: str,
    about: Mapping[str, object],
) -> Card:
    """Writes head.onnx, head.safetensors and the card; raises WeightsError over 3 MB.

    An existing head is replaced only when the new one is complete and loads.
    """
    aside = folder / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    network = trained.network.cpu()
    _export(Calibrated(network, trained.temperature).eval(), aside / MODEL_FILE)
    save_file(network.state_dict(), aside / WEIGHTS_FILE)
    model = (aside / MODEL_FILE).read_bytes()
    if len(model) > MAX_HEAD_BYTES:
        msg = f"the head has {len(model)} bytes: {MAX_HEAD_BYTES // 10**6} MB is the most"
        raise WeightsError(msg)
    card = Card(
        name=name,
        version=version,
        schema=SCHEMA,
        labels=LABELS,
        network=trained.settings.network,
        members=trained.settings.members,
        threshold=threshold,
        per_hour=per_hour,
        temperature=round(trained.temperature, 6),
        sha256=hashlib.sha256(model).hexdigest(),
        config=config,
        about=dict(about),
    )
    write_card(aside, card)
    LearnedHead.read(aside)
    for part in (MODEL_FILE, WEIGHTS_FILE, CARD_FILE):
        (aside / part).replace(folder / part)
    aside.rmdir()
    return card


def write_card(folder: Path, card: Card) -> None:
    """Writes the card of a head, indented so that people can read it."""
    text = msgspec.json.format(msgspec.json.encode(card), indent=2)
    (folder / CARD_FILE).write_bytes(text + b"\n")


def _export(network: nn.Module, file: Path) -> None:
    """Exports with torch's older exporter, which needs no other package; the batch size is open."""
    inputs = arrays([])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is deprecated; versions are locked
        torch.onnx.export(
            network,
            tuple(torch.zeros((2, *values.shape[1:])) for values in inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=["score", "classes"],
            dynamic_axes={name: {0: "n"} for name in (*inputs, "score", "classes")},
            opset_version=17,
            dynamo=False,
        )


def load_base(folder: Path) -> tuple[nn.Module, Card]:
    """Returns the network and card of a shipped head, for fine-tuning; raises WeightsError."""
    try:
        card = msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=Card)
        if card.schema != SCHEMA:
            msg = (
                f"{folder}: this head was trained on features {card.schema}, and this Fusewatch "
                f"makes {SCHEMA}: {ANEW}"
            )
            raise WeightsError(msg)
        if card.network not in NETWORKS:
            msg = f"network {card.network!r} is none of {', '.join(NETWORKS)}"
            raise RuntimeError(msg)
        network = Ensemble(card.network, card.members)
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, KeyError, msgspec.MsgspecError, RuntimeError, SafetensorError) as error:
        msg = f"{folder} holds no head to train on from: {str(error)[:200]}"
        raise WeightsError(msg) from error
    return network, card
