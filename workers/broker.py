"""The way from a config to its brokers; their client is an extra that may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import config
from pipeline.errors import ConfigError
from workers.secrets import Secrets

if TYPE_CHECKING:
    from pipeline.bus.kafka import KafkaBus


def kafka_bus(
    settings: config.KafkaBus, secrets: Secrets, *, instance: str = "", client: str = "fusewatch"
) -> KafkaBus:
    """A bus over the brokers of the config, whose password is looked up here.

    `instance` is the name by which a group knows this process again after a restart, `client` what
    brokers call us in their logs. Raises ConfigError where the extra `kafka` is not installed.
    """
    try:
        from pipeline.bus.kafka import KafkaBus  # noqa: PLC0415
    except ImportError as error:
        msg = f"bus.kind: kafka needs another package ({error}): pip install 'fusewatch[kafka]'"
        raise ConfigError(msg) from error
    return KafkaBus(secrets.bus(settings), instance=instance, client=client)
