"""The worker `record`: records continuously what is on the brokers, in a process of its own."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path

from pipeline import topics
from pipeline.config import schema
from pipeline.errors import ConfigError
from pipeline.stages import RECORD
from pipeline.types import FOREVER
from workers.bus import connect
from workers.config import loader
from workers.config.secrets import Secrets
from workers.recorder.begin import RECORDED
from workers.recorder.continuous import ContinuousRecorder, folder_of
from workers.recorder.tails import KafkaTail
from workers.runtime.state_folder import state_folder
from workers.runtime.supervisor import Supervisor

log = logging.getLogger("fusewatch")


def run(path: Path, *, instance: str, state: Path | None) -> int:
    """Records until it is stopped; returns as `Supervisor.run` does. Raises as a worker does.

    Several processes share the partitions; each needs a folder of its own.
    """
    settings = loader.load(path)
    brokers, recording = settings.bus, settings.recording
    if not isinstance(brokers, schema.KafkaBus):
        msg = (
            f"{path}: bus: a worker needs brokers; with a log of its own, `fusewatch run {path}` "
            "records by itself"
        )
        raise ConfigError(msg)
    if recording is None:
        msg = f'{path}: recording: is missing; for example `recording: {{keep: "50 GB"}}`'
        raise ConfigError(msg)
    secrets, supervisor = Secrets(base=path.parent), Supervisor()
    name = "-".join(filter(None, ("fusewatch", RECORD, instance)))
    bus = connect.kafka_bus(brokers, secrets, instance=instance, client=name)
    folder = folder_of(recording, state_folder(settings, state))

    def body() -> None:
        connect.check(brokers, secrets)
        recorder = ContinuousRecorder(
            settings,
            recording,
            folder,
            {topic: KafkaTail(bus, topic, RECORD) for topic in RECORDED},
            _Told(),
            log=_name_of(brokers),
            configs=bus.between(topics.CONFIGS, 0, FOREVER),
        )
        log.info("recording into %s", folder)
        supervisor.start(RECORD, partial(recorder.loop, supervisor.stop))
        supervisor.stop.wait()
        supervisor.join()

    return supervisor.run(body, bus.close)


def _name_of(brokers: schema.KafkaBus) -> str:
    """Names the topics of these brokers without an address."""
    whole = "\x1f".join((brokers.prefix, *sorted(brokers.brokers)))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


class _Told:
    """Logs what is lost: this worker has no status page."""

    def __init__(self) -> None:
        self._lost = 0.0

    def __call__(self, name: str, value: float) -> None:
        """Takes a gauge; the recorder sets it every ten seconds."""
        if name == "recording.lost" and value > self._lost:
            log.warning("%g records were deleted before they were recorded", value)
            self._lost = value
