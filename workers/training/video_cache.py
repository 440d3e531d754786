"""Caches decoded videos: each picture is decoded and scaled only once.

A hundred scenes of three videos show the same few hundred pictures, and decoding is most of the
cost of a scene. Only for training data; the daemon and `replay` decode videos normally.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from workers.media import recordings
from workers.media.jpeg import Pixels

MOST = 1500  # limit of cached pictures, about 700 kB each


class CachedPicture(recordings.Picture):
    """A picture as pixels, dark or not."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def dark(self) -> CachedPicture:
        return CachedPicture(np.zeros_like(self._pixels))

    def pixels(self) -> Pixels:
        return self._pixels


class VideoCache:
    """Opens videos that share their decoded pictures. Not thread-safe."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int, bool, Fraction], CachedPicture | None] = {}

    def __call__(
        self, path: Path, longest: int, *, loop: bool, count: Callable[[str], None]
    ) -> _CachedVideo:
        return _CachedVideo(self, path.resolve(), longest, loop, count)


class _CachedVideo:
    """One use of a video; the file is opened only for a picture that is not cached."""

    def __init__(
        self, films: VideoCache, path: Path, longest: int, loop: bool, count: Callable[[str], None]
    ) -> None:
        self._films, self._path, self._longest, self._loop = films, path, longest, loop
        self._count = count
        self._film: recordings.Video | None = None

    def at(self, time: Fraction) -> recordings.Picture | None:
        kept = self._films.kept
        key = (str(self._path), self._longest, self._loop, time)
        if key not in kept:
            if len(kept) >= MOST:
                kept.pop(next(iter(kept)))
            if self._film is None:
                self._film = recordings.Video(
                    self._path, self._longest, loop=self._loop, count=self._count
                )
            picture = self._film.at(time)
            kept[key] = None if picture is None else CachedPicture(picture.pixels())
        return kept[key]

    def close(self) -> None:
        if self._film is not None:
            self._film.close()
