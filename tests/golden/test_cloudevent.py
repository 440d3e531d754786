"""The document that subscribers parse: its bytes are a promise."""

import json
import math
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.types import SECOND, Finding, Presence
from tests.make import alert
from workers.delivery.cloudevent import (
    CUT_MARK,
    MAX_EVENT_BYTES,
    event,
    event_bytes,
    event_id,
    rfc3339,
)
from workers.delivery.cloudevent import test_event as made_test_event

START = 1_767_225_606 * SECOND  # 2026-01-01T00:00:06Z

GOLDEN = (
    '{"specversion":"1.0","id":"5e0c1d9f1a2b3c4d_1","source":"/fusewatch/office",'
    '"type":"fusewatch.alert.updated","subject":"office/intrusion",'
    '"time":"2026-01-01T00:00:08.000000007Z","datacontenttype":"application/json",'
    '"data":{"alert_id":"5e0c1d9f1a2b3c4d","revision":1,"state":"updated",'
    '"changed":["labels","again"],"site":"office","group":"",'
    '"label":"intrusion","labels":["glass","intrusion"],"rules":["night","broken glass"],'
    '"severity":"critical","score":0.93,"start":"2026-01-01T00:00:06.000000000Z","end":null,'
    '"modes":["armed"],"presence":{"desk":"present","room":"lost"},'
    '"findings":[{"source":"desk","kind":"object","label":"intrusion","zone":"floor","line":null,'
    '"object":"person","score":0.93,"start":"2026-01-01T00:00:06.000000000Z",'
    '"end":"2026-01-01T00:00:08.000000000Z","count":3,"box":[0.25,0.35,0.35,0.65],'
    '"at":"2026-01-01T00:00:07.000000000Z"},'
    '{"source":"room","kind":"sound","label":"glass","zone":null,"line":null,"object":null,'
    '"score":0.5,"start":"2026-01-01T00:00:07.000000000Z","end":"2026-01-01T00:00:08.000000000Z",'
    '"count":1,"box":null,"at":"2026-01-01T00:00:07.000000000Z"}],'
    '"transcript":["hilfe, Räuber"],'
    '"reasons":["person in floor"],"reasons_new":[],"contributions":{"sound":0.4,"vision":0.6},'
    '"evidence":["office/5e0c1d9f1a2b3c4d_1_desk.jpg"],'
    '"heads":["fusion-attention 0.2.0 (5e0c1d9f)"],"cut":{}}}'
)


def golden_alert():
    return alert(
        id="5e0c1d9f1a2b3c4d",
        revision=1,
        state="updated",
        time=START + 2 * SECOND + 7,
        start=START,
        label="intrusion",
        labels=("glass", "intrusion"),
        rules=("night", "broken glass"),
        severity="critical",
        score=0.93,
        presence={"room": Presence.LOST, "desk": Presence.PRESENT},
        transcript=("hilfe, Räuber",),
        reasons=("person in floor",),
        contributions={"vision": 0.6, "sound": 0.4},
        evidence=("office/5e0c1d9f1a2b3c4d_1_desk.jpg",),
        heads=("fusion-attention 0.2.0 (5e0c1d9f)",),
        changed=("labels", "again"),
        modes=("armed",),
        findings=(
            Finding(
                source="desk",
                kind="object",
                label="intrusion",
                zone="floor",
                object="person",
                score=0.93,
                start=START,
                end=START + 2 * SECOND,
                count=3,
                box=(0.25, 0.35, 0.35, 0.65),
                at=START + SECOND,
            ),
            Finding(
                source="room",
                kind="sound",
                label="glass",
                score=0.5,
                start=START + SECOND,
                end=START + 2 * SECOND,
                count=1,
                at=START + SECOND,
            ),
        ),
    )


def test_an_alert_is_these_bytes():
    assert event_bytes(golden_alert()).decode() == GOLDEN


def test_bytes_survive_the_bus_unchanged():
    assert event_bytes(codec.decode(codec.encode(golden_alert()))).decode() == GOLDEN


def test_an_event_has_what_cloudevents_requires_and_parses_as_json():
    document = json.loads(event_bytes(golden_alert()))
    assert document == event(golden_alert())
    assert document["specversion"] == "1.0"
    assert all(document[name] for name in ("id", "source", "type"))
    datetime.fromisoformat(document["time"].replace("000000007Z", "000000Z"))


def test_a_closed_alert_has_its_end():
    closed = msgspec.structs.replace(golden_alert(), state="closed", end=START + 5 * SECOND)
    document = event(closed)
    assert document["type"] == "fusewatch.alert.closed"
    assert document["data"]["end"] == "2026-01-01T00:00:11.000000000Z"


def test_an_alert_that_no_head_had_a_part_in_has_none():
    assert event(alert())["data"]["heads"] == []


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00.000000000Z"),
        (START + 999_999_999, "2026-01-01T00:00:06.999999999Z"),
        (-62_135_596_800 * SECOND, "0001-01-01T00:00:00.000000000Z"),
    ],
)
def test_times_are_rfc_3339_with_nine_digits(time, text):
    assert rfc3339(time) == text


@pytest.mark.parametrize("time", [2**63 * 40, -(2**63) * 40])
def test_a_time_beyond_the_calendar_is_refused(time):
    with pytest.raises(ValueError, match="no time"):
        rfc3339(time)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match="number"):
        event_bytes(alert(score=number))
    with pytest.raises(ValueError, match="number"):
        event_bytes(alert(contributions={"vision": number}))


def test_a_short_text_is_not_cut():
    text = "x" * 5000
    assert json.loads(event_bytes(alert(transcript=(text,))))["data"]["transcript"] == [text]


def test_long_texts_end_in_a_marker():
    data = json.loads(event_bytes(alert(transcript=("a" * 100_000,), reasons=("short",))))["data"]
    assert data["transcript"][0].endswith(CUT_MARK)
    assert data["reasons"] == ["short"]


def test_of_many_texts_the_first_and_the_newest_are_told_and_how_many_are_missing():
    said = tuple(f"{n} " + "word " * 60 for n in range(5000))
    data = json.loads(event_bytes(alert(transcript=said)))["data"]
    assert data["transcript"][0] == said[0]
    assert data["transcript"][-1] == said[-1]
    (missing,) = [line for line in data["transcript"] if line.endswith(f"more{CUT_MARK}")]
    assert missing == f"{5000 - len(data['transcript']) + 1} more{CUT_MARK}"


def test_a_site_of_the_largest_config_has_a_document_that_fits():
    """400 findings with names of 40 letters, 64 cameras and as many microphones, all lost."""
    long = ["x" * 36 + f"{n:04}" for n in range(400)]
    cameras = long[:64]
    rooms = [name for n in range(64) for name in (f"r{n:039}", f"r{n:039}/speech")]
    findings = tuple(
        Finding(
            source=cameras[n % 64],
            kind="object",
            label=name,
            zone=name,
            object="traffic light",
            score=0.123,
            start=START,
            end=START + n,
            count=10**6,
            box=(0.123, 0.234, 0.345, 0.456),
            at=START,
        )
        for n, name in enumerate(long)
    )
    told = alert(
        site="s" * 40,
        label=long[300],
        labels=tuple(long),
        rules=tuple(long),
        presence=dict.fromkeys([*cameras, *rooms], Presence.SILENT) | {cameras[50]: Presence.LOST},
        transcript=tuple("word " * 3000 for _ in range(20)),
        reasons=tuple("word " * 3000 for _ in range(20)),
        reasons_new=tuple("word " * 3000 for _ in range(20)),
        evidence=tuple(f"{'s' * 40}/{'a' * 16}_0_{name}.jpg" for name in cameras),
        heads=("a head of a name 1 (12345678)",),
        findings=findings[:32],
        findings_cut=368,
    )
    body = event_bytes(told)
    data = json.loads(body)["data"]
    assert len(body) < MAX_EVENT_BYTES
    assert long[300] in data["labels"]
    assert data["cut"]["labels"] == 400 - len(data["labels"])
    assert data["cut"]["findings"] == 400 - len(data["findings"])
    assert data["presence"][cameras[50]] == "lost"
    shown = {finding["source"] for finding in data["findings"]}
    assert shown & {name.rpartition("_")[2].removesuffix(".jpg") for name in data["evidence"]}


def test_names_that_no_config_can_have_are_refused():
    with pytest.raises(ValueError, match="too long"):
        event_bytes(alert(labels=("x" * 30_000,)))


def test_nothing_is_cut_where_everything_fits():
    assert event(golden_alert())["data"]["cut"] == {}


@given(
    transcript=st.lists(st.text(max_size=3000), max_size=200),
    reasons=st.lists(st.text(max_size=3000), max_size=200),
)
def test_whatever_is_said_the_payload_is_json_below_20_kb(transcript, reasons):
    body = event_bytes(alert(transcript=tuple(transcript), reasons=tuple(reasons)))
    assert len(body) < MAX_EVENT_BYTES
    assert json.loads(body)["data"]["alert_id"]
    assert b"\n" not in body


def test_an_id_is_one_a_revision():
    ids = [event_id(alert(revision=n)) for n in range(3)]
    assert len(set(ids)) == 3
    assert not any("." in ident for ident in ids)


def test_a_test_event_is_no_alert():
    ident, body = made_test_event("siem", START)
    document = json.loads(body)
    assert document["id"] == ident
    assert document["type"] == "fusewatch.test"
