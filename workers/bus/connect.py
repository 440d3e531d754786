"""Connects to the brokers of a config; the client package is an extra that may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import schema
from pipeline.errors import ConfigError, install_hint
from workers.bus.preflight import check_group, check_topics
from workers.config import loader
from workers.config.secrets import Secrets

if TYPE_CHECKING:
    from pipeline.bus.kafka.admin import Admin
    from pipeline.bus.kafka.bus import KafkaBus


def load_kafka_config(path: Path) -> tuple[schema.Config, schema.KafkaBus, Secrets]:
    """The config in a file, its bus and its secrets; raises ConfigError if the bus is not Kafka."""
    settings = loader.load(path)
    if not isinstance(settings.bus, schema.KafkaBus):
        msg = f"{path}: bus: this needs brokers, `{{kind: kafka, brokers: [HOST:PORT]}}`"
        raise ConfigError(msg)
    return settings, settings.bus, Secrets(base=path.parent)


def kafka_bus(
    settings: schema.KafkaBus, secrets: Secrets, *, instance: str = "", client: str = "fusewatch"
) -> KafkaBus:
    """Creates a bus over the brokers of the config; looks up their password.

    `instance` identifies this process in its consumer group over a restart; `client` is the name in
    the brokers' logs. Raises ConfigError if the extra `kafka` is not installed.
    """
    with _extra():
        from pipeline.bus.kafka.bus import KafkaBus  # noqa: PLC0415
    return KafkaBus(secrets.bus(settings), instance=instance, client=client)


def check(
    settings: schema.KafkaBus, secrets: Secrets, groups: Sequence[str] = (), *, faust: bool = False
) -> None:
    """Checks that the brokers have what a worker in `groups` needs.

    Raises ConfigError for a fault that `fusewatch topics create` repairs, OutsideError when the
    brokers are away or a group has the other kind of worker.
    """
    with admin(settings, secrets) as known:
        check_topics(known, settings)
        for group in groups:
            check_group(known, settings, group, faust=faust)


def admin(settings: schema.KafkaBus, secrets: Secrets) -> Admin:
    """An admin client for topics and groups of the config's brokers.

    Raises as `kafka_bus` does, and OutsideError when the brokers are away.
    """
    with _extra():
        from pipeline.bus.kafka.admin import Admin  # noqa: PLC0415
    return Admin(secrets.bus(settings))


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        msg = f"bus.kind: kafka needs another package ({error}): {install_hint('kafka')}"
        raise ConfigError(msg) from error
