"""Chooses the tracks of an open stream or file for a camera and a microphone."""

from __future__ import annotations

import logging
from typing import Any

from pipeline.errors import SourceLost
from workers.media import containers

log = logging.getLogger("fusewatch")


def chosen(
    container: Any, site: str, camera: str, microphone: str, track: int | None, what: str
) -> list[Any]:
    """The stream of pictures, if there is a camera, and that of sound, if there is a microphone.

    Says it when there are several sound tracks and the config chooses none (`track`). Raises
    SourceLost, and closes the container, for a track that is missing or has no decoder.
    """
    streams = []
    try:
        if camera:
            streams.append(containers.picture_track(container))
        if microphone:
            streams.append(containers.sound_track(container, track or 1))
    except LookupError as error:
        container.close()
        msg = f"the {what} {error}"
        raise SourceLost(msg) from None
    tracks = len(container.streams.audio)
    if microphone and track is None and tracks > 1:
        log.warning(
            "%s/%s: there are %d sound tracks, and the first is taken; `track` chooses another",
            site,
            microphone,
            tracks,
        )
    return streams
