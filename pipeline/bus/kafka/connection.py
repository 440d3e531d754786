"""Opens Kafka clients, and turns Kafka's errors into messages with advice for the operator.

No error holds a secret. kafka-python's own loggers are silenced: at DEBUG they write passwords, and
while the brokers do not answer they write one line per attempt.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import errors as kafka
from kafka.net import transport
from kafka.net.compat import KafkaNetClient

from pipeline.bus.kafka import client_settings
from pipeline.config.schema import KafkaBus
from pipeline.errors import BrokersAway, OutsideError

_REFUSED = (
    kafka.SaslAuthenticationFailedError,
    kafka.UnsupportedSaslMechanismError,
    kafka.AuthorizationError,
    kafka.UnsupportedVersionError,
)
# ms; limit for a broker that accepts connections to send the metadata
BOOTSTRAP_TIMEOUT_MS = 10_000
# ms; longest pause between attempts (kafka-python's default is 30 s)
RECONNECT_BACKOFF_MAX_MS = 2_000
TLS_VERDICT_WAIT = 0.3  # s; a broker that rejects our certificate does so within this time
ANSWER_TIMEOUT = 5.0  # s; limit for the answer of the brokers to one request
RETRY_AFTER = 0.1  # s before the request is sent again
STALE_AFTER = 5.0  # s; an older answer of the brokers is not used
PROBE_TIMEOUT = 2.0  # s; limit for one broker to accept a connection

# Transient while the cluster changes, though kafka-python does not mark them as retriable
_PASSING = (
    kafka.UnknownBrokerIdError,
    kafka.BrokerNotAvailableError,
    kafka.IllegalStateError,  # a producer was abandoned while other threads waited for it
)


def passing(error: BaseException) -> bool:
    """Returns whether the same call may succeed later without any action."""
    return bool(getattr(error, "retriable", False)) or isinstance(error, _PASSING)


class _Tidy(selectors.DefaultSelector):
    """Closes the sockets of a client that closes while data is still unsent."""

    def close(self) -> None:
        for key in list((self.get_map() or {}).values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        super().close()


def _all_heard(receive: Callable[..., tuple[bytes, Any]]) -> Callable[..., tuple[bytes, Any]]:
    """Returns a read of a socket that passes on what a broker sent before it hung up.

    A broker that refuses a password answers, and closes the connection a moment later. When a slow
    client finds both at once, kafka-python 3.0 drops the answer, and the refusal reads as a broker
    that is away. The end of a connection is seen again by the next read: nothing is lost here.
    """

    def received(of: Any) -> tuple[bytes, Any]:
        data, error = receive(of)
        return (data, None) if data else (data, error)

    return received


# kafka-python has no setting for its transports
for _each in (transport.KafkaTCPTransport, transport.KafkaSSLTransport):
    _each._sock_recv = _all_heard(_each._sock_recv)  # noqa: SLF001


class _Refusal(logging.Handler):
    """Stops a connection attempt when the brokers refuse the client; kafka-python would retry.

    kafka-python reports why a connection failed only in a log record, whose argument is the error.
    This handler raises that error, so the attempt ends with it and not with a timeout.
    """

    def emit(self, record: logging.LogRecord) -> None:
        for what in record.args if isinstance(record.args, tuple) else ():
            if isinstance(what, _REFUSED) and str(record.msg).startswith("Bootstrap connection"):
                raise what


_listening = logging.getLogger("kafka.net.manager")
_listening.addHandler(_Refusal())
_listening.setLevel(logging.WARNING)
_listening.propagate = False


class Connector:
    """Opens clients to the brokers of `settings`, whose password is already resolved."""

    def __init__(self, settings: KafkaBus, client: str) -> None:
        self.settings = settings
        self._arguments = client_settings.arguments(settings, client)
        logging.getLogger("kafka").setLevel(logging.CRITICAL)

    def open(self, make: Callable[..., Any], **more: Any) -> Any:
        """Returns a client that has the cluster metadata; raises OutsideError.

        The error comes within seconds when no broker accepts a connection.
        """
        if not _connects(self.settings):
            raise self.outside(kafka.KafkaConnectionError(), "start")
        made: list[KafkaNetClient] = []

        def network(**settings: Any) -> KafkaNetClient:
            made.append(KafkaNetClient(**settings))
            return made[-1]

        try:
            return make(
                bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
                reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
                selector=_Tidy,
                kafka_client=network,
                **self._arguments,
                **more,
            )
        except BaseException as error:
            for each in made:  # a client that fails to start leaves its thread running
                each.close()
            if isinstance(error, kafka.KafkaError):
                raise self.outside(error, "start") from error
            raise

    def outside(self, error: BaseException, doing: str) -> OutsideError:
        """Returns the error to raise, with advice; `doing` completes "Kafka: cannot ..."."""
        return _outside(error, doing, self.settings)


def _outside(error: BaseException, doing: str, settings: KafkaBus) -> OutsideError:
    """Returns the error to raise, with advice; `doing` completes "cannot ..."."""
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
    """Probes each broker and returns why it does not serve: refused, no such host,
    certificate..."""
    silent = "accepts, but serves nobody, or has too few replicas in sync"
    if settings.sasl:  # a slow client may see the connection close before the refusal
        silent += f", or refuses user {settings.sasl.username}: see bus.sasl"
    seen = [f"{broker}: {_probe(broker, settings) or silent}" for broker in settings.brokers]
    return f"the brokers do not serve us ({'; '.join(seen)})"


def _connects(settings: KafkaBus) -> bool:
    """Returns whether at least one broker accepts a connection."""
    return any(not _probe(broker, settings) for broker in settings.brokers)


def _probe(broker: str, settings: KafkaBus) -> str:
    host, _, port = broker.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), PROBE_TIMEOUT) as plain:
            if settings.tls is not None:
                with client_settings.context(settings.tls).wrap_socket(
                    plain, server_hostname=host
                ) as wrapped:
                    _hear(wrapped)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not to be trusted: {error.verify_message}"
    except ssl.SSLError as error:
        return f"no TLS: {error.reason or 'the connection was closed'}"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def _hear(wrapped: ssl.SSLSocket) -> None:
    """Waits for the broker's verdict: TLS 1.3 rejects our certificate only after the handshake."""
    wrapped.settimeout(TLS_VERDICT_WAIT)
    with suppress(TimeoutError):
        wrapped.recv(1)
