"""Lets a model look up the rows of its int8 word table before it makes them float.

all-MiniLM-L6-v2 has 30,522 words of 384 numbers. Its int8 file makes the whole table float (`Cast`,
then `Mul` by a scale for each row), and then looks up rows (`Gather`). ONNX Runtime does the first
part when it loads the file, and keeps the float table: 47 MB, of which a text needs a few rows.
`Gather` first, then `Cast` and `Mul`, gives the same numbers, bit by bit, and keeps 12 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from models.onnx_file import message_class

_MODEL = message_class(
    {  # the numbers of onnx.proto3; what is not named here is kept as it is
        "Model": {"graphs": (7, "Graph")},
        "Graph": {"nodes": (1, "Node"), "tensors": (5, "Tensor"), "outputs": (12, "Value")},
        "Node": {
            **{"inputs": (1, "bytes"), "outputs": (2, "bytes"), "name": (3, "bytes")},
            **{"kind": (4, "bytes"), "attributes": (5, "Attribute")},
        },
        "Attribute": {
            **{"name": (1, "bytes"), "number": (3, "int64")},
            **{"graph": (6, "Graph"), "graphs": (11, "Graph")},
        },
        "Tensor": {"dims": (1, "int64"), "name": (8, "bytes")},
        "Value": {"name": (1, "bytes")},
    }
)


class _Lookup(NamedTuple):
    """Nodes that make a table float and look up rows, and the nodes that take their place."""

    old: tuple[Any, Any, Any]  # Cast, Mul, Gather
    new: tuple[Any, Any, Any, Any]  # Gather of the table, Gather of the scales, Cast, Mul


def rows_first(model: bytes) -> bytes:
    """Returns the model with each such look-up turned round; another model is returned unchanged.

    `model` is a whole ONNX model (`models.onnx_file.read_onnx`).
    """
    read = _MODEL.FromString(model)
    if len(read.graphs) != 1 or any(
        attribute.graph or attribute.graphs
        for node in read.graphs[0].nodes
        for attribute in node.attributes
    ):
        return model  # the graph inside a node may use any name of the outer graph
    graph = read.graphs[0]
    found = list(_lookups(graph))
    if not found:
        return model
    new: dict[tuple[bytes, ...], tuple[Any, ...]] = {}  # outputs of an old node -> the new ones
    for lookup in found:
        new |= {tuple(node.outputs): () for node in lookup.old}
        new[tuple(lookup.old[-1].outputs)] = lookup.new
    nodes = [made for node in graph.nodes for made in new.get(tuple(node.outputs), (node,))]
    copies = [_copy(node) for node in nodes]
    del graph.nodes[:]
    graph.nodes.extend(copies)
    turned: bytes = read.SerializeToString()
    return turned


def _lookups(graph: Any) -> Iterator[_Lookup]:
    """Yields each look-up of rows of a table of which nothing else is used."""
    shapes = {tuple(tensor.name): tuple(tensor.dims) for tensor in graph.tensors}
    makers = {tuple(node.outputs): node for node in graph.nodes}
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(name for value in graph.outputs for name in value.name)
    for gather in graph.nodes:
        if not _is(gather, b"Gather", 2) or _axis(gather):
            continue
        scaled = makers.get((gather.inputs[0],))
        if scaled is None or not _is(scaled, b"Mul", 2):
            continue
        cast = makers.get((scaled.inputs[0],))
        if cast is None or not _is(cast, b"Cast", 1):
            continue
        table, scales = shapes.get((cast.inputs[0],)), shapes.get((scaled.inputs[1],))
        alone = uses[gather.inputs[0]] == uses[scaled.inputs[0]] == 1
        if alone and table and scales == (*table[:1], *(1 for _ in table[1:])):
            yield _Lookup((cast, scaled, gather), _turned(cast, scaled, gather))


def _is(node: Any, kind: bytes, inputs: int) -> bool:
    return bool(list(node.kind) == [kind] and len(node.inputs) == inputs)


def _axis(gather: Any) -> int:
    return next((int(a.number[-1]) for a in gather.attributes if a.number), 0)


def _turned(cast: Any, scaled: Any, gather: Any) -> tuple[Any, Any, Any, Any]:
    """The nodes that look up the rows and their scales, and then make the rows float."""
    table, scales, rows = cast.inputs[0], scaled.inputs[1], gather.inputs[1]
    raw, by, floats = (scaled.outputs[0] + end for end in (b"/rows", b"/scales", b"/floats"))
    return (
        _wired(gather, [table, rows], raw),
        _wired(gather, [scales, rows], by),
        _wired(cast, [raw], floats),
        _wired(scaled, [floats, by], gather.outputs[0]),
    )


def _wired(node: Any, inputs: list[bytes], output: bytes) -> Any:
    """A copy of a node with other inputs and another output, which also names it."""
    made = _copy(node)
    made.inputs[:], made.outputs[:], made.name[:] = inputs, [output], [output]
    return made


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made
