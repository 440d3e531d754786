"""Secrets are found where they are pointed to, and nowhere else."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path

import pytest

from pipeline.config.schema import KafkaBus, Sasl, Tls, Webhook
from pipeline.errors import ConfigError
from workers.config.secrets import Redacting, Secret, Secrets, checkable
from workers.config.source_address import parse

PASSWORD = 'hunter2/ö"x'


def test_a_variable_is_put_into_an_address() -> None:
    secrets = Secrets({"PW": "abc"})
    assert secrets.source("rtsp://u:${PW}@h/x", "a.b") == "rtsp://u:abc@h/x"


def test_a_password_beside_the_address_may_hold_any_character() -> None:
    source = Secrets({"PW": PASSWORD}).source(
        {"url": "rtsp://h/x", "username": "u", "password": "${PW}"}, "a.b"
    )
    assert parse(source, "camera").target == "rtsp://u:hunter2%2F%C3%B6%22x@h/x"


@pytest.mark.parametrize("env", [{}, {"PW": ""}])
def test_a_missing_variable_is_told_with_its_name_and_path(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^a\.b: the environment variable PW is not set"):
        Secrets(env).source("rtsp://u:${PW}@h/x", "a.b")


def test_a_variable_is_not_expanded_twice() -> None:
    assert Secrets({"A": "${B}", "B": "x"}).lookup("${A}", "p").reveal() == "${B}"


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A B}", "${A:-x}", "${A"])
def test_a_dollar_and_brace_begin_a_variable(text: str) -> None:
    with pytest.raises(ConfigError, match="must be followed by a variable"):
        Secrets({"A": "x"}).lookup(text, "p")


def test_a_secret_in_a_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("whsec_abc\n")
    assert Secrets({}, tmp_path).lookup("file:hook", "p").reveal() == "whsec_abc"
    named = Secrets({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert named.lookup("file:${CREDENTIALS_DIRECTORY}/hook", "p").reveal() == "whsec_abc"


def test_what_a_file_holds_may_be_a_part_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(f"{PASSWORD}\n")
    secrets = Secrets({}, tmp_path)
    source = secrets.source("http://h/x?user=u&password=${file:pw}&n=1", "a.source")
    assert source == f"http://h/x?user=u&password={PASSWORD}&n=1"
    assert PASSWORD not in secrets.redact(f"it is {PASSWORD}")
    assert checkable("http://h/x?password=${file:pw}", {}) == "http://h/x?password=1"
    assert checkable("${file:address}", {}) is None
    with pytest.raises(ConfigError, match=r"^a\.source: the secret's file .*none cannot be read"):
        secrets.source("http://h/x?password=${file:none}", "a.source")


def test_the_password_of_a_source_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("a b@c\n")
    secrets = Secrets({}, tmp_path)
    given = {"url": "rtsp://h/x", "username": "ops", "password": "file:pw"}
    source = secrets.source(given, "a.source")
    assert parse(source, "camera").target == "rtsp://ops:a%20b%40c@h/x"
    assert "a b@c" not in secrets.redact(f"{source}")


def test_a_bus_has_its_password_looked_up_and_its_files_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(f"{PASSWORD}\n")
    bus = KafkaBus(
        brokers=("kafka:9092",),
        tls=Tls(ca="ca.pem", key="/etc/${USER}.key"),
        sasl=Sasl(mechanism="PLAIN", username="${USER}", password="file:pw"),
    )
    secrets = Secrets({"USER": "fuse"}, tmp_path)
    ready = secrets.bus(bus)
    assert ready.tls == Tls(ca=str(tmp_path / "ca.pem"), cert="", key="/etc/fuse.key")
    assert ready.sasl == Sasl(mechanism="PLAIN", username="fuse", password=PASSWORD)
    assert PASSWORD not in repr(ready)
    assert secrets.redact(f"<{PASSWORD}>") == "<***>"


def test_a_bus_without_secrets_is_the_same_bus(tmp_path: Path) -> None:
    bus = KafkaBus(brokers=("kafka:9092",))
    assert Secrets({}, tmp_path).bus(bus) == bus


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "empty"), (b"\xff", "not text"), (b"x" * 70_000, "too long")]
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "hook").write_bytes(data)
    with pytest.raises(ConfigError, match=what):
        Secrets({}, tmp_path).lookup("file:hook", "p")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Secrets({}, tmp_path).lookup("file:none", "p")


def test_the_secrets_of_a_webhook_are_looked_up_together(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("whsec_old")
    hook = Webhook(url="https://h/${TOKEN}", secret=("${NEW}", "file:old"))
    found = Secrets({"TOKEN": "tok", "NEW": "whsec_new"}, tmp_path).webhook(hook, "webhooks[0]")
    assert (found.url, found.secret) == ("https://h/tok", ("whsec_new", "whsec_old"))
    assert "tok" not in repr(found)
    assert "whsec" not in repr(found)


def test_a_secret_is_never_shown_and_never_stored() -> None:
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {[secret]} {Secrets({'A': 'hunter2'})!r}"
    assert "hunter2" not in shown
    for store in (pickle.dumps, copy.copy, json.dumps):
        with pytest.raises(TypeError):
            store(secret)


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://user:hunter2@h/x",
        "rtsp://:hunter2@h/x",
        "rtsp://ops%40site:hunter2@h/x",
        "rtsp://hunter2@h/x",
        "rtsp://u:${PW}@h/x",
        "http://h/?usr=a&pwd=${PW}",
        "http://h/?usr=a&pwd=hunter2",
        "rtsp://h/x?password=hunter2&user=a",
        "rtsp://h/user=a&password=hunter2&channel=1",
    ],
)
def test_logs_hold_no_password_of_an_address(address: str) -> None:
    secrets = Secrets({"PW": "hunter2"})
    source = secrets.source(address, "p")
    record = logging.LogRecord(
        "n", logging.ERROR, "f", 1, "cannot open %s: %s", (source, "hunter2"), None
    )
    assert Redacting(secrets).filter(record)
    assert "hunter2" not in logging.Formatter().format(record)
    assert "cannot open" in record.getMessage()


def test_logs_hold_no_key_of_a_webhooks_address() -> None:
    secrets = Secrets({})
    for url in ("https://h/services/T0/hunter2hunter2hunter2", "https://h/x?key=hunter2"):
        secrets.webhook(Webhook(url=url, secret="whsec_hunter2"), "webhooks[0]")
        assert "hunter2" not in secrets.redact(f"no route to {url}")
    assert secrets.redact("services of T0") == "services of T0"


def test_logs_hold_no_secret_in_any_spelling(tmp_path: Path) -> None:
    secrets = Secrets({"PW": PASSWORD})
    secrets.lookup("${PW}", "p")
    for spelled in (PASSWORD, "hunter2%2F%C3%B6%22x", json.dumps({"a": PASSWORD})):
        assert "hunter2" not in secrets.redact(f"before {spelled} after")


def test_logs_hold_no_secret_in_a_traceback() -> None:
    secrets = Secrets({"PW": "hunter2"})
    secrets.lookup("${PW}", "p")
    try:
        raise OSError("no route to rtsp://u:hunter2@h")  # noqa: EM101
    except OSError as error:
        told = (type(error), error, error.__traceback__)
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "failed", (), told)
    Redacting(secrets).filter(record)
    formatted = logging.Formatter().format(record)
    assert "hunter2" not in formatted
    assert "OSError: no route to rtsp://u:***@h" in formatted


def test_a_short_value_does_not_blank_every_line() -> None:
    secrets = Secrets({"CHANNEL": "1"})
    secrets.source("rtsp://h/${CHANNEL}", "p")
    assert secrets.redact("frame 1 of 10") == "frame 1 of 10"


def test_nothing_is_looked_up_before_it_is_asked_for(tmp_path: Path) -> None:
    class Watched(dict[str, str]):
        def get(self, *given: object) -> str:  # type: ignore[override]
            raise AssertionError(given)

    assert Secrets(Watched(), tmp_path).redact("x") == "x"


def test_each_line_of_a_secret_with_several_is_hidden() -> None:
    secrets = Secrets(env={"KEY": "first-line\nsecond-line"})
    secrets.expand("${KEY}", "x")
    assert secrets.redact("a second-line\nb first-line") == "a ***\nb ***"


def test_whoever_asks_is_told_of_every_secret_at_once_and_later() -> None:
    told: list[frozenset[str]] = []
    secrets = Secrets(env={"KEY": "value-1"})
    secrets.tell(told.append)
    secrets.expand("${KEY}", "x")
    assert told == [frozenset(), frozenset({"value-1"})]


def test_a_record_whose_arguments_do_not_fit_is_cleaned_and_not_an_error() -> None:
    secrets = Secrets(env={"KEY": "value-1"})
    secrets.expand("${KEY}", "x")
    record = logging.LogRecord("theirs", logging.INFO, "", 1, "%d of %d", ("value-1",), None)
    assert Redacting(secrets).filter(record)
    assert record.getMessage() == "%d of %d ('***',)"
