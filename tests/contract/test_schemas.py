"""The schemas: right by their own schemas, open to later versions, and as strict as the loader."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import lzma
import re
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Config
from pipeline.config.schema import Webhook as Settings
from tests import held
from tests.config_mistakes import MISTAKES, RIGHT
from tests.golden.test_cloudevent import golden_alert
from workers.cli import main as fusewatch
from workers.config.findings import FaultyFile
from workers.config.loader import convert, examine, load
from workers.config.yaml_reader import read_yaml
from workers.delivery.cloudevent import event, event_bytes, event_id
from workers.delivery.receiver import Receiver
from workers.delivery.webhook import Webhook, try_out
from workers.schemas.shipped import SCHEMAS, shipped
from workers.setup.init_config import NewConfig, write_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))
GOLDEN = sorted((ROOT / "tests/golden").glob("*.jsonl"))
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
OLD_BODY = (held.FOLDER / "alert-0.1.0.json").read_bytes().rstrip(b"\n")
OLD_SIGNATURE = "v1,PPOAcx/sb/R1WPkIVChdg4CM5AQZkBDpthb9nE9VAho="  # by 0.1.0, at SENT
SENT = 1767225608  # s
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")

alert_schema = held.checking(held.ALERT)


def document(**data: Any) -> Any:
    """The golden alert as a receiver parses it, with other `data`."""
    made = json.loads(event_bytes(golden_alert()))
    made["data"] |= data
    return made


def asyncapi() -> Any:
    return json.loads(shipped("asyncapi"))


# The schemas themselves


@pytest.mark.parametrize("name", ["alert", "config"])
def test_a_schema_is_right_by_its_dialect(name: str) -> None:
    schema = json.loads(shipped(name))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_pattern_is_one_that_all_engines_read(name: str) -> None:
    """ECMA-262 has no \\Z and no (?...) flags."""
    patterns = re.findall(r'"pattern": "(.*)"', shipped(name))
    assert patterns
    assert [each for each in patterns if re.search(r"\\\\[AZz]|\(\?", each)] == []


def test_the_asyncapi_document_is_right_by_the_schema_of_asyncapi() -> None:
    raw = lzma.decompress((held.FOLDER / "asyncapi-3.0.0.json.xz").read_bytes())
    assert hashlib.sha256(raw).hexdigest() in (held.FOLDER / "README.md").read_text()
    official = jsonschema_rs.validator_for(json.loads(raw))
    official.validate(asyncapi())
    assert not official.is_valid({**asyncapi(), "asyncapi": "9.9.9"})
    assert not official.is_valid({**asyncapi(), "operations": {"send": {"action": "post"}}})


@pytest.mark.parametrize("name", ["alert", "test"])
def test_an_example_of_the_asyncapi_document_is_right_by_its_payload(name: str) -> None:
    whole = asyncapi()
    message = whole["components"]["messages"][name]
    payload = held.checking({"components": whole["components"], **message["payload"]})
    for example in message["examples"]:
        payload.validate(example["payload"])


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = asyncapi()
    references = re.findall(r'"\$ref": "#/([^"]+)"', shipped("asyncapi"))
    assert len(references) > 5
    for way in references:
        reduce(lambda part, key: part[key], way.split("/"), whole)


@pytest.mark.parametrize("send", ["an alert", "a test"])
def test_what_a_receiver_gets_has_the_headers_of_the_asyncapi_document(send: str) -> None:
    with Receiver(SECRET) as receiver:
        hook = Webhook(Settings(url=receiver.url, secret=(SECRET, SECRET), name="siem"))
        if send == "a test":
            assert try_out(hook).ok
        else:
            hook.send(golden_alert(), f"00-{'7b' * 16}-{'a3' * 8}-01")
    (post,) = receiver.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    held.checking(asyncapi()["components"]["messages"]["alert"]["headers"]).validate(headers)
    assert ("traceparent" in headers) == (send == "an alert")


# Alerts


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/golden").glob("*.jsonl")), ids=lambda p: p.stem
)
def test_every_golden_alert_is_right(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    assert [fault for line in lines for fault in held.faults_of(json.loads(line))] == []


def test_every_alert_in_the_docs_is_right() -> None:
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    blocks = [
        block for page in pages for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    ]
    documents = [json.loads(block) for block in blocks if '"specversion"' in block]
    assert len(documents) >= 3
    assert [fault for each in documents for fault in held.faults_of(each)] == []


def test_a_later_version_may_add_fields_and_words() -> None:
    later = document(weather="rain", changed=["opened", "moved-away"])
    later["data"]["findings"][0] |= {"kind": "behaviour", "speed": 2.5}
    later["partition"] = "7"
    alert_schema.validate(later)
    assert len(list(held.faults_of(later))) > 0  # which this version does not make


def test_a_picture_is_a_text_beside_the_data() -> None:
    alert_schema.validate({**document(), "picture": base64.b64encode(b"\xff\xd8").decode()})
    assert not alert_schema.is_valid({**document(), "picture": 7})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "gone"),
        ("severity", "worst"),
        ("score", 1.5),
        ("score", "0.5"),
        ("revision", -1),
        ("start", "2026-01-01 00:00:06"),
        ("start", "2026-13-41T00:00:06.000000000Z"),
        ("end", 5),
        ("labels", "intrusion"),
        ("presence", {"desk": "asleep"}),
        ("changed", ["Opened!"]),
        ("cut", {"labels": 0}),
        ("findings", [{"source": "desk"}]),
    ],
)
def test_a_wrong_value_is_refused(field: str, value: Any) -> None:
    assert alert_schema.is_valid(document())
    assert not alert_schema.is_valid(document(**{field: value}))


@pytest.mark.parametrize("key", ["specversion", "id", "source", "type", "time", "data"])
def test_a_document_without_a_required_attribute_is_refused(key: str) -> None:
    made = document()
    del made[key]
    assert not alert_schema.is_valid(made)


def test_what_contradicts_a_schema_does_not_pass_unseen() -> None:
    holding = held.Holding()
    holding.encode(msgspec.convert(event(golden_alert()), held.AlertEvent))
    assert (holding.documents, holding.faults) == (1, [])
    wrong = msgspec.convert(event(golden_alert()), held.AlertEvent)
    holding.encode(msgspec.structs.replace(wrong, time="yesterday", source="nobody"))
    told = "\n".join(holding.faults)
    assert "yesterday" in told
    assert "nobody" in told


# Receivers of before


def test_the_schema_of_before_holds_an_alert_of_before_and_one_of_today() -> None:
    held.before.validate(json.loads(OLD_BODY))
    held.before.validate(document())


def test_what_an_alert_of_before_had_is_the_same_today_byte_for_byte() -> None:
    old, new = json.loads(OLD_BODY), document()
    kept = {key: new[key] for key in old}
    kept["data"] = {key: new["data"][key] for key in new["data"] if key in old["data"]}
    assert msgspec.json.encode(kept) == OLD_BODY


def test_an_alert_has_the_id_that_it_had_before() -> None:
    assert event_id(golden_alert()) == json.loads(OLD_BODY)["id"] == document()["id"]


def test_the_signature_of_the_same_bytes_is_that_of_before() -> None:
    with Receiver(SECRET) as receiver:
        hook = Webhook(Settings(url=receiver.url, secret=SECRET), clock=lambda: SENT)
        hook.post(event_id(golden_alert()), OLD_BODY)
    (post,) = receiver.posts
    headers = {name.lower(): value for name, value in post.headers.items()}
    signed = b".".join((headers["webhook-id"].encode(), str(SENT).encode(), post.body))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    by_hand = base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    assert headers["webhook-signature"] == f"v1,{by_hand}" == OLD_SIGNATURE


# Configs


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_schema_and_is_right_by_it(path: Path) -> None:
    found = MODELINE.match(path.read_text())
    assert found
    schema = json.loads((path.parent / found[1]).read_text())
    assert schema == json.loads(shipped("config"))
    held.config.validate(read_yaml(path)[0])


def shape_of(data: bytes, path: Path) -> Any:
    """The data of a file, and whether its shape is right; None if it is no YAML."""
    path.write_bytes(data)
    try:
        read = read_yaml(path)[0]
    except FaultyFile:
        return None
    return read, not convert(read, Config)[1]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_of_shape_is_one_by_the_schema_too(mistake: Any, tmp_path: Path) -> None:
    if (made := shape_of(mistake.data, tmp_path / "a.yaml")) and not made[1]:
        assert not held.config.is_valid(made[0])


def test_a_word_is_short_for_the_head_of_the_fusion() -> None:
    whole = read_yaml(EXAMPLES[-1])[0]
    for fusion, right in (("rules", True), ({"head": "rules"}, True), (5, False), ([], False)):
        whole["sites"]["home"]["fusion"] = fusion
        assert held.config.is_valid(whole) == right


ODD = (None, True, 7, 0.5, -1, 10**9, "", "x", "high", "${NAME}", [], {}, ["x"], {"x": 1}, [[]])


def places(data: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value."""
    items = list(data.items() if isinstance(data, dict) else enumerate(data))
    deeper = [places(each, (*way, key)) for key, each in items if isinstance(each, (dict, list))]
    return [(*way, key) for key, _ in items] + [place for each in deeper for place in each]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Data of configs that load."""
    file = tmp_path_factory.mktemp("bases") / "right.yaml"
    file.write_text(RIGHT)
    return [read_yaml(path)[0] for path in (*EXAMPLES, file)]


@given(data=st.data())
def test_the_schema_refuses_what_has_a_wrong_shape_and_takes_what_loads(
    data: st.DataObject, bases: list[Any]
) -> None:
    changed = copy.deepcopy(data.draw(st.sampled_from(bases)))
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(places(changed)))
        holder: Any = reduce(lambda part, key: part[key], way[:-1], changed)
        match data.draw(st.sampled_from(["value", "drop", "key"])):
            case "value":
                holder[way[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
            case "drop":
                del holder[way[-1]]
            case "key" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(["x", "Name", "zone", "seconds"]))] = 5
        if not places(changed):
            break
    settings, problems = convert(changed, Config)
    if problems:
        assert not held.config.is_valid(changed), problems
    elif not held.problems_of(settings):
        held.config.validate(changed)


# The command, and what init writes


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_command_prints_a_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fusewatch(["schema", name]) == 0
    assert capsys.readouterr().out == shipped(name)
    assert fusewatch(["schema", name, "--yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == json.loads(shipped(name))


def test_an_unknown_schema_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert fusewatch(["schema", "confg"]) == 2
    assert "none of alert, config, asyncapi; did you mean 'config'?" in capsys.readouterr().err


def test_a_new_config_names_the_schema_beside_it(tmp_path: Path) -> None:
    said: list[str] = []
    write_config(tmp_path / "a.yaml", NewConfig(state=tmp_path / "state"), said.append)
    found = MODELINE.match((tmp_path / "a.yaml").read_text())
    assert found
    assert (tmp_path / found[1]).read_text() == shipped("config")
    assert "fusewatch.schema.json: written; editors complete the config by it" in "".join(said)
    held.config.validate(read_yaml(tmp_path / "a.yaml")[0])
    assert load(tmp_path / "a.yaml", {}) == examine(tmp_path / "a.yaml", {}).config


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("ours", "is there; editors"),
        ("{}", "kept as it was, and is not the schema of this version"),
    ],
)
def test_a_schema_that_is_there_is_kept(tmp_path: Path, there: str, says: str) -> None:
    file = tmp_path / "fusewatch.schema.json"
    file.write_text(shipped("config") if there == "ours" else there)
    before = file.read_bytes()
    said: list[str] = []
    write_config(tmp_path / "a.yaml", NewConfig(state=tmp_path / "state"), said.append)
    assert file.read_bytes() == before
    assert says in "".join(said)
    assert (f"fusewatch schema config > {file}" in "".join(said)) == (there != "ours")
