"""How brokers are reached, made of the config."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from pipeline.bus.kafka.client_settings import arguments
from pipeline.config.schema import KafkaBus, Sasl, Tls
from pipeline.errors import ConfigError

BUS = KafkaBus(brokers=("a:9092", "b:9092"))
SASL = Sasl(mechanism="SCRAM-SHA-512", username="fusewatch", password="planted-secret")


def made(name: str, folder: Path, *more: str) -> tuple[str, str]:
    """A certificate that vouches for itself, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"]
    command = ["openssl", "req", "-x509", *options, "-keyout", key, "-out", cert]
    subprocess.run([*command, *(more or ["-nodes"])], check=True, capture_output=True)
    return str(cert), str(key)


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [
        (None, None, "PLAINTEXT"),
        (Tls(), None, "SSL"),
        (None, SASL, "SASL_PLAINTEXT"),
        (Tls(), SASL, "SASL_SSL"),
    ],
)
def test_tls_and_sasl_make_the_protocol(tls: Tls | None, sasl: Sasl | None, protocol: str) -> None:
    bus = KafkaBus(brokers=("a:9092",), tls=tls, sasl=sasl)
    given = arguments(bus, "me")
    assert given["security_protocol"] == protocol
    assert given["client_id"] == "me"
    assert ("sasl_plain_password" in given) == (sasl is not None)


def test_the_brokers_certificates_and_names_are_always_verified(tmp_path: Path) -> None:
    cert, key = made("us", tmp_path)
    context = arguments(KafkaBus(brokers=("a:1",), tls=Tls(ca=cert, cert=cert, key=key)), "me")[
        "ssl_context"
    ]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_files_of_tls_that_are_no_use_are_told_by_name(tmp_path: Path) -> None:
    cert, key = made("us", tmp_path)
    other, _ = made("other", tmp_path)
    locked, locked_key = made("locked", tmp_path, "-passout", "pass:planted-secret")
    (tmp_path / "rubbish").write_text("rubbish")
    for tls, told in (
        (Tls(ca=str(tmp_path / "none.pem")), r"bus\.tls\.ca: .*none\.pem cannot be read: No such"),
        (Tls(ca=str(tmp_path / "rubbish")), r"bus\.tls\.ca: .*rubbish is no PEM"),
        (Tls(cert=cert, key=str(tmp_path / "none.key")), r"bus\.tls\.cert: .*none\.key\) cannot"),
        (Tls(cert=other, key=key), r"bus\.tls\.cert: .*other\.crt and key do not belong together"),
        (Tls(cert=locked, key=locked_key), r"bus\.tls\.cert: .* or it needs a passphrase"),
    ):
        with pytest.raises(ConfigError, match=told):
            arguments(KafkaBus(brokers=("a:9092",), tls=tls), "me")
