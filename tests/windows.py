"""Builds windows, tokens, rows and a small ONNX head for tests of fusion."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.fusion.features import NAMES, SCHEMA, SIZES, Floats, Tokens
from models.fusion.labels import LABELS, MODALITIES
from models.fusion.learned_head import CARD_FILE, MODEL_FILE, Card
from models.training import dataset
from pipeline.types import Observation, Presence, Window, ns

ALL_THERE = {
    "desk": Presence.PRESENT,
    "room": Presence.PRESENT,
    "room/speech": Presence.SILENT,
    "reports": Presence.SILENT,
}


def window(
    *observations: Observation,
    start: float = 0.0,
    presence: Mapping[str, Presence] = ALL_THERE,
) -> Window:
    """A window of four seconds of the site `office`; `start` is in s."""
    return Window(
        site="office",
        index=0,
        start=ns(start),
        end=ns(start + 4),
        observations=observations,
        presence=presence,
    )


def tokens(**filled: float) -> Tokens:
    """Tokens in which each named modality is present, with all its numbers equal to the value."""
    return Tokens(
        {m: np.full(SIZES[m], value, np.float32) for m, value in filled.items()},
        {m: Presence.PRESENT if m in filled else Presence.LOST for m in MODALITIES},
    )


def row(
    scene: str = "one",
    second: float = 0,
    *,
    truth: str | None = "",
    vectors: Mapping[str, Floats] | None = None,
    **more: object,
) -> dataset.WindowRow:
    """A window as a row of a data set; only sound is present, unless `vectors` is given."""
    given = vectors if vectors is not None else {"sound": np.zeros(SIZES["sound"], np.float32)}
    states = {m: Presence.PRESENT if m in given else Presence.LOST for m in MODALITIES}
    return dataset.WindowRow(
        scene=scene,
        site="office",
        start=ns(second),
        end=ns(second + 4),
        truth=truth,
        states=states,
        vectors=dataset.packed(Tokens(given, states)),
        **more,  # type: ignore[arg-type]
    )


def tiny_head(
    folder: Path,
    weights: Mapping[str, float],
    *,
    version: str = "1",
    bias: float = -4.0,
    schema: str = SCHEMA,
    labels: Sequence[str] = LABELS,
    looks_at: Mapping[str, str] = {},
) -> Path:
    """Writes a head with log odds of `bias` + sum of weight x first number of each modality.

    `looks_at` names another feature of a modality that counts instead of the first.
    """
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: object) -> object:
        return numpy_helper.from_array(np.asarray(value), name)

    nodes, held, terms = [], [], []
    for modality in MODALITIES:
        at = NAMES[modality].index(looks_at.get(modality, NAMES[modality][0]))
        held.append(constant(f"{modality}.at", np.array([at], np.int64)))
        nodes.append(
            helper.make_node("Gather", [modality, f"{modality}.at"], [f"{modality}.0"], axis=1)
        )
        held.append(constant(f"{modality}.w", np.array([weights.get(modality, 0)], np.float32)))
        nodes.append(helper.make_node("Mul", [f"{modality}.0", f"{modality}.w"], [f"{modality}.t"]))
        terms.append(f"{modality}.t")
    nodes.append(helper.make_node("Sum", terms, ["sum"]))
    held.append(constant("bias", np.array([bias], np.float32)))
    held.append(constant("flat", np.array([-1], np.int64)))
    nodes.append(helper.make_node("Add", ["sum", "bias"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["odds"]))
    nodes.append(helper.make_node("Reshape", ["odds", "flat"], ["score"]))
    shares = np.zeros((1, len(labels)), np.float32)
    shares[0, 0] = 1
    held.append(constant("shares", shares))
    nodes.append(helper.make_node("Mul", ["odds", "shares"], ["scaled"]))
    nodes.append(helper.make_node("Softmax", ["scaled"], ["classes"], axis=1))
    takes = [
        *(helper.make_tensor_value_info(m, TensorProto.FLOAT, ["n", SIZES[m]]) for m in MODALITIES),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", len(MODALITIES), 3]),
    ]
    gives = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["n", len(labels)]),
    ]
    graph = helper.make_graph(nodes, "tiny", takes, gives, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    binary = model.SerializeToString()
    (folder / MODEL_FILE).write_bytes(binary)
    card = Card(
        name="tiny",
        version=version,
        schema=schema,
        labels=tuple(labels),
        network="concat",
        threshold=0.5,
        per_hour=1.0,
        temperature=1.0,
        sha256=hashlib.sha256(binary).hexdigest(),
        config="test",
    )
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(card))
    return folder
