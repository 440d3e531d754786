"""A file of entries of `observations.v1`, so that many processes can judge them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.ports import Entry

_SIZE = struct.Struct("<I")  # in front of each entry: its bytes
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class EntryFile:
    """Writes entries; `count` says how many."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file = path.open("wb")

    def write(self, entry: Entry) -> None:
        """Appends an entry."""
        value = _encoder.encode(entry)
        self._file.write(_SIZE.pack(len(value)) + value)
        self.count += 1

    def close(self) -> None:
        """Writes out what is buffered; the file is complete then."""
        self._file.close()


def entries(path: Path) -> Iterator[Entry]:
    """Yields the entries of a complete file, in order."""
    with path.open("rb") as file:
        while size := file.read(_SIZE.size):
            yield _decoder.decode(file.read(_SIZE.unpack(size)[0]))
