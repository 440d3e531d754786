"""Reports over real HTTP on loopback: who may, what is kept, and what attackers get."""

import http.client
import json
import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Camera, Microphone, Site
from pipeline.errors import ConfigError, DiskFull, OutsideError, TooManyReports
from pipeline.judge.align import Aligner
from pipeline.types import SECOND, Described, Progress, Report, Roster, ns
from pipeline.words import cleaned
from tests import hostile_clients
from tests.live.servers import eventually
from workers.capture.report_api import MAX_BODY_BYTES, MAX_TEXT_BYTES, ReportApi
from workers.capture.report_client import own_token, read_token, send_dead_letter, send_report
from workers.capture.report_server import MAX_CONNECTIONS, Endpoint
from workers.capture.reports import MAX_WAITING, ReportBacklog, ReportSource, last_promises

TOKEN = "a-token-of-sufficient-length"
SITES = {
    "office": Site(
        cameras={"desk": Camera(source="x")}, microphones={"room": Microphone(source="y")}
    ),
    "lobby": Site(),
}


class Clock:
    def __init__(self):
        self.now = ns(1000)

    def __call__(self):
        return self.now


class Kept:
    """A bus that publishes durably, record by record."""

    def __init__(self):
        self.records = []
        self.fails = False

    def __call__(self, topic, records):
        if self.fails:
            raise OutsideError("disk full")  # noqa: EM101
        assert topic == topics.REPORTS
        self.records += records

    def only(self, kind, site="office"):
        return [r for r in self.records if isinstance(r, kind) and r.site == site]


class Daemon:
    def __init__(self, backlog=None, **given):
        self.kept, self.clock, self.stop = Kept(), Clock(), threading.Event()
        desk = ReportSource(SITES, self.kept, self.clock, backlog=backlog)
        self.endpoint = Endpoint("127.0.0.1:0", ReportApi(desk, TOKEN, **given), desk)
        self.port = self.endpoint.server_address[1]
        self.error = None
        self._thread = threading.Thread(target=self._serve)

    def _serve(self):
        try:
            self.endpoint.serve(self.stop)
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join()

    def ask(self, method="POST", path="/v1/reports", body=None, **headers):
        """(status, JSON) of one request; headers by name, `_` for `-`, None leaves one out."""
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            if data is not None and "Content-Length" not in given:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def raw(self, data):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(data)
            with suppress(OSError):  # the daemon may have hung up already
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def daemon():
    with Daemon() as daemon:
        yield daemon
    assert daemon.error is None


def report(**given):
    return {"site": "office", "author": "guard-1", "text": "two men are arguing"} | given


# What works


def test_a_report_is_kept_before_it_is_accepted(daemon):
    status, answer = daemon.ask(body=report())
    assert status == 202
    (kept,) = daemon.kept.only(Report)
    assert kept == Report(
        site="office",
        source="reports",
        start=ns(1000),
        end=ns(1000) + 1,
        author="guard-1",
        text="two men are arguing",
    )
    assert answer == {"site": "office", "start": ns(1000)}


def test_the_command_hands_over_a_report(daemon):
    send_report(daemon.endpoint.url, TOKEN, "lobby", "Räuber 強盗 \U0001f52b", "Jörg")
    (kept,) = daemon.kept.only(Report, "lobby")
    assert (kept.text, kept.author) == ("Räuber 強盗 \U0001f52b", "Jörg")


def test_the_roster_comes_before_the_first_report(daemon):
    daemon.ask(body=report())
    first, second = daemon.kept.records
    assert isinstance(first, Roster)
    assert first.sources == ("desk", "room", "room/speech", "reports")
    assert isinstance(second, Report)


def test_health_needs_no_token_and_status_does():
    with Daemon(status=lambda: {"sources": 3}, healthy=lambda: False) as daemon:
        assert daemon.ask("GET", "/healthz", Authorization=None) == (503, {"status": "failing"})
        assert daemon.ask("GET", "/v1/status", Authorization=None)[0] == 401
        assert daemon.ask("GET", "/v1/status") == (200, {"sources": 3})


@pytest.mark.parametrize(
    "counts", [{"failing_subscribers": 2}, {"failing_subscribers": 0, "lost_sources": 1}]
)
def test_what_a_restart_would_not_mend_is_counted_and_no_reason_for_one(counts):
    with Daemon(degraded=lambda: counts) as daemon:
        told = {"status": "degraded", **counts}
        assert daemon.ask("GET", "/healthz", Authorization=None) == (200, told)
    with Daemon(degraded=lambda: dict.fromkeys(counts, 0)) as daemon:
        assert daemon.ask("GET", "/healthz", Authorization=None) == (200, {"status": "ok"})


def test_a_dead_letter_is_sent_again_by_whoever_has_the_token():
    asked = []

    def retry(ident):
        asked.append(ident)
        if ident == "0:9":
            raise ConfigError("no dead letter 0:9")  # noqa: EM101
        return ident == "0:1", "said"

    path = "/v1/dead/retry"
    with Daemon(dead_retry=retry) as daemon:
        assert daemon.ask(path=path, body={"id": "0:1"}, Authorization=None)[0] == 401
        assert daemon.ask(path=path, body={"ids": ["0:1"]})[0] == 400
        assert asked == []
        told = {"id": "0:1", "sent": True, "outcome": "said"}
        assert daemon.ask(path=path, body={"id": "0:1"}) == (200, told)
        assert daemon.ask(path=path, body={"id": "0:9"})[0] == 404
        url = f"http://127.0.0.1:{daemon.port}"
        assert send_dead_letter(url, TOKEN, "0:2") == (False, "said")
        with pytest.raises(ConfigError, match="no dead letter 0:9"):
            send_dead_letter(url, TOKEN, "0:9")
        with pytest.raises(ConfigError, match="does not know this token"):
            send_dead_letter(url, "another-token-of-length", "0:1")
    with Daemon() as daemon:
        assert daemon.ask(path=path, body={"id": "0:1"})[0] == 404


def test_reports_at_once_are_all_kept_and_never_at_the_same_time(daemon):
    def many(name):
        for n in range(10):
            assert daemon.ask(body=report(author=name, text=f"{n}"))[0] == 202

    threads = [threading.Thread(target=many, args=(f"guard-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts = [kept.start for kept in daemon.kept.only(Report)]
    assert len(set(starts)) == len(starts) == 60
    assert starts == sorted(starts)


# Who may not


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer t\u00f6ken",
    ],
)
def test_without_the_token_nothing_is_kept(daemon, header):
    status, answer = daemon.ask(body=report(), Authorization=header)
    assert status == 401
    assert TOKEN not in json.dumps(answer)
    assert daemon.kept.records == []


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8674",
        "192.168.1.5",
        "127.0.0.1.evil.example",
        "[::1",
    ],
)
def test_a_page_by_a_rebound_name_gets_nothing(daemon, host):
    assert daemon.ask(body=report(), Host=host)[0] == 403
    assert daemon.ask("GET", "/healthz", Host=host)[0] == 403
    assert daemon.kept.records == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:8674"])
def test_every_name_of_this_machine_will_do(daemon, host):
    assert daemon.ask(body=report(), Host=host)[0] == 202


def test_a_browser_is_turned_away(daemon):
    assert daemon.ask(body=report(), Origin="http://localhost")[0] == 403
    assert daemon.ask(body=report(), Content_Type="text/plain")[0] == 415
    assert daemon.ask("OPTIONS", Origin="http://evil.example")[0] == 403


@pytest.mark.parametrize("listen", ["0.0.0.0:8674", ":8674", "[::]:8674", "192.168.1.5:8674"])
def test_only_loopback_is_bound(listen):
    desk = ReportSource(SITES, Kept(), Clock())
    with pytest.raises(ConfigError, match="loopback"):
        Endpoint(listen, ReportApi(desk, TOKEN), desk)


@pytest.mark.parametrize(
    "listen", ["", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1", "a b:1"]
)
def test_an_address_that_is_none_is_refused(listen):
    desk = ReportSource(SITES, Kept(), Clock())
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:8674"):
        Endpoint(listen, ReportApi(desk, TOKEN), desk)


def test_a_taken_port_is_said(daemon):
    desk = ReportSource(SITES, Kept(), Clock())
    with pytest.raises(OutsideError, match="is a daemon running"):
        Endpoint(f"127.0.0.1:{daemon.port}", ReportApi(desk, TOKEN), desk)


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_that_can_be_guessed_is_refused(token):
    with pytest.raises(ConfigError, match="16 characters"):
        ReportApi(ReportSource(SITES, Kept(), Clock()), token)


# What is no report


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"site":"office"}',
        b'{"site":"office","text":5}',
        b'{"site":"office","text":"a","extra":1}',
        b'{"site":"office","text":"\\ud800"}',
        b'{"site":"office","text":""}',
        b'{"site":"office","text":" \\u0000\\u0007 "}',
        b"[" * 50_000,
    ],
)
def test_what_is_no_report_is_refused(daemon, body):
    assert daemon.ask(body=body)[0] == 400
    assert daemon.kept.only(Report) == []


def test_an_unknown_site_is_refused_and_the_known_are_named(daemon):
    status, answer = daemon.ask(body=report(site="../office"))
    assert status == 404
    assert "office" in answer["error"]


def test_a_text_that_is_too_long_is_refused(daemon):
    assert daemon.ask(body=report(text="x" * MAX_TEXT_BYTES))[0] == 202
    assert daemon.ask(body=report(text="x" * (MAX_TEXT_BYTES + 1)))[0] == 413
    assert daemon.ask(body=report(text="ä" * MAX_TEXT_BYTES))[0] == 413
    assert daemon.ask(body=b"x" * (MAX_BODY_BYTES + 1))[0] == 413
    assert daemon.ask(body=report(author="x" * 101))[0] == 400
    assert len(daemon.kept.only(Report)) == 1


def test_a_body_that_claims_to_be_huge_is_not_waited_for(daemon):
    assert daemon.ask(body=b"x", Content_Length=str(10**12))[0] == 413


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "", "٣", None])
def test_a_body_of_no_known_length_is_refused(daemon, length):
    assert daemon.ask(body=None, Content_Length=length and length.encode())[0] in (411, 400)


def test_chunked_bodies_and_two_lengths_are_refused(daemon):
    head = f"POST /v1/reports HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    for more in ("Transfer-Encoding: chunked\r\n", "Content-Length: 2\r\nContent-Length: 9\r\n"):
        assert b" 411 " in daemon.raw((head + more + "\r\n{}").encode()).split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/reports/", "/../etc/passwd", "/v1/reports%00"])
def test_there_is_nothing_else(daemon, path):
    assert daemon.ask("GET", path)[0] == 404


def test_a_method_that_is_not_the_path_s_is_refused(daemon):
    assert daemon.ask("GET", "/v1/reports")[0] == 405
    assert daemon.ask("DELETE", "/v1/status")[0] == 405


def test_a_log_that_fails_is_said_and_the_next_report_is_taken(daemon):
    daemon.kept.fails = True
    assert daemon.ask(body=report())[0] == 503
    daemon.kept.fails = False
    assert daemon.ask(body=report())[0] == 202
    assert len(daemon.kept.only(Report)) == 1


def test_a_defect_in_one_answer_is_a_500_and_a_line_in_the_log(caplog):
    def bug():
        raise ZeroDivisionError

    with Daemon(status=bug) as daemon:
        assert daemon.ask("GET", "/v1/status")[0] == 500
        assert daemon.ask("GET", "/v1/status")[0] == 500
        assert daemon.ask(body=report())[0] == 202
    assert daemon.error is None
    (line,) = [r for r in caplog.records if "endpoint failed" in r.getMessage()]
    assert line.exc_info is not None


def test_who_sends_nothing_or_hangs_up_does_no_harm(daemon):
    for data in (b"", b"\r\n", b"GET", b"\0" * 100_000, b"POST /v1/reports HTTP/1.1\r\n"):
        daemon.raw(data)
    assert daemon.ask(body=report())[0] == 202


def test_slow_clients_without_a_token_are_cut_off_and_shut_nobody_out():
    """Each drips well within any timeout of a read; there are more of them than places."""
    with Daemon() as daemon:
        daemon.endpoint.head_timeout = 0.5
        hostile = [hostile_clients.Dripper(daemon.port) for _ in range(MAX_CONNECTIONS + 20)]
        try:
            for _ in range(40):
                assert daemon.ask(body=report())[0] == 202
            eventually(lambda: not any(client.send() for client in hostile), within=20)
        finally:
            for client in hostile:
                client.close()
    assert daemon.error is None


def test_slow_bodies_of_those_who_have_the_token_end(daemon):
    daemon.endpoint.whole = 0.5
    head = f"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    slow = hostile_clients.Dripper(daemon.port, f"{head}Content-Length: 9000\r\n\r\n".encode())
    eventually(lambda: not slow.send(), within=20)
    slow.close()
    assert daemon.ask(body=report())[0] == 202


@pytest.mark.parametrize("attack", hostile_clients.ATTACKS, ids=lambda attack: attack.__name__)
def test_no_client_ends_the_server(daemon, attack):
    attack(daemon.port)
    assert daemon.ask(body=report())[0] == 202
    assert daemon.error is None


# Texts


@given(st.text())
def test_a_cleaned_text_has_no_control_characters(text):
    made = cleaned(text)
    assert not [c for c in made if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert cleaned(made) == made


def test_cleaning_keeps_words_and_joins():
    assert cleaned("a\x00b\x1b[31m\r\nc \u202eevil\u202c \u2066x\u2069") == "a b [31m \nc evil x"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert cleaned(family) == family


# Time


def test_progress_is_promised_once_a_hop_and_the_roster_every_ten_seconds():
    kept, clock = Kept(), Clock()
    desk = ReportSource(SITES, kept, clock)
    for _ in range(100):
        desk.beat()
        clock.now += SECOND // 4
    assert len(kept.only(Progress)) == 25
    assert len(kept.only(Roster)) == 3
    uptos = [said.upto for said in kept.only(Progress)]
    assert uptos == sorted(uptos)
    assert all(said.alive for said in kept.only(Progress))


@given(st.lists(st.tuples(st.booleans(), st.integers(-5 * SECOND, 2 * SECOND)), max_size=60))
def test_no_report_starts_before_what_was_promised_whatever_the_clock_does(steps):
    kept, clock = Kept(), Clock()
    desk = ReportSource(SITES, kept, clock)
    for reports, step in steps:
        clock.now += step
        if reports:
            desk.submit("office", "a", "b")
        else:
            desk.beat()
    upto, last = 0, -1
    for record in kept.records:
        match record:
            case Progress(site="office"):
                assert record.upto >= upto
                upto = record.upto
            case Report():
                assert record.start >= upto
                assert record.start > last
                last = record.start


def test_after_a_restart_with_the_clock_set_back_no_report_is_a_repeat(tmp_path):
    log = LocalLog(tmp_path, clock=lambda: 0)

    def publish(topic, records):
        for record in records:
            log.publish(topic, topics.key_of(topic, record), codec.encode(record))
        log.flush()

    clock = Clock()
    ReportSource(SITES, publish, clock).beat()
    clock.now -= 3600 * SECOND
    assert last_promises(log.last, ["office", "lobby", "new"]) == {
        "office": ns(1000),
        "lobby": ns(1000),
    }
    again = ReportSource(SITES, publish, clock, last_promises(log.last, tuple(SITES)))
    assert again.submit("office", "a", "b").start == ns(1000)
    log.close()


def test_reports_pass_the_aligner_and_none_is_a_repeat():
    """What the text stage makes of them, on a site that has nothing but reports."""
    kept, clock = Kept(), Clock()
    desk = ReportSource(SITES, kept, clock)
    for n in range(20):
        desk.beat()
        desk.submit("lobby", "a", f"{n}")
        desk.submit("lobby", "a", f"{n}")
        clock.now += SECOND
    desk.beat()
    aligner = Aligner("lobby", 4 * SECOND, SECOND)
    seen = set()
    for record in kept.records:
        if record.site != "lobby":
            continue
        if isinstance(record, Report):
            record = Described(  # noqa: PLW2901
                **{
                    n: getattr(record, n)
                    for n in ("site", "source", "start", "end", "text", "author")
                }
            )
        for window in aligner.push(record):
            assert type(window).__name__ == "Window"
            seen |= {one.start for one in window.observations}
    assert len(seen) >= 30


def test_the_endpoint_speaks_for_the_sites_while_it_lives():
    bus, stop = MemoryBus(), threading.Event()

    def publish(topic, records):
        for record in records:
            bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
        bus.flush()
        stop.set()

    desk = ReportSource(SITES, publish, Clock())
    endpoint = Endpoint("[::1]:0", ReportApi(desk, TOKEN), desk)
    endpoint.progress_loop(stop)
    endpoint.server_close()
    kinds = [type(codec.decode(value)).__name__ for value in bus.values(topics.REPORTS)]
    assert kinds == ["Roster", "Progress"] * 2


# The command


def test_a_daemon_that_does_not_run_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OutsideError, match="fusewatch run"):
        send_report(f"http://127.0.0.1:{port}", TOKEN, "office", "text", "me")


def test_a_refusal_is_said_in_the_daemons_words(daemon):
    url = daemon.endpoint.url
    with pytest.raises(ConfigError, match="does not know this token") as refusal:
        send_report(url, "wrong-token-wrong", "office", "text", "me")
    assert "wrong-token" not in str(refusal.value)
    with pytest.raises(ConfigError, match="office, lobby"):
        send_report(url, TOKEN, "nowhere", "text", "me")
    daemon.kept.fails = True
    with pytest.raises(OutsideError, match="try again"):
        send_report(url, TOKEN, "office", "text", "me")


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1", "http://", "http://[::1", "http://a:b"])
def test_what_is_no_address_of_a_daemon_is_said(url):
    with pytest.raises(ConfigError, match=r"like http://127\.0\.0\.1:8674"):
        send_report(url, TOKEN, "office", "text", "me")


def test_what_is_no_fusewatch_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk():
            connection = other.accept()[0]
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(ConfigError, match="not from a Fusewatch"):
            send_report(f"http://127.0.0.1:{other.getsockname()[1]}", TOKEN, "office", "t", "me")
        thread.join()


def test_who_echoes_the_request_does_not_make_us_show_the_token():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk():
            connection = other.accept()[0]
            with connection:
                asked = b""
                while not asked.endswith(b"}"):  # a rest that is not read resets the connection
                    asked += connection.recv(65536)
                connection.sendall(next(x for x in asked.split(b"\r\n") if TOKEN.encode() in x))

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(OutsideError, match="no HTTP") as caught:
            send_report(f"http://127.0.0.1:{other.getsockname()[1]}", TOKEN, "office", "t", "me")
        thread.join()
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_token_is_made_once_and_for_its_owner_only(tmp_path):
    with pytest.raises(ConfigError, match="no token"):
        read_token(tmp_path)
    made = own_token(tmp_path / "state")
    assert own_token(tmp_path / "state") == read_token(tmp_path / "state") == made
    assert len(made) > 40
    assert (tmp_path / "state" / "token").stat().st_mode & 0o777 == 0o600


class Reading:
    """How far the text stage is, in a log that holds only reports."""

    def __init__(self):
        self.end = self.read = 0

    def backlog(self):
        def end():
            self.end += 1
            return self.end

        return ReportBacklog(end=end, read=lambda: self.read)


def test_a_site_whose_reports_are_not_read_has_to_wait_and_the_other_does_not():
    reading = Reading()
    with Daemon(backlog=reading.backlog()) as daemon:
        body = {"site": "office", "text": "x" * MAX_TEXT_BYTES}
        answers = [daemon.ask(body=body) for _ in range(18)]
        assert [status for status, _ in answers] == [202] * 16 + [429] * 2
        assert "16 reports of office wait to be read" in answers[-1][1]["error"]
        assert daemon.ask(body={"site": "lobby", "text": "x"})[0] == 202
        reading.read = 1
        assert daemon.ask(body=body)[0] == 202
        assert daemon.ask(body=body)[0] == 429
        reading.read = reading.end
        assert daemon.ask(body=body)[0] == 202
        assert len(daemon.kept.only(Report)) == 18


def test_many_short_reports_are_bounded_too():
    reading = Reading()
    source = ReportSource(SITES, Kept(), Clock(), backlog=reading.backlog())
    for _ in range(MAX_WAITING):
        source.submit("office", "", "x")
    with pytest.raises(TooManyReports):
        source.submit("office", "", "x")


def test_who_has_to_wait_is_told_for_how_long():
    reading = Reading()
    with Daemon(backlog=reading.backlog()) as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        daemon.kept.fails = True
        body = json.dumps({"site": "office", "text": "x"})
        connection.request("POST", "/v1/reports", body, head)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Retry-After")) == (503, "5")
        connection.close()


def test_a_refused_report_is_an_outside_error_for_the_client():
    reading = Reading()
    with Daemon(backlog=reading.backlog()) as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        for _ in range(16):
            send_report(url, TOKEN, "office", "x" * MAX_TEXT_BYTES, "")
        with pytest.raises(OutsideError, match="wait to be read"):
            send_report(url, TOKEN, "office", "x" * MAX_TEXT_BYTES, "")


def test_progress_and_roster_that_a_full_disk_refused_come_later():
    kept, clock = Kept(), Clock()
    full = [True]

    def publish(topic, records):
        if full[0]:
            raise DiskFull
        kept(topic, records)

    source = ReportSource(SITES, publish, clock)
    source.beat()
    with pytest.raises(DiskFull):
        source.submit("office", "", "x")
    full[0] = False
    source.beat()
    assert len(kept.only(Roster)) == len(kept.only(Progress)) == 1
