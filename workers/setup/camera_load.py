"""Reads the cameras of a config for some seconds, and measures what that costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.schema import Camera, Config, addresses
from pipeline.errors import FusewatchError
from pipeline.types import FrameChunk
from workers.capture import factory
from workers.config import source_address
from workers.config.secrets import Secrets
from workers.setup.recommendation import Place

FIRST, WATCHED = 12.0, 5.0  # s until the first frame, and of the measurement


def read_cameras(
    config: Config, env: Mapping[str, str], base: Path
) -> tuple[dict[Place, float], dict[Place, str]]:
    """Returns the cores that each camera takes, and why others could not be read.

    All are read at once, as `run` does it. What they take together is shared evenly.
    """
    readers = [
        _Reader((site_name, name), camera, env, base)
        for site_name, site in config.sites.items()
        for name, camera in site.cameras.items()
    ]
    end = time.monotonic() + FIRST
    for reader in readers:
        reader.ready.wait(max(0.0, end - time.monotonic()))
    used, began = time.process_time(), time.monotonic()
    time.sleep(WATCHED)
    cores = (time.process_time() - used) / (time.monotonic() - began)
    for reader in readers:
        reader.stop.set()
    good = [reader for reader in readers if reader.frames and not reader.why]
    read = {reader.place: cores / len(good) for reader in good}
    late = f"gave no frame within {FIRST:g} s"
    return read, {one.place: one.why or late for one in readers if one.place not in read}


class _Reader:
    """Reads one camera in a thread until it is stopped."""

    def __init__(self, place: Place, camera: Camera, env: Mapping[str, str], base: Path) -> None:
        self.place, self.why, self.frames = place, "", 0
        self.ready, self.stop = threading.Event(), threading.Event()
        self._camera, self._secrets, self._base = camera, Secrets(env, base), base
        name = f"camera {'/'.join(place)}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._read()
        except (FusewatchError, ImportError) as error:
            self.why = self._secrets.redact(str(error))
        self.ready.set()

    def _read(self) -> None:
        at, given = next(iter(addresses(self._camera).items()))
        site, name = self.place
        path = ".".join(("sites", site, "cameras", name, *map(str, at)))
        address = source_address.parse(self._secrets.source(given, path), "camera", self._base)
        source = factory.source(
            address, site, name, "", self._camera, clock=time.time_ns, count=lambda *_: None
        )
        try:
            for chunk in source:
                if self.stop.is_set():
                    return
                if isinstance(chunk, FrameChunk):
                    self.frames += 1
                    self.ready.set()
            self.why = "it ended before it was measured"
        finally:
            source.close()
