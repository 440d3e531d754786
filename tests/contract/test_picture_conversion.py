"""One converter serves all frames of a thread: the same pixels, whatever it converted before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workers.media.containers import converted, open_file, picture_track


def frames(path: Path, count: int) -> list[Any]:
    with open_file(path) as file:
        return [frame for frame, _ in zip(file.decode(picture_track(file)), range(count))]  # noqa: B905


def test_frames_of_several_films_in_turn_have_the_pixels_of_a_converter_of_their_own(
    media: Path,
) -> None:
    office = frames(media / "video/office_a.mp4", 4)
    shop = frames(media / "video/Retail02_short.mp4", 4)
    to = {"format": "bgr24", "interpolation": "AREA"}
    for one, other in zip(office, shop, strict=True):
        for frame, size in ((one, (640, 360)), (other, (640, 360)), (one, (333, 187))):
            alone = frame.reformat(*size, **to).to_ndarray()
            assert np.array_equal(converted(frame, *size, **to).to_ndarray(), alone)
    gray = converted(office[0], format="gray").to_ndarray()
    assert np.array_equal(gray, office[0].reformat(format="gray").to_ndarray())
