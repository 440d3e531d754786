"""Connection settings for any Kafka client: addresses, TLS and SASL from the config.

Imports no client. The password in `settings` is already resolved and its paths are absolute
(`workers.config.secrets.Secrets.bus`).
"""

from __future__ import annotations

import ssl
from typing import Any

from pipeline.config.schema import KafkaBus, Tls
from pipeline.errors import ConfigError


def arguments(settings: KafkaBus, client: str) -> dict[str, Any]:
    """Returns kafka-python's connection settings; `client` is the client name in the brokers' logs.

    Raises ConfigError for TLS files that cannot be read. Do not log the result: it holds the
    password (kafka-python itself logs it, at level DEBUG).
    """
    made: dict[str, Any] = {
        "bootstrap_servers": list(settings.brokers),
        "client_id": client,
        "security_protocol": protocol(settings),
    }
    if settings.tls is not None:
        made["ssl_context"] = context(settings.tls)
    if settings.sasl is not None:
        made["sasl_mechanism"] = settings.sasl.mechanism
        made["sasl_plain_username"] = settings.sasl.username
        made["sasl_plain_password"] = settings.sasl.password
    return made


def protocol(settings: KafkaBus) -> str:
    """Returns Kafka's name of the security protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    below = "PLAINTEXT" if settings.tls is None else "SSL"
    return below if settings.sasl is None else f"SASL_{below}"


def context(tls: Tls) -> ssl.SSLContext:
    """Returns a TLS 1.2+ context that always verifies the brokers' certificates and host names.

    Raises ConfigError for files that cannot be read or are not valid.
    """
    path, which = tls.ca, "ca"
    try:
        made = ssl.create_default_context(cafile=tls.ca or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert:
            path, which = tls.cert, "cert"
            # A key with a passphrase is an error: without this OpenSSL asks on the terminal
            made.load_cert_chain(tls.cert, tls.key or None, password=lambda: "")
    except ssl.SSLError as error:
        what = "and key do not belong together, or are no PEM" if which == "cert" else "is no PEM"
        msg = f"bus.tls.{which}: {path} {what}, or it needs a passphrase ({error.reason})"
        raise ConfigError(msg) from error
    except OSError as error:
        also = f" (or {tls.key})" if which == "cert" and tls.key else ""
        msg = f"bus.tls.{which}: {path}{also} cannot be read: {error.strerror}"
        raise ConfigError(msg) from error
    return made
