"""Webhooks against real servers on loopback: what receivers do, well and badly."""

import gzip
import logging
import socket
import ssl
import subprocess
import threading
import time
import traceback
from contextlib import contextmanager
from email.utils import formatdate

import pytest
import standardwebhooks

from pipeline.config.schema import Webhook as Settings
from pipeline.errors import ConfigError, Rejected, Retry
from pipeline.types import SECOND
from tests.make import alert
from workers.delivery.receiver import Receiver, Reply
from workers.delivery.webhook import MAX_ANSWER_BYTES, Webhook, try_out

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
NEXT = "whsec_YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlq"
PATH = "/in/T000/hunter2"


def hook(url, **settings):
    given = {"secret": SECRET, "timeout": 5, **settings}
    trust, resolve = given.pop("trust", None), given.pop("resolve", None)
    more = {"resolve": resolve} if resolve else {}
    return Webhook(Settings(url=url, **given), trust=trust, **more)


@contextmanager
def serving(talk, trust=None):
    """A raw server: `talk(connection)` for each that comes, in a thread; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()

    def one(connection):
        with connection:
            connection.settimeout(10)
            try:
                if trust is None:
                    talk(connection)
                    return
                with trust.wrap_socket(connection, server_side=True) as encrypted:
                    talk(encrypted)
            except OSError:
                return  # the client hung up, which is what some tests are about

    def accept():
        threads = []
        while not stop.is_set():
            try:
                threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
            except TimeoutError:
                continue
            threads[-1].start()
        for thread in threads:
            thread.join()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        accepting.join()
        listener.close()


def request_of(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += more_of(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += more_of(connection)
    return head + b"\r\n\r\n" + body


def more_of(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


def saying(*parts):
    def talk(connection):
        request_of(connection)
        for part in parts:
            connection.sendall(part)

    return talk


# What receivers get


def test_a_receiver_gets_a_signed_cloudevent():
    with Receiver(SECRET) as receiver:
        hook(receiver.url).send(alert(id="00ff", revision=2, state="updated"))
    (post,) = receiver.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert receiver.events["00ff_2"]["type"] == "fusewatch.alert.updated"
    assert headers["webhook-id"] == "00ff_2"
    assert headers["content-type"] == "application/cloudevents+json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert set(headers) == {
        *("host", "content-length", "content-type", "accept-encoding", "user-agent"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }


def test_a_receiver_that_checks_another_secret_refuses():
    with Receiver(NEXT) as receiver, pytest.raises(Retry, match="401"):
        hook(receiver.url).send(alert())
    assert not receiver.events


@pytest.mark.parametrize("known", [SECRET, NEXT])
def test_while_rotating_both_secrets_sign(known):
    with Receiver(known) as receiver:
        hook(receiver.url, secret=(SECRET, NEXT)).send(alert())
    assert len(receiver.events) == 1
    (post,) = receiver.posts
    assert len(post.headers["webhook-signature"].split(" ")) == 2


def test_a_changed_body_is_not_verified():
    with Receiver(SECRET) as receiver:
        hook(receiver.url).send(alert())
    (post,) = receiver.posts
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(
            post.body.replace(b"high", b"none"), dict(post.headers)
        )


def test_each_attempt_has_its_own_timestamp_and_the_same_id_and_body():
    moments = iter([1000.0, 1000.0, 2000.0, 2000.0])
    heard = []

    def talk(connection):
        heard.append(request_of(connection))
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    with serving(talk) as port:
        settings = Settings(url=f"http://127.0.0.1:{port}/", secret=SECRET)
        sink = Webhook(settings, clock=lambda: next(moments))
        for _ in range(2):
            with pytest.raises(Retry):
                sink.send(alert())
    first, second = heard
    assert b"webhook-timestamp: 1000\r\n" in first
    assert b"webhook-timestamp: 2000\r\n" in second
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]


# What receivers answer


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(status):
    with Receiver(SECRET, answer=lambda received: Reply(status)) as receiver:
        hook(receiver.url).send(alert())
    assert len(receiver.events) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_loopback_is_not_followed(status):
    with Receiver(SECRET) as trap:
        moved = Reply(status, {"Location": trap.url})
        with (
            Receiver(SECRET, answer=lambda received: moved) as receiver,
            pytest.raises(Retry, match="not followed") as retry,
        ):
            hook(receiver.url).send(alert())
        assert not retry.value.alone
    assert trap.posts == []
    assert len(receiver.posts) == 1


def test_410_disables():
    with (
        Receiver(SECRET, answer=lambda received: Reply(410)) as receiver,
        pytest.raises(Rejected) as rejected,
    ):
        hook(receiver.url).send(alert())
    assert rejected.value.disable


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 401, 403, 404, 408, 418])
def test_trouble_of_the_receiver_is_tried_again(status):
    with (
        Receiver(SECRET, answer=lambda received: Reply(status)) as receiver,
        pytest.raises(Retry, match=str(status)) as retry,
    ):
        hook(receiver.url).send(alert())
    assert not retry.value.alone
    assert retry.value.after is None


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_a_refusal_of_one_alert_speaks_of_that_alone(status):
    with (
        Receiver(SECRET, answer=lambda received: Reply(status)) as receiver,
        pytest.raises(Retry, match=str(status)) as retry,
    ):
        hook(receiver.url).send(alert())
    assert retry.value.alone


@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("7", 7),
        ("0", 0),
        ("999999999999999999999", 86400),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("", None),
        ("Wed, 99 Foo 2020", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_is_honoured(value, after):
    reply = Reply(429, {"Retry-After": value})
    with (
        Receiver(SECRET, answer=lambda received: reply) as receiver,
        pytest.raises(Retry) as retry,
    ):
        hook(receiver.url).send(alert())
    assert retry.value.after == after


def test_retry_after_may_be_a_date():
    reply = Reply(503, {"Retry-After": formatdate(time.time() + 600, usegmt=True)})
    with (
        Receiver(SECRET, answer=lambda received: reply) as receiver,
        pytest.raises(Retry) as retry,
    ):
        hook(receiver.url).send(alert())
    assert retry.value.after is not None
    assert 500 < retry.value.after <= 600


# What goes wrong below HTTP


def test_nobody_there_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Retry, match="ConnectError"):
        hook(f"http://127.0.0.1:{port}/").send(alert())


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 2", b"HTTP/1.1 abc OK\r\n\r\n", b"\0" * 1000],
)
def test_what_is_no_http_is_tried_again(answer):
    with serving(saying(answer)) as port, pytest.raises(Retry):
        hook(f"http://127.0.0.1:{port}/").send(alert())


def test_a_hung_receiver_gets_no_longer_than_its_timeout():
    release = threading.Event()

    def hang(connection):
        request_of(connection)
        release.wait(10)

    with serving(hang) as port:
        with pytest.raises(Retry, match=r"within 0\.3 s"):
            hook(f"http://127.0.0.1:{port}/", timeout=0.3).send(alert())
        release.set()


def test_a_receiver_that_drips_gets_no_longer_either():
    """Each byte comes well within any timeout of a single read, and there is no end of them."""
    stop = threading.Event()

    def drip(connection):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not stop.wait(0.02):
            connection.sendall(b"x")

    with serving(drip) as port:
        with pytest.raises(Retry, match="did not answer"):
            hook(f"http://127.0.0.1:{port}/", timeout=0.5).send(alert())
        stop.set()


def test_a_gigabyte_of_answer_is_not_read():
    sent = 0

    def pour(connection):
        nonlocal sent
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"x" * 1_000_000)
            sent += 1

    with serving(pour) as port:
        hook(f"http://127.0.0.1:{port}/").send(alert())
    assert sent < 100


def test_an_endless_header_is_not_read():
    def pour(connection):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for n in range(1_000_000):
            connection.sendall(b"X-%d: %s\r\n" % (n, b"y" * 1000))

    with serving(pour) as port, pytest.raises(Retry):
        hook(f"http://127.0.0.1:{port}/").send(alert())


def test_a_gzip_bomb_stays_packed():
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with serving(saying(head, bomb)) as port:
        hook(f"http://127.0.0.1:{port}/").send(alert())
    assert len(bomb) > MAX_ANSWER_BYTES


def test_a_body_that_breaks_off_after_a_200_changes_nothing():
    with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")) as port:
        hook(f"http://127.0.0.1:{port}/").send(alert())


def test_a_receiver_that_goes_on_with_1xx_for_ever_is_left():
    stop = threading.Event()

    def go_on(connection):
        request_of(connection)
        while not stop.wait(0.01):
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")

    with serving(go_on) as port:
        with pytest.raises(Retry, match="did not answer"):
            hook(f"http://127.0.0.1:{port}/", timeout=0.4).send(alert())
        stop.set()


# Names and certificates


def test_a_name_is_resolved_once_an_attempt_and_that_address_is_used():
    asked = []

    def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    with Receiver(SECRET) as receiver:
        url = receiver.url.replace("127.0.0.1", "hooks.example")
        sink = hook(url, resolve=resolve, allow_networks=("127.0.0.0/8",), allow_http=True)
        sink.send(alert())
        assert asked == ["hooks.example"]
        assert receiver.posts[0].headers["Host"].startswith("hooks.example:")
        with pytest.raises(Retry, match="allow_networks"):
            sink.send(alert())
    assert len(receiver.posts) == 1


def test_the_next_address_of_a_name_is_tried_when_the_first_is_dead():
    with Receiver(SECRET) as receiver:
        url = receiver.url.replace("127.0.0.1", "hooks.example")
        hook(
            url,
            resolve=lambda host, port: ["127.0.0.99", "127.0.0.1"],
            allow_networks=("127.0.0.0/8",),
        ).send(alert())
    assert len(receiver.events) == 1


def test_a_name_without_an_address_is_tried_again():
    with pytest.raises(Retry, match="no address"):
        hook("https://nothing.invalid/").send(alert())


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    with Receiver(SECRET) as proxy, Receiver(SECRET) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        hook(receiver.url).send(alert())
    assert proxy.posts == []
    assert len(receiver.events) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of `hooks.example`, signed by itself; its files."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=hooks.example"),
            *("-addext", "subjectAltName=DNS:hooks.example"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture
def tls(certificate):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    return server, ssl.create_default_context(cafile=str(certificate[0]))


def over_tls(port, host="hooks.example", **settings):
    return hook(
        f"https://{host}:{port}/",
        resolve=lambda host, port: ["127.0.0.1"],
        allow_networks=("127.0.0.0/8",),
        **settings,
    )


def test_https_checks_the_certificate_against_the_name_not_the_address(tls):
    names = []
    server, trust = tls
    server.sni_callback = lambda socket, name, context: names.append(name)
    with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), server) as port:
        over_tls(port, trust=trust).send(alert())
    assert names == ["hooks.example"]


def test_a_certificate_that_nobody_vouches_for_is_refused(tls):
    with (
        serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), tls[0]) as port,
        pytest.raises(Retry, match="certificate"),
    ):
        over_tls(port).send(alert())


def test_an_authority_of_the_operator_is_trusted(tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), tls[0]) as port:
        over_tls(port).send(alert())


def test_a_certificate_of_another_name_is_refused(tls):
    with (
        serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), tls[0]) as port,
        pytest.raises(Retry, match="certificate"),
    ):
        over_tls(port, host="other.example", trust=tls[1]).send(alert())


def test_tls_where_there_is_none_is_tried_again(tls):
    with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as port, pytest.raises(Retry):
        over_tls(port, trust=tls[1], timeout=1).send(alert())


# Secrets


@pytest.mark.parametrize(
    "secret",
    [
        "",
        (),
        "hunter2",
        "whsec_",
        "whsec_hunter2!!",
        "whsec_c2hvcnQ=",
        "whsec_" + "A" * 200,
        ("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "hunter2"),
        "WHSEC_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
        "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3\r\nODkwMTIz",
    ],
)
def test_a_bad_secret_is_refused_and_not_quoted(secret):
    with pytest.raises(ConfigError) as refusal:
        hook("https://hooks.example/", secret=secret)
    for text in (secret,) if isinstance(secret, str) else secret:
        assert text.removeprefix("whsec_")[:7] not in str(refusal.value) or not text[6:]
    assert refusal.value.__cause__ is None


def test_a_secret_may_be_padded_or_not_and_end_in_a_newline():
    for secret in ("whsec_" + "A" * 40, "whsec_" + "A" * 38 + "==", SECRET + "\n"):
        hook("https://hooks.example/", secret=secret)


def test_no_secret_and_no_path_in_logs_errors_or_repr(caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    with Receiver(SECRET, answer=lambda received: Reply(500)) as receiver:
        sink = hook(receiver.url.replace("/alerts", PATH))
        with pytest.raises(Retry) as failed:
            sink.send(alert())
        told += [repr(sink), str(sink), str(failed.value), repr(try_out(sink))]
    with pytest.raises(Retry) as failed:
        sink.send(alert())
    told += [str(failed.value), repr(try_out(sink)), caplog.text]
    for text in told:
        assert "hunter2" not in text
        assert SECRET.removeprefix("whsec_")[:12] not in text
        assert "0123456789012345" not in text


KEYS = ("PLANTED7", "PLANTED8", "plant%C3%A9d9")
ECHOES = {
    "status line": b"%s\r\n\r\n",
    "status": b"HTTP/1.1 %s OK\r\n\r\n",
    "version": b"HTTP/%s 200 OK\r\n\r\n",
    "reason of a refusal": b"HTTP/1.1 400 %s\r\ncontent-length: 0\r\n\r\n",
    "reason of a failure": b"HTTP/1.1 500 %s\r\ncontent-length: 0\r\n\r\n",
    "reason of a farewell": b"HTTP/1.1 410 %s\r\ncontent-length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n",
    "header": b"HTTP/1.1 500 No\r\nx-echo: %s\r\ncontent-length: 0\r\n\r\n",
    "header's name": b"HTTP/1.1 500 No\r\n%s: x\r\n\r\n",
    "header without a colon": b"HTTP/1.1 500 No\r\n%s\r\n\r\n",
    "folded header": b"HTTP/1.1 500 No\r\n %s\r\n\r\n",
    "length": b"HTTP/1.1 500 No\r\ncontent-length: %s\r\n\r\n",
    "encoding": b"HTTP/1.1 500 No\r\ntransfer-encoding: %s\r\n\r\n",
    "chunk": b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n%s\r\n",
    "retry-after": b"HTTP/1.1 503 No\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n",
    "interim": b"HTTP/1.1 100 %s\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 %s\r\nupgrade: %s\r\n\r\n",
    "body": b"HTTP/1.1 500 No\r\n\r\n%s",
    "too long": b"HTTP/1.1 500 " + b"%s" * 2000,
}


@pytest.mark.parametrize("place", ECHOES)
@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_a_receiver_that_echoes_our_request_makes_us_show_no_part_of_its_address(
    place, encrypted, tls, caplog
):
    caplog.set_level(logging.DEBUG)

    def echo(connection):
        line = request_of(connection).partition(b"\r\n")[0]
        connection.sendall(ECHOES[place].replace(b"%s", line))

    path = f"/hooks/{KEYS[0]}?key={KEYS[1]}&x={KEYS[2]}"
    with serving(echo, tls[0] if encrypted else None) as port:
        if encrypted:
            url = f"https://hooks.example:{port}{path}"
            networks = ("127.0.0.0/8",)
            sink = hook(url, resolve=lambda *_: ["127.0.0.1"], allow_networks=networks,
                        trust=tls[1])  # fmt: skip
        else:
            sink = hook(f"http://127.0.0.1:{port}{path}")
        with pytest.raises((Retry, Rejected)) as failed:
            sink.send(alert())
        tried = try_out(sink)
    assert not tried.ok
    trace = "".join(traceback.format_exception(failed.value))
    told = f"{failed.value!r} {tried} {caplog.text} {trace}"
    assert not [key for key in (*KEYS, "hooks/", "key=") if key in told]
    assert str(port) in tried.place


def test_an_echo_in_plain_text_where_tls_is_due_shows_nothing_either(tls, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(saying(b"POST /hooks/PLANTED7?key=PLANTED8 HTTP/1.1\r\n\r\n")) as port:
        outcome = try_out(over_tls(port, trust=tls[1], timeout=1))
    assert not outcome.ok
    assert "PLANTED" not in f"{outcome} {caplog.text}"


def test_a_receiver_that_hangs_up_is_told_from_one_that_talks_nonsense():
    for answer, told in ((b"", "hung up without an answer"), (b"\0" * 99, "no valid HTTP/1.1")):
        with serving(saying(answer)) as port, pytest.raises(Retry, match=told):
            hook(f"http://127.0.0.1:{port}/").send(alert())


# An alert that cannot be sent


@pytest.mark.no_schema
def test_an_alert_that_is_no_document_is_rejected():
    with Receiver(SECRET) as receiver:
        for bad in (alert(score=float("nan")), alert(id="a.b"), alert(id="a\r\nX-Evil: 1")):
            with pytest.raises(Rejected):
                hook(receiver.url).send(bad)
    assert receiver.posts == []


# `fusewatch webhooks test`


def test_a_test_event_tells_what_came_back():
    with Receiver(SECRET) as receiver:
        outcome = try_out(hook(receiver.url, name="siem"))
    (event,) = receiver.events.values()
    assert outcome.ok
    assert outcome.status == 204
    assert outcome.seconds < 5
    assert event["type"] == "fusewatch.test"
    assert event["subject"] == "siem"
    assert event["time"].startswith("20")
    assert event["id"].split("_")[1].isdigit()
    assert int(event["id"].split("_")[1]) > 10**9 * SECOND


def test_a_test_event_that_fails_says_why():
    with Receiver(NEXT) as receiver:
        outcome = try_out(hook(receiver.url))
    assert not outcome.ok
    assert outcome.status == 401
    assert "secret" in outcome.detail
    outcome = try_out(hook(receiver.url))
    assert not outcome.ok
    assert outcome.status is None
    assert "ConnectError" in outcome.detail
