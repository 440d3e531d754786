"""Config files as people write them, and as they should not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.rule_kinds import ZoneRule
from pipeline.config.schema import Config, Fusion
from pipeline.errors import ConfigError
from workers.config.loader import convert, load
from workers.config.yaml_reader import MAX_DEPTH, MAX_YAML_BYTES, read_yaml

GOOD = """\
version: 1
sites:
  lobby:
    cameras:
      door:
        source: "SOURCE"
        zones: {floor: {coordinates: "0,0, 1,0, 1,1"}}
    microphones:
      hall: {source: "device:default"}
    rules:
      - {rule: zone, zone: floor}
"""
PASSWORD = "hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site.yaml"


def loaded(file: Path, text: str, source: str = "device:0", **env: str) -> Config:
    file.write_text(text.replace("SOURCE", source))
    return load(file, env)


def refused(file: Path, text: str | bytes, **env: str) -> str:
    """What is said of a config, without the folder it lies in."""
    data = text if isinstance(text, bytes) else text.replace("SOURCE", "device:0").encode()
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(file, env)
    assert caught.value.__cause__ is None, "the cause of an error may quote the file"
    return str(caught.value).replace(f"{file.parent}/", "")


def refused_source(file: Path, source: str, **env: str) -> str:
    """What is said of a camera's source, given as YAML."""
    return refused(file, GOOD.replace('"SOURCE"', source), **env)


# reading


def test_a_config_becomes_typed_settings(file: Path) -> None:
    config = loaded(file, GOOD)
    assert config.sites["lobby"].cameras["door"].detect.fps == 5
    assert config.sites["lobby"].rules == (ZoneRule(zone="floor"),)


def test_words_that_yaml_1_1_takes_for_something_else_are_words(file: Path) -> None:
    file.write_text("on: no\ntime: 22:00\nstart: 2026-01-05T22:00:00Z\noctal: 010\nsum: 1_0\n")
    data, _ = read_yaml(file)
    assert data == {
        "on": "no",
        "time": "22:00",
        "start": "2026-01-05T22:00:00Z",
        "octal": 10,
        "sum": "1_0",
    }


def test_a_rule_may_say_on_without_quotes(file: Path) -> None:
    rule = "      - {rule: keyword, words: {no: [hjelp]}, on: [report]}\n"
    assert loaded(file, GOOD + rule).sites["lobby"].rules[1].on == ("report",)  # type: ignore[union-attr]


def test_a_word_alone_is_the_head_of_fusion(file: Path) -> None:
    assert loaded(file, GOOD + "    fusion: rules\n").sites["lobby"].fusion == Fusion(head="rules")
    assert "site.yaml:12: sites.lobby.fusion: must be a mapping" in refused(
        file, GOOD + "    fusion: 3\n"
    )


def test_lines_are_known_by_path(file: Path) -> None:
    file.write_text("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    data, lines = read_yaml(file)
    assert data == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert [lines["a", "b"], lines["a", "c", 0], lines["a", "c", 1, "d"]] == [2, 4, 5]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**17), 10**17)
        | st.text("ab:# '\"-[é☃", max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("xyz"), inner, max_size=4)
        ),
        max_leaves=20,
    ).filter(lambda data: data is not None)
)
def test_what_json_can_say_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: object
) -> None:
    import json

    file = tmp_path_factory.mktemp("json") / "data.yaml"
    file.write_text(json.dumps(data))
    assert read_yaml(file)[0] == data


# faults of shape


def test_every_fault_is_told_at_once_with_its_line_and_path(file: Path) -> None:
    text = GOOD.replace("version: 1", "version: 2\nsitez: {}") + (
        "      - {rule: zon, zone: floor}\n"
        "      - {rule: zone, severity: hihg, zone: 5}\n"
        "      - {zone: floor}\n"
        "webhooks:\n"
        "  - url: [x]\n"
    )
    assert refused(file, text).splitlines() == [
        "site.yaml:1: version: must be at least 1 and at most 1",
        "site.yaml:2: sitez: is not a setting; did you mean `state`?",
        "site.yaml:13: sites.lobby.rules[1].rule: is not known; did you mean `zone`?",
        "site.yaml:14: sites.lobby.rules[2].severity: must be one of: low, medium, high, critical;"
        " did you mean `high`?",
        "site.yaml:14: sites.lobby.rules[2].zone: must be text, and is a number; put it in quotes",
        "site.yaml:15: sites.lobby.rules[3].rule: is missing; one of: zone, loitering, line, crowd,"
        " behaviour, sound, keyword, phrase",
        "site.yaml:17: webhooks[0].secret: is missing",
        "site.yaml:17: webhooks[0].url: must be text, and is a list",
    ]


def test_an_unknown_key_is_told_with_the_nearest_right_word(file: Path) -> None:
    text = GOOD.replace("zones:", "detect: {min_scor: 0.4}\n        zones:")
    assert refused(file, text) == (
        "site.yaml:7: sites.lobby.cameras.door.detect.min_scor:"
        " is not a setting; did you mean `min_score`?"
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("fps: 0", "must be more than 0 and at most 60"),
        ("fps: .nan", "must be a number, and is text"),
        ("fps: 1e400", "must be a number, and is text"),
        ("fps: true", "must be a number, and is true or false"),
        ("width: 640.5", "must be a whole number, and is a number"),
        ("min_score: -0.1", "must be at least 0 and at most 1"),
        ("fps: ~", "must be a number, and is nothing"),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_refused(file: Path, value: str, what: str) -> None:
    found = refused(file, GOOD.replace("zones:", f"detect: {{{value}}}\n        zones:"))
    assert what in found


def test_references_are_checked_once_the_shape_is_right(file: Path) -> None:
    assert refused(file, GOOD.replace("zone: floor", "zone: flor")) == (
        "site.yaml:11: sites.lobby.rules[0].zone:"
        " `flor` is no zone of a camera here; did you mean `floor`?"
    )


def test_a_thousand_faults_are_counted_rather_than_listed(file: Path) -> None:
    found = refused(file, "version: 1\nsites: {}\n" + "".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(found.splitlines()) == 51
    assert found.endswith("and 950 more problems")


# hostile files


def test_a_huge_file_is_refused_before_it_is_read(file: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b]\n"
    block = bomb.encode() * 1000
    with file.open("wb") as out:
        for _ in range(100_000_000 // len(block) + 1):
            out.write(block)
    assert file.stat().st_size > 100_000_000
    tracemalloc.start()
    with pytest.raises(ConfigError, match="larger than 1000000 bytes"):
        load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * MAX_YAML_BYTES


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &a [x]\nb: [*a, *a]\n", "site.yaml:1: an anchor (&name) is not allowed"),
        ("a: *a\n", "site.yaml:1: an alias (*name) is not allowed"),
        ("a: 1\na: 2\n", "site.yaml:2: a: is given twice; first in line 1"),
        ("a: {b: {c: 1, c: 2}}\n", "site.yaml:1: a.b.c: is given twice"),
        ("x: !!python/object/apply:os.system [id]\n", "site.yaml:1: a tag (!name) is not allowed"),
        ("!!python/name:os.system x: 1\n", "site.yaml:1: a tag (!name) is not allowed"),
        ("x: !include /etc/passwd\n", "site.yaml:1: a tag (!name) is not allowed"),
        ("? [a, b]\n: 1\n", "site.yaml:1: a key must be a word"),
        ("a: 1\n---\nb: 2\n", "site.yaml:2: a second document begins"),
        ("<<: {version: 1}\n", "(not a word): is not a setting"),
        ("a:\n\tb: 1\n", "site.yaml:2: a tab is no indentation in YAML; use spaces"),
        ("a: [1, 2\nb: 3\n", "site.yaml:2: a bracket or comma is missing in the `{..}`"),
        ("a: b: c\n", "site.yaml:1: a second `: ` on one line"),
        ("a: @b\n", "put the text in quotes"),
        ("", "is empty; `fusewatch init` writes a config"),
        ("# only a comment\n", "is empty"),
        ("[1, 2]\n", "site.yaml:1: must be a mapping"),
        ("just text\n", "site.yaml:1: must be a mapping"),
        ("a: 1\nb: \0\n", "site.yaml:2: holds a control character; remove it"),
        (b"a: 1\nb: \xff\xfe\n", "site.yaml:2: is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "is UTF-16, and not UTF-8"),
        ("x: " + "[" * 100_000, f"nested more than {MAX_DEPTH} levels deep"),
        ("{a: " * 50 + "1" + "}" * 50, f"nested more than {MAX_DEPTH} levels deep"),
        ("x: " + "9" * 5000, "is not a setting"),
    ],
)
def test_what_yaml_can_do_beyond_data_is_refused(file: Path, text: str | bytes, what: str) -> None:
    assert what in refused(file, text)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 1000,
        "Ω" * 400,
        "ﬃ" * 100,
        "\u202egnp.exe",
        "Türme",
        "",
        "a/b",
        "..",
        "a\\0b",
        "desk ",
    ],
)
def test_names_are_short_words(file: Path, name: str) -> None:
    found = refused(file, GOOD.replace("door:", f'"{name}":'))
    assert "must be up to 40 small letters, digits" in found
    assert len(found) < 1000


@pytest.mark.parametrize("name", ["x" * 900_000, "Ω" * 400_000])
def test_a_name_of_a_megabyte_is_refused_in_few_words(file: Path, name: str) -> None:
    found = refused(file, GOOD.replace("door:", f"{name}:"))
    assert len(found) < 1000


def test_a_name_may_not_end_in_a_new_line(file: Path) -> None:
    assert "must be up to 40" in refused(file, GOOD.replace("door:", '"door\\n":'))


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


# addresses and their secrets


def test_an_address_with_a_variable_loads_without_it(file: Path) -> None:
    for source in ("rtsp://u:${PW}@h:${PORT}/x", "${CAMERA}", "device:${NUMBER}"):
        camera = loaded(file, GOOD, source).sites["lobby"].cameras["door"]
        assert camera.source == source, "settings keep the variable, not its value"


@pytest.mark.parametrize(
    "scheme", ["exec", "pipe", "concat", "data", "gopher", "EXEC", "subfile,,"]
)
@pytest.mark.parametrize(
    "form",
    [
        '"{0}:id"',
        '"{0}://id"',
        '["{0}:id"]',
        '{{url: "{0}:id"}}',
        '{{"{0}": id}}',
        '{{url: "rtsp://h/x", "exec": "{0}:id"}}',
    ],
)
def test_no_form_of_a_source_runs_a_program(file: Path, scheme: str, form: str) -> None:
    assert "sites.lobby.cameras.door.source" in refused_source(file, form.format(scheme))


@pytest.mark.parametrize("source", ['"${CAMERA}"', '{url: "${CAMERA}"}', '"${SCHEME}:id"'])
def test_no_variable_brings_in_a_program(file: Path, source: str) -> None:
    found = refused_source(file, source, CAMERA="exec:id", SCHEME="exec")
    assert "has a scheme `exec:` that is not one of" in found


@pytest.mark.parametrize(
    "address",
    [
        f"rtsp://ops.user:{PASSWORD}@h:99999/x",
        f"rtsp://ops%40site:{PASSWORD}@h:99999/x",
        f"rtsp://:{PASSWORD}@h:99999/x",
        f"rtsp://u:p@{PASSWORD}@h/x",
        f"http://h:99999/?usr=a&pwd={PASSWORD}",
        f"http://h:99999/?password={PASSWORD}&user=y",
        f"rtsp://u:pass/{PASSWORD}@h/x",
        f"rstp://u:{PASSWORD}@h/x",
        f"rtsp:/u:{PASSWORD}@h/x",
        f"rtsp://u:{PASSWORD} @h/x",
        f"u:{PASSWORD}@h/x",
        f"rtsp://u:{PASSWORD}@h\\x/",
    ],
)
def test_a_wrong_address_is_refused_and_its_password_not_told(file: Path, address: str) -> None:
    quoted = "'" + address + "'"
    forms = (
        quoted,
        f"[{quoted}]",
        f"{{url: {quoted}}}",
        f"{{{quoted}: x}}",
        f"{{url: {{a: {quoted}}}}}",
    )
    for form in forms:
        assert PASSWORD not in refused_source(file, form)
    assert PASSWORD not in refused_source(file, "'${CAMERA}'", CAMERA=address)


@pytest.mark.parametrize(
    "line",
    [
        f"source: rtsp://u:{PASSWORD}@h/x: y",
        f"source:rtsp://u:{PASSWORD}@h/x",
        f'source: "rtsp://u:{PASSWORD}@h/x',
        f"rtsp://u:{PASSWORD}@h/x: source",
        f"source: !{PASSWORD} x",
        f"source: !{PASSWORD}!x y",
        f"source: *{PASSWORD}",
        f"source: &{PASSWORD} x",
        f"source: %{PASSWORD}",
        f'source: "\\{PASSWORD}"',
        f"source: {{{PASSWORD}@: }}}}",
        f"%{PASSWORD}",
        f"source: |{PASSWORD}\n  x",
    ],
)
def test_a_slip_of_yaml_does_not_tell_the_password_beside_it(file: Path, line: str) -> None:
    found = refused(file, GOOD.replace('source: "SOURCE"', line))
    assert PASSWORD not in found


def test_a_webhook_into_the_cloud_s_metadata_is_refused(file: Path) -> None:
    hook = 'webhooks:\n  - {url: "http://169.254.169.254/x", secret: "file:/run/hook"}\n'
    assert refused(file, GOOD + hook).startswith("site.yaml:13: webhooks[0].url: ")


def test_a_webhook_s_path_and_query_are_not_told(file: Path) -> None:
    hook = 'webhooks:\n  - {url: "http://example.org/hunter2?t=hunter2", secret: "hunter2"}\n'
    found = refused(file, GOOD + hook)
    assert len(found.splitlines()) == 2
    assert PASSWORD not in found


def test_convert_says_nothing_where_the_shape_is_right() -> None:
    config, found = convert({"version": 1, "sites": {}}, Config)
    assert config == Config(version=1, sites={})
    assert found == []


def test_a_second_colon_in_the_first_line_is_told_with_that_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("version: 1: 2\nsites\n")
    with pytest.raises(ConfigError, match=r"site\.yaml:1: a second `: ` on one line"):
        load(path)
