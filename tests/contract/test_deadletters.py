"""`fusewatch dead` on the log of a daemon: shown and tried again, whether it runs or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.config.schema import Site
from pipeline.ports import Entry
from pipeline.run import dead_letter
from pipeline.types import DeadLetter, Record, ns
from tests import make
from workers.bus.dead_letter_store import DaemonRetries
from workers.capture.report_api import ReportApi
from workers.capture.report_client import own_token
from workers.capture.report_server import Endpoint
from workers.capture.reports import ReportSource
from workers.cli import main
from workers.config import loader
from workers.delivery.cloudevent import event_id
from workers.delivery.jsonl import Jsonl
from workers.delivery.receiver import Receiver

BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="


def dead(record: Record | bytes, topic: str = topics.FRAMES, **given: Any) -> DeadLetter:
    """What was put aside."""
    value = record if isinstance(record, bytes) else codec.encode(record)
    words = {"site": "office", "source": "desk", "reason": "no reason"} | given
    return dead_letter(topic=topic, entry=Entry(3, 1234, "", value), **words)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(folder: Path, webhooks: str = "[]") -> Path:
    path = folder / "office.yaml"
    path.write_text(
        f"version: 1\nsites: {{office: {{}}}}\nstate: {folder}/state\nwebhooks: {webhooks}\n"
    )
    return path


def log_of(folder: Path) -> LocalLog:
    """The daemon's, whose clock goes on by a minute with every flush."""
    times = iter(ns(BEGIN + 60 * n) for n in range(1000))
    return LocalLog(folder / "state" / "log", clock=lambda: next(times))


def fill(bus: LocalLog, *letters: DeadLetter | bytes) -> None:
    for each in letters:
        value = each if isinstance(each, bytes) else codec.encode(each)
        bus.publish(topics.DEAD, "office", value)
        bus.flush()


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[str], str]:
    """Exit code, lines of the output, and what was complained of."""
    code = main(["dead", *map(str, words)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out.splitlines(), said.err


def test_dead_letters_are_listed_while_the_daemon_runs(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    fill(bus, dead(make.frame(1)), dead(b"junk", topics.OBSERVATIONS, site="lobby", source=""))
    code, lines, _ = run(capsys, "list", config)
    bus.close()
    size = len(codec.encode(make.frame(1)))
    assert code == 0
    assert lines == [
        f"0:0  2026-01-05T22:00:00Z  office/desk  frames.v1/3@1234  {size} bytes  no reason",
        "0:1  2026-01-05T22:01:00Z  lobby  observations.v1/3@1234  4 bytes  no reason",
    ]


def test_a_site_or_a_time_narrows_the_list_and_a_program_may_read_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    fill(bus, *(dead(b"x", site=site) for site in ("office", "lobby", "office", "lobby")))
    fill(bus, dead(bytes(300_000)))
    bus.close()
    _, lines, _ = run(capsys, "list", config, "--site", "lobby", "--json")
    assert [json.loads(line)["id"] for line in lines] == ["0:1", "0:3"]
    _, lines, _ = run(capsys, "list", config, "--since", "2026-01-05T23:02:00+01:00", "--json")
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["0:2", "0:3", "0:4"]
    assert rows[0] == {
        **{"id": "0:2", "time": "2026-01-05T22:02:00.000000000Z", "site": "office"},
        **{"source": "desk", "topic": "frames.v1", "partition": 3, "offset": 1234},
        **{"reason": "no reason", "size": 1, "cut": False},
    }
    assert (rows[2]["size"], rows[2]["cut"]) == (262_144, True)
    none = run(capsys, "list", config, "--since", "5 min")[1]
    assert none == ["there are no dead letters since 5 min"]
    assert run(capsys, "list", config, "--since", "10m", "--json")[1] == []
    assert run(capsys, "list", config, "--site", "yard")[1] == [
        "there are no dead letters of site yard"
    ]


def test_what_a_terminal_would_obey_is_escaped(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    evil = "\x1b]0;owned\x07\n\u202e\x9b31m"
    fill(bus, dead(b"x", site=evil, source=evil, reason=evil, topic=evil), evil.encode() * 3)
    bus.close()
    for more in ((), ("--json",)):
        code, lines, _ = run(capsys, "list", config, *more)
        assert code == 0
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)
    assert "(no dead letter)" in run(capsys, "list", config)[1][1]
    code, lines, _ = run(capsys, "retry", config, "--all")
    assert code == 1
    assert all(line.isprintable() for line in lines)


def test_a_record_goes_back_under_its_own_key_and_may_go_back_twice(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    sound = make.sound(1)
    fill(bus, dead(make.frame(1)), dead(sound, topics.OBSERVATIONS, source="room"))
    bus.close()
    for _ in range(2):
        code, lines, _ = run(capsys, "retry", config, "0:1", "0:0")
        assert code == 0
        assert lines == [
            "0:0: published to frames.v1 again, under office/desk",
            "0:1: published to observations.v1 again, under office",
            "What begins before the time that its source has reached meanwhile counts as a repeat: "
            "it is read, counted, and changes nothing.",
        ]
    bus = log_of(tmp_path)
    frames = [e for e in bus.reader(topics.FRAMES, "t").poll(9) if isinstance(e, Entry)]
    assert [codec.decode(entry.value) for entry in frames] == [make.frame(1)] * 2
    assert {entry.key for entry in frames} == {"office/desk"}
    sounds = [e for e in bus.reader(topics.OBSERVATIONS, "t").poll(9) if isinstance(e, Entry)]
    assert {(entry.key, entry.value) for entry in sounds} == {("office", codec.encode(sound))}
    bus.close()


def test_what_cannot_go_back_is_told_and_the_rest_goes(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    fill(
        bus,
        dead(b"\xc1"),
        dead(make.frame(1, bytes(300_000))),
        dead(make.frame(1), "elsewhere.v1"),
        dead(make.frame(1), topics.DEAD),
        dead(make.alert(), topics.ALERTS, source="delivery/nobody"),
        dead(make.sound(1), topics.ALERTS, source="delivery/nobody"),
        b"rubbish",
        codec.encode(make.sound(1)),
        dead(make.frame(1)),
    )
    bus.close()
    code, lines, _ = run(capsys, "retry", config, "--all")
    assert code == 1
    for line, what in zip(
        lines,
        [
            "0:0: not sent: it would come back: not a Fusewatch record",
            "0:1: not sent: only its first 262144 bytes were kept",
            "0:2: not sent: elsewhere.v1 is no topic to which a record could go back",
            "0:3: not sent: dead.v1 is no topic",
            "0:4: not sent: there is no subscriber nobody here (there are: none)",
            "0:5: not sent: it is no alert, but Sound",
            "0:6: not sent: it is no dead letter: not a Fusewatch record",
            "0:7: not sent: it is no dead letter: Sound: not what belongs here",
            "0:8: published to frames.v1 again, under office/desk",
            "What begins before",
        ],
        strict=True,
    ):
        assert line.startswith(what)
    rows = [json.loads(x) for x in run(capsys, "retry", config, "0:8", "0:0", "--json")[1]]
    assert [(row["id"], row["sent"]) for row in rows] == [("0:0", False), ("0:8", True)]


def test_an_alert_goes_again_to_the_one_subscriber_that_did_not_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = [make.alert(label=f"label-{n}", id=f"{n:016x}") for n in range(3)]
    with Receiver(SECRET) as receiver, Receiver(SECRET) as other:
        config = written(
            tmp_path,
            f"[{{url: '{receiver.url}', secret: '{SECRET}', name: siem}},"
            f" {{url: '{other.url}', secret: '{SECRET}', name: other}}]",
        )
        bus = log_of(tmp_path)
        fill(bus, *(dead(a, topics.ALERTS, source="delivery/siem") for a in alerts))
        bus.close()
        assert run(capsys, "retry", config, "0:1")[1] == ["0:1: siem took it"]
        assert run(capsys, "retry", config, "--all")[0] == 0
        ids = [event_id(alerts[n]) for n in (1, 0, 1, 2)]
        assert [post.headers["webhook-id"] for post in receiver.posts] == ids
        assert all(post.event is not None for post in receiver.posts)
        assert other.posts == []
    code, lines, _ = run(capsys, "retry", config, "0:0")
    assert code == 1
    assert lines[0].startswith("0:0: not sent: siem did not take it: ")


def test_no_secret_of_a_webhook_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "planted-secret-of-a-path")
    config = written(
        tmp_path,
        f"[{{url: 'http://127.0.0.1:1/${{HOOK}}?key=planted-key', secret: '{SECRET}',"
        " name: siem}]",
    )
    bus = log_of(tmp_path)
    fill(bus, dead(make.alert(), topics.ALERTS, source="delivery/siem"))
    bus.close()
    for command in (("list",), ("retry", "--all"), ("retry", "--all", "--json")):
        code, lines, err = run(capsys, command[0], config, *command[1:])
        assert code == (0 if command[0] == "list" else 1)
        for secret in ("planted", SECRET, SECRET.removeprefix("whsec_")):
            assert secret not in "\n".join(lines) + err


@contextmanager
def served(folder: Path, bus: LocalLog, webhooks: str = "[]") -> Iterator[Path]:
    """The daemon's endpoint on its log; yields a config that names it."""
    path = written(folder, webhooks)
    state = folder / "state"
    reports = ReportSource({"office": Site()}, lambda topic, records: None, lambda: ns(BEGIN))
    retries = DaemonRetries(loader.load(path), state, bus)
    api = ReportApi(reports, own_token(state), dead_retry=retries)
    endpoint, stop = Endpoint("127.0.0.1:0", api, reports), threading.Event()
    path.write_text(path.read_text() + f"api: {{listen: '{endpoint.url.removeprefix('http://')}'}}")
    thread = threading.Thread(target=endpoint.serve, args=(stop,))
    thread.start()
    try:
        yield path
    finally:
        stop.set()
        thread.join()


def test_what_goes_to_a_topic_goes_through_the_daemon_that_has_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    fill(bus, dead(make.frame(1)), dead(make.frame(1), "elsewhere.v1"), dead(b"\xc1"))
    reader = bus.reader(topics.FRAMES, "vision")
    with served(tmp_path, bus) as config:
        code, lines, _ = run(capsys, "retry", config, "0:0", "0:1", "0:2")
        assert code == 1
        assert lines[:3] == [
            "0:0: published to frames.v1 again, under office/desk",
            "0:1: not sent: elsewhere.v1 is no topic to which a record could go back",
            "0:2: not sent: it would come back: not a Fusewatch record (schema 1): MessagePack "
            "data is malformed: invalid opcode '\\xc1' (byte 0)",
        ]
    frames = [e for e in reader.poll(9) if isinstance(e, Entry)]
    assert [codec.decode(entry.value) for entry in frames] == [make.frame(1)]
    bus.close()


def test_beside_a_daemon_an_alert_goes_to_its_webhook_or_into_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = make.alert(id="01"), make.alert(id="02")
    with Receiver(SECRET) as receiver:
        bus = log_of(tmp_path)
        fill(
            bus,
            dead(one, topics.ALERTS, source="delivery/siem"),
            dead(one, topics.ALERTS, source="delivery/jsonl"),
            dead(two, topics.ALERTS, source="delivery/jsonl"),
            dead(two, topics.ALERTS, source="delivery/gone"),
        )
        sink = Jsonl(tmp_path / "state" / "alerts.jsonl", ours=True)  # the daemon's own
        hook = f"[{{url: '{receiver.url}', secret: '{SECRET}', name: siem}}]"
        with served(tmp_path, bus, hook) as config:
            assert run(capsys, "retry", config, "0:0")[1] == ["0:0: siem took it"]
            code, lines, _ = run(capsys, "retry", config, "--all", "--subscriber", "jsonl")
            assert (code, lines) == (0, ["0:1: jsonl took it", "0:2: jsonl took it"])
            (line,) = run(capsys, "retry", config, "--all", "--subscriber", "gone")[1]
            assert line.startswith("0:3: not sent: there is no subscriber gone here (there are: ")
            assert run(capsys, "retry", config, "--all", "--subscriber", "jsonl")[0] == 0
        sink.send(make.alert(id="03"))
        lines = (tmp_path / "state" / "alerts.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["01_0", "02_0", "03_0"]
        assert list(receiver.events) == ["01_0"]
        sink.close()
        bus.close()


def test_a_log_in_use_by_whom_does_not_answer_is_not_written_beside(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    fill(bus, dead(make.frame(1)))
    own_token(tmp_path / "state")
    config.write_text(config.read_text() + "api: {listen: '127.0.0.1:1'}\n")
    code, _, err = run(capsys, "retry", config, "0:0")
    bus.close()
    assert code == 3
    assert "is in use by another Fusewatch process (pid" in err
    assert "no Fusewatch answers at http://127.0.0.1:1" in err


def test_letters_of_one_subscriber_are_selected(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = log_of(tmp_path)
    names = ("delivery/siem", "desk", "delivery/siem2")
    fill(bus, b"junk", *(dead(make.alert(), topics.ALERTS, source=name) for name in names))
    bus.close()
    (line,) = run(capsys, "list", config, "--subscriber", "siem")[1]
    assert line.startswith("0:1 ")
    none = run(capsys, "list", config, "--subscriber", "x", "--site", "office")[1]
    assert none == ["there are no dead letters of site office of subscriber x"]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["retry"], 2, "either the ids that `fusewatch dead list` gives, or --all"),
        (["retry", "0:0", "--all"], 2, "either the ids"),
        (["retry", "0;0"], 2, "'0;0' is no id of a dead letter, like 0:17"),
        (["retry", "0:99"], 2, "no dead letter 0:99"),
        (["list", "--since", "yesterday"], 2, "--since 'yesterday': a span like 10m, 2h or 3d"),
        (["list", "--since", "2026-01-05T22:00:00"], 2, "a span like 10m, 2h or 3d"),
        (["list", "--state", "nowhere"], 3, "is this the state folder of a daemon?"),
        (["retry", "--all", "--state", "nowhere"], 3, "holds no log of a daemon"),
    ],
)
def test_wrong_use_is_told(
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    code: int,
    what: str,
) -> None:
    log_of(tmp_path).close()
    given = [*words[:1], str(config), *words[1:]]
    got, _, err = run(capsys, *(str(tmp_path / w) if w == "nowhere" else w for w in given))
    assert (got, what in err) == (code, True), err
    assert not (tmp_path / "nowhere").exists()
