"""Estimates for how long the storage cap and the disk hold observations and pictures.

The size of a picture is that of the pictures which the cameras have just given. The sizes of
observations were measured on the recorded scenes of the tests, with the log's own bytes: a picture
that is looked at takes 0.8 kB in a quiet office and 2.4 kB in a busy shop, a second of sound 1.9
kB. The estimate gives both. In a busy shop, each picture has as many poses as the camera allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pipeline import topics
from pipeline.config.model_needs import pose_count
from pipeline.config.schema import Config, size_bytes
from pipeline.config.topic_plan import DAY, shares

QUIET, BUSY = 850, 2800  # bytes in the log for each picture that is looked at
POSE = 114  # bytes of a pose in an observation
SOUND_OBSERVED = 1900  # bytes in the log for each second of sound
SOUND_BYTES = 32_500  # bytes of a second of captured sound: 16 kHz, 16 bits, mono
EVIDENCE_SHARE = 10  # the cap divided by this is for pictures of alerts
ALERTS_A_DAY = 100  # assumed

Pictures = Mapping[tuple[str, str], int]  # (site, camera) -> bytes of one picture


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What `room` bytes hold; times are seconds, and none is longer than what is kept."""

    room: int
    observations: tuple[float, float]  # of a busy place, and of a quiet one
    pictures: float
    sound: float
    evidence: float  # pictures of alerts, at ALERTS_A_DAY alerts with a picture of each camera


def estimate(config: Config, pictures: Pictures, room: int) -> Estimate:
    """Returns how long `room` bytes last, divided as the cap is."""
    share = room / max(1, size_bytes(config.storage.cap))
    kept = shares(config)
    fps = {
        (site_name, name): camera.detect.fps
        for site_name, site in config.sites.items()
        for name, camera in site.cameras.items()
    }
    poses = sum(
        camera.detect.fps * pose_count(site, camera)
        for site in config.sites.values()
        for camera in site.cameras.values()
    )
    rooms = sum(len(site.microphones) for site in config.sites.values())
    seen = sum(pictures.get(camera, 0) * rate for camera, rate in fps.items())

    def lasts(topic: str, rate: float) -> float:
        size, most = kept[topic]
        return min(most, size * share / rate) if rate else 0.0

    busy, quiet = (
        lasts(topics.OBSERVATIONS, sum(fps.values()) * size + posed + rooms * SOUND_OBSERVED)
        for size, posed in ((BUSY, poses * POSE), (QUIET, 0.0))
    )
    alerts = ALERTS_A_DAY * sum(pictures.values()) / max(1, len(config.sites))
    return Estimate(
        room=room,
        observations=(busy, quiet),
        pictures=lasts(topics.FRAMES, seen),
        sound=lasts(topics.AUDIO, rooms * SOUND_BYTES),
        evidence=room / EVIDENCE_SHARE / alerts * DAY if alerts else 0.0,
    )


def told(config: Config, pictures: Pictures, free: int, used: int) -> str:
    """Returns the estimate in words: for the cap, and for the disk if it has less room."""
    cap = size_bytes(config.storage.cap)
    lines = [f"the cap of {cap / 1e9:.1f} GB holds {_words(estimate(config, pictures, cap))}"]
    if free + used < cap:
        rest = estimate(config, pictures, free + used)
        lines.append(f"the disk has room for {(free + used) / 1e9:.1f} GB: {_words(rest)}")
    return "; ".join(lines) + " (estimated)"


def _words(found: Estimate) -> str:
    busy, quiet = (_span(seconds) for seconds in found.observations)
    parts = [f"{busy if busy == quiet else f'{busy} (busy) to {quiet} (quiet)'} of observations"]
    if found.pictures:
        parts.append(f"{_span(found.pictures)} of pictures")
    if found.sound:
        parts.append(f"{_span(found.sound)} of sound")
    if found.evidence:
        parts.append(
            f"{_span(found.evidence)} of alerts' pictures at {ALERTS_A_DAY} alerts a day and site"
        )
    return ", ".join(parts)


def _span(seconds: float) -> str:
    if seconds >= 730 * DAY:
        return "years"
    for length, name in ((DAY, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.{0 if seconds >= 10 * length else 1}f} {name}"
    return f"{seconds:.0f} seconds"
