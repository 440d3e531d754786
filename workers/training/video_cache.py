"""Caches decoded videos: each picture is decoded and scaled only once.

A hundred scenes of three videos show the same few hundred pictures, and decoding is most of the
cost of a scene. Only for training data; the daemon and `replay` decode videos normally.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from workers.media import recordings
from workers.media.jpeg import Pixels
from workers.media.motion import Luma

MAX_CACHED_PICTURES = 1500  # limit of cached pictures, about 800 kB each, with their JPEG


class CachedPicture(recordings.Picture):
    """A picture as pixels and luma, dark or not."""

    def __init__(self, pixels: Pixels, luma: Luma) -> None:
        self._pixels = pixels
        self._luma = luma
        self._jpeg = None

    def dark(self) -> CachedPicture:
        return CachedPicture(np.zeros_like(self._pixels), np.zeros_like(self._luma))

    def luma(self) -> Luma:
        return self._luma

    def pixels(self) -> Pixels:
        return self._pixels


class VideoCache:
    """Opens videos that share their decoded pictures. Not thread-safe."""

    def __init__(self) -> None:
        self.kept: dict[tuple[object, ...], CachedPicture | str] = {}

    def __call__(
        self, path: Path, longest: int, *, count: Callable[[str], None], **how: Any
    ) -> _CachedVideo:
        """As `recordings.Video`."""
        return _CachedVideo(self, path.resolve(), longest, count, how)


class _CachedVideo:
    """One use of a video; the file is opened only for a picture that is not cached."""

    def __init__(
        self,
        films: VideoCache,
        path: Path,
        longest: int,
        count: Callable[[str], None],
        how: dict[str, Any],
    ) -> None:
        self._films, self._path, self._longest, self._how = films, path, longest, how
        self._count = count
        self._film: recordings.Video | None = None

    def at(self, time: Fraction) -> recordings.Picture | str:
        kept = self._films.kept
        key = (str(self._path), self._longest, *sorted(self._how.items()), time)
        if key not in kept:
            if len(kept) >= MAX_CACHED_PICTURES:
                kept.pop(next(iter(kept)))
            if self._film is None:
                self._film = recordings.Video(
                    self._path, self._longest, count=self._count, **self._how
                )
            shown = self._film.at(time)
            kept[key] = (
                shown if isinstance(shown, str) else CachedPicture(shown.pixels(), shown.luma())
            )
        return kept[key]

    def close(self) -> None:
        if self._film is not None:
            self._film.close()
