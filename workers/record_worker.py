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
from workers.runtime.status import Status
from workers.runtime.supervisor import LOOK_EVERY, Supervisor
from workers.view import View

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
    secrets, supervisor, status = Secrets(base=path.parent), Supervisor(), Status()
    view = View(status, secrets, settings.sites)
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
            status.gauge,
            log=_name_of(brokers),
            configs=bus.between(topics.CONFIGS, 0, FOREVER),
        )
        log.info("recording into %s", folder)
        supervisor.start(RECORD, partial(recorder.loop, supervisor.stop))
        try:
            view.ready()
            while not supervisor.stop.wait(LOOK_EVERY):
                view.tick()
        finally:
            supervisor.stop.set()
            supervisor.join()

    def close() -> None:
        bus.close()
        view.close()

    return supervisor.run(body, close)


def _name_of(brokers: schema.KafkaBus) -> str:
    """Names the topics of these brokers without an address."""
    whole = "\x1f".join((brokers.prefix, *sorted(brokers.brokers)))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
