"""Clients of Kafka that are open or say why not, and what Kafka's errors mean to whoever runs us.

No secret is ever in an error; kafka-python's own loggers are kept quiet, since at DEBUG they write
passwords, and while the brokers are away a line for every attempt.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
from collections.abc import Callable
from typing import Any

from kafka import errors as kafka

from pipeline.bus import kafka_link
from pipeline.config import KafkaBus
from pipeline.errors import BrokersAway, OutsideError

BOOTSTRAP = 10_000  # ms for a broker that accepts connections to say what the cluster is
RECONNECT = 2_000  # ms between attempts at most: after an outage nobody waits for half a minute
PROBE = 2.0  # s for one broker to accept a connection

# Transient, though kafka-python does not call them retriable: the cluster is just changing
_PASSING = (
    kafka.UnknownBrokerIdError,
    kafka.BrokerNotAvailableError,
    kafka.IllegalStateError,  # a producer that was given up while others waited for it
)


def passing(error: BaseException) -> bool:
    """Whether the same may work later without our doing."""
    return bool(getattr(error, "retriable", False)) or isinstance(error, _PASSING)


class _Tidy(selectors.DefaultSelector):
    """Closes the sockets of a client that ends while it still has something to write."""

    def close(self) -> None:
        for key in list((self.get_map() or {}).values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        super().close()


class Link:
    """The way to the brokers of `settings`, whose password is looked up already."""

    def __init__(self, settings: KafkaBus, client: str) -> None:
        self.settings = settings
        self._arguments = kafka_link.arguments(settings, client)
        logging.getLogger("kafka").setLevel(logging.CRITICAL)

    def open(self, make: Callable[..., Any], **more: Any) -> Any:
        """A client that knows the cluster; raises OutsideError, soon where nobody listens."""
        if not _connects(self.settings):  # a client that fails to start leaves its thread behind
            raise self.outside(kafka.KafkaConnectionError(), "start")
        settings = {**self._arguments, "selector": _Tidy, **more}
        try:
            return make(
                bootstrap_timeout_ms=BOOTSTRAP, reconnect_backoff_max_ms=RECONNECT, **settings
            )
        except kafka.KafkaError as error:
            raise self.outside(error, "start") from error

    def outside(self, error: BaseException, doing: str) -> OutsideError:
        """The error to raise, with advice; `doing` completes "Kafka: cannot ..."."""
        return _outside(error, doing, self.settings)


def _outside(error: BaseException, doing: str, settings: KafkaBus) -> OutsideError:
    """The error to raise, with advice; `doing` completes "cannot ..."."""
    user = settings.sasl.username if settings.sasl else "(anonymous)"
    match error:
        case kafka.SaslAuthenticationFailedError() | kafka.UnsupportedSaslMechanismError():
            how = settings.sasl.mechanism if settings.sasl else "no SASL"
            why = f"the brokers refuse user {user} by {how}: check bus.sasl (mechanism, password)"
        case kafka.AuthorizationError():
            why = f"user {user} may not ({type(error).__name__}): give it the right by an ACL"
        case kafka.UnknownTopicOrPartitionError():
            why = "there is no such topic: `fusewatch topics create CONFIG` makes it"
        case kafka.MessageSizeTooLargeError() | kafka.RecordListTooLargeError():
            why = (
                "a record is too large for the topic's max.message.bytes: "
                "`fusewatch topics create CONFIG` sets it from bus.max_message"
            )
        case kafka.InconsistentGroupProtocolError():
            why = (
                "the group has members of another kind, which share partitions in another way: "
                "all workers of a stage run with --faust, or none; stop the others first"
            )
        case kafka.FencedInstanceIdError():
            why = (
                "another process runs with the same --instance, and is the one that counts now: "
                "give each worker an instance of its own"
            )
        case kafka.OffsetMetadataTooLargeError():
            why = (
                "the note of this partition is over the brokers' offset.metadata.max.bytes (4096 "
                "by default): too many sites share a partition; use more partitions "
                "(bus.partitions), or raise that setting"
            )
        case _ if passing(error):
            return BrokersAway(f"Kafka: cannot {doing}: {_reached(settings)}")
        case _:
            about = getattr(error, "description", "") or str(error)
            why = f"{type(error).__name__}: {about}"
    return OutsideError(f"Kafka: cannot {doing}: {why}")


def _reached(settings: KafkaBus) -> str:
    """Why the brokers do not serve us, by trying each: refused, no such host, certificate..."""
    seen = [f"{broker}: {_probe(broker, settings) or 'connects'}" for broker in settings.brokers]
    return f"the brokers do not answer ({'; '.join(seen)})"


def _connects(settings: KafkaBus) -> bool:
    """Whether at least one broker accepts a connection."""
    return any(not _probe(broker, settings) for broker in settings.brokers)


def _probe(broker: str, settings: KafkaBus) -> str:
    host, _, port = broker.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE) as plain:
            if settings.tls is not None:
                context = kafka_link.context(settings.tls)
                context.wrap_socket(plain, server_hostname=host.strip("[]")).close()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not to be trusted: {error.verify_message}"
    except ssl.SSLError as error:
        return f"no TLS: {error.reason or 'the connection was closed'}"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""
