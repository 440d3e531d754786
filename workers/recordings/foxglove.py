"""The schemas `foxglove.CompressedImage` and `foxglove.RawAudio`, by which Foxglove shows media.

The fields are those of https://github.com/foxglove/foxglove-sdk/tree/main/schemas/proto.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError

from pipeline.types import SECOND

__all__ = ["IMAGE", "SOUND", "DecodeError", "image", "media_of", "schema", "sound"]

IMAGE, SOUND = "foxglove.CompressedImage", "foxglove.RawAudio"
_MOST = 2**32 - 1  # of a field `fixed32`

_KINDS = descriptor_pb2.FieldDescriptorProto
_TIME, _BYTES, _TEXT, _WHOLE = (
    _KINDS.TYPE_MESSAGE,
    _KINDS.TYPE_BYTES,
    _KINDS.TYPE_STRING,
    _KINDS.TYPE_FIXED32,
)
_FIELDS: dict[str, tuple[tuple[str, int, Any], ...]] = {
    IMAGE: (
        ("timestamp", 1, _TIME),
        ("frame_id", 4, _TEXT),
        ("data", 2, _BYTES),
        ("format", 3, _TEXT),
    ),
    SOUND: (
        ("timestamp", 1, _TIME),
        ("data", 2, _BYTES),
        ("format", 3, _TEXT),
        ("sample_rate", 4, _WHOLE),
        ("number_of_channels", 5, _WHOLE),
    ),
}


def _file(name: str) -> Any:
    """The protobuf file that declares one of these messages."""
    package, _, message = name.partition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}/{message}.proto",
        package=package,
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    declared = file.message_type.add(name=message)
    for field, number, kind in _FIELDS[name]:
        declared.field.add(
            name=field,
            number=number,
            type=kind,
            label=_KINDS.LABEL_OPTIONAL,
            type_name=".google.protobuf.Timestamp" if kind == _TIME else None,
        )
    return file


_POOL = descriptor_pool.DescriptorPool()  # of our own: other packages may declare the same names
_POOL.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
_FILES = {name: _file(name) for name in _FIELDS}
for _declared in _FILES.values():
    _POOL.AddSerializedFile(_declared.SerializeToString())
_CLASSES: dict[str, Any] = {
    name: message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name)) for name in _FIELDS
}


def schema(name: str) -> bytes:
    """Returns the `FileDescriptorSet` that MCAP stores for a message."""
    time = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(time)
    return bytes(descriptor_pb2.FileDescriptorSet(file=[time, _FILES[name]]).SerializeToString())


def image(time: int, source: str, jpeg: bytes) -> bytes:
    """Returns the encoded message of a picture that was taken at `time` (ns)."""
    made = _CLASSES[IMAGE](frame_id=source, format="jpeg", data=jpeg)
    return _stamped(made, time)


def sound(time: int, pcm: bytes, rate: object, channels: object) -> bytes:
    """Returns the encoded message of s16le samples; numbers that do not fit are cut."""
    made = _CLASSES[SOUND](
        format="pcm-s16", data=pcm, sample_rate=_fits(rate), number_of_channels=_fits(channels)
    )
    return _stamped(made, time)


def media_of(name: str, message: bytes) -> bytes:
    """Returns the picture or the samples in an encoded message; raises DecodeError."""
    return bytes(_CLASSES[name].FromString(message).data)


def _stamped(made: Any, time: int) -> bytes:
    made.timestamp.seconds, made.timestamp.nanos = divmod(time, SECOND)
    return bytes(made.SerializeToString())


def _fits(number: object) -> int:
    return min(max(number, 0), _MOST) if isinstance(number, int) else 0
