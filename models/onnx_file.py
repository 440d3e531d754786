"""Reads ONNX files that hold all of their weights, and refuses those that name other files.

A tensor may be kept in another file (`external_data`), and a node may stand for a compiled engine
in another file (`EPContext`). A hash of the ONNX file does not cover such a file, and ONNX Runtime
looks for it in the working directory. The fields are those of `onnx.proto3`, which never change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pipeline.errors import WeightsError

MAX_BYTES = (1 << 31) - 1  # bytes of a protobuf message
# ONNX Runtime also reads a format of its own, which is not checked here.
FORMAT_OPTION = ("session.load_model_format", "ONNX")

# The part of onnx.proto3 that leads to tensors and nodes: message -> field -> (number, type). Every
# field is read as a repeated one, so that a value is seen that a later one replaces. Texts are read
# as bytes and enums as numbers, so that any value is seen.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "training": (20, "Training"), "functions": (25, "Function")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"nodes": (7, "Node"), "attributes": (11, "Attribute")},
    "Graph": {"nodes": (1, "Node"), "tensors": (5, "Tensor"), "sparse": (15, "Sparse")},
    "Node": {"kind": (4, "bytes"), "attributes": (5, "Attribute")},
    "Attribute": {
        **{"tensor": (5, "Tensor"), "tensors": (10, "Tensor")},
        **{"graph": (6, "Graph"), "graphs": (11, "Graph")},
        **{"sparse": (22, "Sparse"), "sparses": (23, "Sparse")},
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external": (13, "bytes"), "location": (14, "int32")},
}


def read_regular(path: Path, most: int = MAX_BYTES) -> bytes:
    """Returns the bytes of a file; raises OSError for a device, a pipe or over `most` bytes."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait
    with os.fdopen(handle, "rb") as file:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        found = file.read(min(known.st_size, most) + 1)  # takes as many bytes before it reads
    if len(found) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return found


def read_onnx(path: Path) -> bytes:
    """Returns the bytes of a model in one file; raises WeightsError."""
    try:
        model = read_regular(path)
        check_whole(model)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise WeightsError(msg) from error
    except WeightsError as error:
        msg = f"{path}: {error}"
        raise WeightsError(msg) from error
    return model


def check_whole(model: bytes) -> None:
    """Raises WeightsError if the ONNX model needs another file, or is no ONNX model."""
    try:
        read = _MODEL.FromString(model)
    except (DecodeError, RecursionError) as error:
        msg = "it is no ONNX model, or it is broken"
        raise WeightsError(msg) from error
    for message in _walk(read):
        what = message.DESCRIPTOR.name
        if what == "Tensor" and (message.external or any(message.location)):
            msg = "it keeps weights in another file, which no hash covers: save it as one file"
            raise WeightsError(msg)
        if what == "Node" and b"EPContext" in message.kind:
            msg = "it holds a compiled engine instead of a model: export it uncompiled"
            raise WeightsError(msg)


def _walk(message: Any) -> Iterator[Any]:
    """Yields the message and all those in it. Its depth is limited by protobuf's parser."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value:
                yield from _walk(part)


def message_class(messages: Mapping[str, Mapping[str, tuple[int, str]]]) -> Any:
    """Returns the class of `Model`, which reads and writes models: messages as in `_MESSAGES`.

    Fields that `messages` does not name are kept as they are.
    """
    field_type = descriptor_pb2.FieldDescriptorProto
    plain = {
        "bytes": field_type.TYPE_BYTES,
        "int32": field_type.TYPE_INT32,
        "int64": field_type.TYPE_INT64,
    }
    file = descriptor_pb2.FileDescriptorProto(name="parts.proto", package="parts", syntax="proto2")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number, label=field_type.LABEL_REPEATED)
            made.type = plain.get(kind, field_type.TYPE_MESSAGE)
            if kind not in plain:
                made.type_name = f".parts.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("parts.Model"))


_MODEL = message_class(_MESSAGES)
