"""The way from a config to its brokers; their client is an extra that may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline import config
from pipeline.errors import ConfigError
from workers.ready import check_group, check_topics
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
    with _extra():
        from pipeline.bus.kafka import KafkaBus  # noqa: PLC0415
    return KafkaBus(secrets.bus(settings), instance=instance, client=client)


def check(
    settings: config.KafkaBus, secrets: Secrets, groups: Sequence[str] = (), *, faust: bool = False
) -> None:
    """Whether the brokers have what a worker in `groups` needs.

    Raises ConfigError for what `fusewatch topics create` mends, OutsideError when they are away or
    a group has the other kind of worker.
    """
    with _extra():
        from pipeline.bus.kafka_admin import Admin  # noqa: PLC0415
    with Admin(secrets.bus(settings)) as admin:
        check_topics(admin, settings)
        for group in groups:
            check_group(admin, settings, group, faust=faust)


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        msg = f"bus.kind: kafka needs another package ({error}): pip install 'fusewatch[kafka]'"
        raise ConfigError(msg) from error
