"""What a config may not say, beyond the shape of its fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import snowballstemmer
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.bus.memory import MemoryBus
from pipeline.config import checks
from pipeline.config.checks import problems
from pipeline.config.fields import LANGUAGES, OBJECTS
from pipeline.config.problem import Problem
from pipeline.config.rule_kinds import (
    CrowdRule,
    KeywordRule,
    LineRule,
    LoiteringRule,
    PhraseRule,
    Rule,
    SoundRule,
    ZoneRule,
    rule_names,
)
from pipeline.config.schema import (
    Api,
    Camera,
    Config,
    Detect,
    Fusion,
    Incidents,
    Jsonl,
    Line,
    LocalBus,
    Microphone,
    Model,
    Models,
    Recording,
    Site,
    Stationary,
    Storage,
    Webhook,
    Windows,
    Zone,
    size_bytes,
)
from workers.config import adapters
from workers.delivery.jsonl import subscribers

FRAME = "0,0, 1,0, 1,1, 0,1"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def config_of(**site: Any) -> Config:
    """A config of one site, `lobby`: a camera `door` with a zone `floor` and a line `sill`."""
    camera = Camera(
        source="device:0",
        zones={"floor": Zone(coordinates=FRAME)},
        lines={"sill": Line(coordinates="0,0.5, 1,0.5")},
    )
    given = {"cameras": {"door": camera}, "microphones": {"hall": Microphone(source="device:1")}}
    return Config(version=1, sites={"lobby": Site(**{**given, **site})})


def told(config: Config) -> list[str]:
    return [str(problem) for problem in (*problems(config), *adapters.problems(config.models))]


def told_of(rule: Rule, **site: Any) -> str:
    """What is said of one rule, without the way to it."""
    found = told(config_of(rules=(rule,), **site))
    return "\n".join(each.removeprefix("sites.lobby.rules[0]") for each in found)


def zone_of(coordinates: str) -> str:
    camera = Camera(source="device:0", zones={"floor": Zone(coordinates=coordinates)})
    return "\n".join(told(config_of(cameras={"door": camera})))


def test_a_config_without_faults_has_no_problems() -> None:
    rules = (
        ZoneRule(zone="floor", schedule="mon-fri 22:00-06:00, sat-sun 00:00-24:00"),
        LoiteringRule(zone="floor", seconds=120),
        LineRule(line="sill"),
        CrowdRule(zone="floor", count=3),
        SoundRule(labels={"glass": 0.5}),
        KeywordRule(words={"en": ("help",), "de": ("Hilfe",)}),
        PhraseRule(phrases=("people are fighting",)),
    )
    assert told(config_of(rules=rules)) == []


def test_a_threshold_of_fusion_is_more_than_nothing() -> None:
    assert told(config_of(fusion=Fusion(threshold=0.0))) == [
        "sites.lobby.fusion.threshold: must be more than 0, or it alarms for ever"
    ]
    assert told(config_of(fusion=Fusion(threshold=0.01))) == []


def test_a_rule_names_a_zone_that_some_camera_of_the_site_has() -> None:
    assert told_of(ZoneRule(zone="flor")) == (
        ".zone: `flor` is no zone of a camera here; did you mean `floor`?"
    )


def test_a_zone_rule_may_name_a_zone_that_two_cameras_have() -> None:
    camera = Camera(source="device:0", zones={"floor": Zone(coordinates=FRAME)})
    other = Camera(source="device:1", zones={"floor": Zone(coordinates=FRAME)})
    cameras = {"a": camera, "b": other}
    assert told(config_of(cameras=cameras, rules=(ZoneRule(zone="floor"),))) == []


def test_a_line_rule_names_a_line_that_some_camera_of_the_site_has() -> None:
    assert "did you mean `sill`" in told_of(LineRule(line="sil"))


@pytest.mark.parametrize(
    ("coordinates", "what"),
    [
        ("0,0, 1,0", "three different points"),
        ("0,0, 1,0, 1", "pairs of x and y"),
        ("0,0, 1,0, 1,x", "not a number"),
        ("0,0, 1,0, 1,nan", "fraction of the frame"),
        ("0,0, 1,0, 1,1.01", "fraction of the frame"),
        ("0,0, 1,0, -0.1,1", "fraction of the frame"),
        ("0,0, 0.5,0.5, 1,1", "on one line"),
        ("0,0, 1,1, 1,0, 0,1", "crosses itself"),
        ("0,0, 1,0, 1,0, 0,1", "one point twice in a row"),
        ("", "three different points"),
        (", ".join(f"{i / 999},{(i / 999) ** 2}" for i in range(999)), "999 corners"),
    ],
)
def test_a_zone_is_a_polygon_within_the_frame(coordinates: str, what: str) -> None:
    found = zone_of(coordinates)
    assert found.startswith("sites.lobby.cameras.door.zones.floor.coordinates: ")
    assert what in found


def test_a_zone_may_be_hollow_and_may_repeat_its_first_point() -> None:
    assert zone_of("0,0, 1,0, 0.5,0.5, 1,1, 0,1") == ""
    assert zone_of("0,0, 1,0, 1,0.4, 0.3,0.4, 0.3,1, 0,1") == ""
    assert zone_of("0,0, 1,0, 1,1, 0,0") == ""


@pytest.mark.parametrize(
    ("coordinates", "what"), [("0,0", "a line needs two"), ("0,0, 0,0", "begins")]
)
def test_a_line_has_two_ends(coordinates: str, what: str) -> None:
    camera = Camera(source="device:0", lines={"sill": Line(coordinates=coordinates)})
    assert what in "\n".join(told(config_of(cameras={"door": camera})))


@pytest.mark.parametrize(
    "schedule", ["22:00", "25:00-26:00", "mo-fr 10:00-11:00", "10:00-10:00", ","]
)
def test_a_schedule_is_spans_of_the_week(schedule: str) -> None:
    assert told_of(ZoneRule(zone="floor", schedule=schedule)).startswith(".schedule: ")


def test_every_rule_with_a_schedule_has_it_checked() -> None:
    for rule in (
        LoiteringRule(zone="floor", seconds=5, schedule="x"),
        LineRule(line="sill", schedule="x"),
        CrowdRule(zone="floor", count=2, schedule="x"),
        SoundRule(labels={"glass": 0.5}, schedule="x"),
    ):
        assert ".schedule: " in told_of(rule)


def test_objects_are_those_that_the_detector_knows() -> None:
    assert told_of(ZoneRule(zone="floor", objects=("persn",))) == (
        ".objects: `persn` is no object; did you mean `person`?"
        " (`fusewatch check --words` lists all 80)"
    )
    for word, known in (("People", "person"), ("bike", "bicycle"), ("lorry", "truck")):
        assert f"did you mean `{known}`?" in told_of(ZoneRule(zone="floor", objects=(word,)))
    assert "is empty" in told_of(LineRule(line="sill", objects=()))


def test_a_rule_may_leave_its_objects_to_the_zone() -> None:
    assert told_of(ZoneRule(zone="floor", objects=())) == ""


def test_objects_are_the_80_classes_of_coco() -> None:
    assert len(OBJECTS) == len(set(OBJECTS)) == 80
    assert (OBJECTS[0], OBJECTS[79]) == ("person", "toothbrush")


def test_seconds_reach_no_further_back_than_the_horizon() -> None:
    assert "windows.horizon (60 s)" in told_of(
        LoiteringRule(zone="floor", seconds=61),
        windows=Windows(horizon=60),
        stationary=Stationary(after=30),
    )
    assert "windows.horizon" in told_of(CrowdRule(zone="floor", count=2, seconds=121))


def test_windows_tile_time() -> None:
    assert told(config_of(windows=Windows(size=4, hop=3))) == [
        "sites.lobby.windows.hop: must divide windows.size"
    ]
    assert told(config_of(windows=Windows(size=0.5, hop=0.1))) == []
    assert "horizon" in told(config_of(windows=Windows(size=200, hop=1)))[0]


def test_a_loss_is_told_before_it_is_forgotten() -> None:
    site = {"windows": Windows(horizon=30), "stationary": Stationary(after=20)}
    lost = told(config_of(**site, incidents=Incidents(lost_after=31)))
    assert lost == ["sites.lobby.incidents.lost_after: is longer than windows.horizon"]
    assert told(config_of(**site, incidents=Incidents(lost_after=30))) == []


def test_an_unknown_time_zone_is_told_with_the_nearest() -> None:
    found = told(config_of(timezone="Europe/Pariss"))
    assert found == [
        "sites.lobby.timezone: is not a time zone, like Europe/Berlin; did you mean `Europe/Paris`?"
    ]


@pytest.mark.parametrize("zone", ["../../etc/passwd", "/etc/passwd", "", "\0", "x" * 10_000])
def test_a_time_zone_is_no_path(zone: str) -> None:
    assert "is not a time zone" in told(config_of(timezone=zone))[0]


def test_sounds_are_those_that_the_model_tells_apart() -> None:
    assert "did you mean `gunshot`" in told_of(SoundRule(labels={"gunshoot": 0.5}))
    assert "more than 0" in told_of(SoundRule(labels={"glass": 0}))
    assert "is empty" in told_of(SoundRule(labels={}))


def test_a_sound_rule_needs_a_microphone() -> None:
    assert "no microphone" in told_of(SoundRule(labels={"glass": 0.5}), microphones={})


def test_keywords_are_in_languages_that_can_be_stemmed() -> None:
    assert told_of(KeywordRule(words={"english": ("fire",)})) == (
        ".words.english: is no language code; did you mean `en`?"
    )
    assert "known: ar, ca" in told_of(KeywordRule(words={"xx": ("fire",)}))
    assert set(LANGUAGES.values()) <= set(snowballstemmer.algorithms())


def test_words_and_phrases_say_something() -> None:
    assert "is empty" in told_of(KeywordRule(words={}))
    assert "is empty" in told_of(KeywordRule(words={"en": ()}))
    assert "no letter" in told_of(KeywordRule(words={"en": ("!!",)}))
    assert "is empty" in told_of(PhraseRule(phrases=()))


def test_words_are_listened_for_in_speech_and_reports_only() -> None:
    assert "did you mean `speech`" in told_of(KeywordRule(words={"en": ("fire",)}, on=("speach",)))
    assert "is empty" in told_of(PhraseRule(phrases=("a fire",), on=()))


def test_names_of_rules_are_unique_in_a_site() -> None:
    rules = (ZoneRule(zone="floor", name="a"), LineRule(line="sill", name="a"))
    assert len(told(config_of(rules=rules))) == 2


def test_rules_without_a_name_are_named_by_kind_and_subject() -> None:
    site = Site(
        rules=(
            ZoneRule(zone="floor"),
            ZoneRule(zone="floor"),
            LineRule(line="sill"),
            SoundRule(labels={"glass": 0.5}),
            SoundRule(labels={"siren": 0.5}, name="sound-2"),
            SoundRule(labels={"siren": 0.5}),
            KeywordRule(words={}),
        )
    )
    assert rule_names(site.rules) == (
        "zone-floor",
        "zone-floor-2",
        "line-sill",
        "sound",
        "sound-2",
        "sound-3",
        "keyword",
    )


def test_source_names_are_unique_over_cameras_and_microphones() -> None:
    found = told(config_of(microphones={"door": Microphone(source="device:1")}))
    assert found == ["sites.lobby.microphones.door: is a camera's name too; use another one"]


def test_no_source_is_called_reports() -> None:
    found = told(config_of(cameras={"reports": Camera(source="device:0")}))
    assert found == ["sites.lobby.cameras.reports: is the source of reports; use another name"]


def test_a_config_without_sites_is_refused() -> None:
    assert told(Config(version=1, sites={})) == [
        "sites: names no site; Fusewatch needs one to watch"
    ]


def with_webhook(**hook: Any) -> list[str]:
    given = {"url": "https://example.org/hook", "secret": SECRET, **hook}
    config = config_of()
    return told(Config(version=1, sites=config.sites, webhooks=(Webhook(**given),)))


def test_a_webhook_names_sites_that_exist() -> None:
    assert "did you mean `lobby`" in with_webhook(sites=("loby",))[0]
    assert with_webhook(sites=("lobby",)) == []


@pytest.mark.parametrize(
    "secret",
    ["file:/run/hook", "${HOOK}", SECRET, (SECRET, "${OLD}"), "whsec_" + "A" * 43],
)
def test_a_secret_is_given_or_pointed_to(secret: Any) -> None:
    assert with_webhook(secret=secret) == []


@pytest.mark.parametrize("secret", ["hunter2", "whsec_hunter2!", "whsec_aHVudGVyMg==", ()])
def test_a_secret_that_is_none_is_refused_and_not_quoted(secret: Any) -> None:
    found = "\n".join(with_webhook(secret=secret))
    assert found.startswith("webhooks[0].secret: ")
    assert "hunter2" not in found
    assert "aHVudGVyMg" not in found


def named(*urls: str, **more: Any) -> tuple[str, ...]:
    hooks = tuple(Webhook(url=url, secret=SECRET, **more) for url in urls)
    return checks.webhook_names(Config(version=1, sites=config_of().sites, webhooks=hooks))


def test_a_webhook_keeps_its_place_when_another_is_put_before_it() -> None:
    (mine,) = named("https://siem.example/in/hunter2")
    assert named("https://other.example/", "https://siem.example/in/hunter2")[1] == mine
    assert named("https://siem.example/in/hunter3") != (mine,)


@given(st.one_of(st.text(), st.from_regex(r"https://[^/]{0,60}(/.*)?")))
@example("https://ops:hunter2@siem.example:8443/in/hunter2")
@example("${HOOK}")
@example("http://[::1]:1/")
def test_a_webhook_s_name_is_a_short_word_without_secrets(url: str) -> None:
    (name,) = named(url)
    assert re.fullmatch("[a-z0-9][a-z0-9_-]{0,39}", name)
    assert "hunter2" not in name


def test_names_of_webhooks_are_unique() -> None:
    (name,) = named("https://a")
    hooks = (Webhook(url="https://b", secret=SECRET, name=name),)
    hooks += (Webhook(url="https://a", secret=SECRET),)
    config = Config(version=1, sites=config_of().sites, webhooks=hooks)
    assert checks.webhook_names(config) == (name, name)
    assert len(told(config)) == 2


def with_top(**top: Any) -> list[str]:
    return told(Config(version=1, sites=config_of().sites, **top))


def test_alerts_go_to_files_of_sites_that_exist() -> None:
    assert "is no site" in with_top(jsonl=(Jsonl(path="a.jsonl", sites=("x",)),))[0]
    assert len(with_top(jsonl=(Jsonl(path="a.jsonl"), Jsonl(path="a.jsonl")))) == 2


def test_a_file_of_alerts_keeps_its_place_when_another_is_put_before_it(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        jsonl = tuple(Jsonl(path=str(tmp_path / path)) for path in paths)
        config = Config(version=1, sites=config_of().sites, jsonl=jsonl)
        return [subscriber.name for subscriber in subscribers(config, tmp_path, MemoryBus())]

    assert names("new", "old")[2] == names("old")[1]


@pytest.mark.parametrize("cap", ["20", "20 XB", "-1 GB", "", "1 MB", "1e9 GB"])
def test_a_cap_is_a_size_with_a_unit(cap: str) -> None:
    assert with_top(storage=Storage(cap=cap))[0].startswith("storage.cap: ")


@pytest.mark.parametrize("keep", ["20", "-1 GB", "1 MB"])
def test_what_is_kept_of_recordings_is_a_size_with_a_unit(keep: str) -> None:
    assert with_top(recording=Recording(keep=keep))[0].startswith("recording.keep: ")


def test_sizes_are_decimal_or_binary() -> None:
    assert [size_bytes(text) for text in ("20 GB", "512MiB", "1.5 TB")] == [
        20 * 10**9,
        2**29,
        1_500_000_000_000,
    ]


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "example.org:80", "127.0.0.1", ":80", "[::]:1"])
def test_the_endpoint_for_reports_is_on_loopback(listen: str) -> None:
    assert with_top(api=Api(listen=listen))[0].startswith("api.listen: ")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:8674", "[::1]:8674"])
def test_loopback_has_several_names(listen: str) -> None:
    assert with_top(api=Api(listen=listen)) == []


def test_a_token_is_not_to_be_guessed() -> None:
    assert with_top(api=Api(token="hunter2")) == [
        "api.token: must have 16 characters; `fusewatch init` makes a good one"
    ]
    assert with_top(api=Api(token="file:/t")) == with_top(api=Api(token="${T}")) == []


def test_pictures_that_may_outgrow_a_message_are_refused() -> None:
    camera = Camera(source="device:0", detect=Detect(width=3840))
    sites = config_of(cameras={"door": camera}).sites
    bus = LocalBus(max_message=1_000_000)
    assert told(Config(version=1, sites=sites, bus=bus)) == [
        "sites.lobby.cameras.door.detect.width: pictures may outgrow bus.max_message"
        " (1000000 bytes); use at most 1414"
    ]
    assert told(Config(version=1, sites=sites)) == []


def test_models_are_of_kinds_that_have_an_adapter() -> None:
    model = Model(kind="yolo", weights="x", providers=("metal",))
    assert with_top(models=Models(detector=model)) == [
        "models.detector.kind: `yolo` is no kind of detector; did you mean `yolox`?",
        "models.detector.providers: `metal` is no provider; known: cpu, cuda, tensorrt, openvino",
    ]


@pytest.mark.parametrize(
    ("part", "kind", "providers", "what"),
    [
        ("sound", "yamnet", ("cuda",), "`cuda` is no provider of yamnet; known: cpu"),
        ("speech", "openai-whisper", ("openvino",), "known: cpu, cuda"),
        ("speech", "faster-whisper", ("cuda", "cpu"), "names 2; faster-whisper runs on one"),
        ("detector", "yolox", (), "is empty; one or more of: cpu, cuda"),
    ],
)
def test_a_provider_that_an_adapter_would_ignore_is_refused(
    part: str, kind: str, providers: tuple[str, ...], what: str
) -> None:
    model = Model(kind=kind, weights="x", providers=providers)
    (found,) = with_top(models=Models(**{part: model}))
    assert found.startswith(f"models.{part}.providers: ")
    assert what in found


@pytest.mark.parametrize("kind", ["faster-whisper", "openai-whisper"])
def test_speech_may_run_on_a_gpu(kind: str) -> None:
    speech = Model(kind=kind, weights="x", providers=("cuda",))
    assert with_top(models=Models(speech=speech)) == []


def test_settings_never_show_addresses_and_secrets() -> None:
    camera = Camera(source="rtsp://user:hunter2@h/x")
    config = Config(
        version=1,
        sites={"lobby": Site(cameras={"door": camera})},
        webhooks=(Webhook(url="https://h/hunter2", secret="hunter2"),),
        api=Api(token="hunter2"),
    )
    assert "hunter2" not in repr(config)
    assert "min_score=0.4" in repr(config)


def test_a_problem_shows_no_step_that_is_not_a_word() -> None:
    problem = Problem(("sites", "rtsp://user:hunter2@h", 3), "is wrong")
    assert str(problem) == "sites.(not a word)[3]: is wrong"
