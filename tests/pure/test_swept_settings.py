"""The settings that a sweep tries: how they are named, and that they are checked as a config is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from workers.config import loader
from workers.tuning.swept_settings import Combination, combinations, plain, settings_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))
CONFIG = """
version: 1
sites:
  office:
    cameras:
      desk:
        source: "rtsp://ops:s3cret@10.0.0.5/h264"
        zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
    microphones:
      room: {source: "device:default"}
    rules:
      - {rule: zone, zone: floor, min_score: 0.4}
      - {rule: sound, labels: {gunshot: 0.5}}
      - {rule: keyword, name: help, words: {en: [help]}}
      - {rule: zone, zone: floor, label: presence}
    fusion: rules
"""


@pytest.fixture
def base(tmp_path: Path) -> Config:
    path = tmp_path / "site.yaml"
    path.write_text(CONFIG)
    return loader.load(path)


def tried(base: Config, *options: str) -> list[Combination]:
    return combinations(base, settings_of(base, options))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_config_is_the_same_when_every_setting_is_written_out(path: Path) -> None:
    config = loader.load(path)
    again, found = loader.convert(plain(config), Config)
    assert not found
    assert again == config


def test_a_rule_is_named_by_its_name_or_its_place(base: Config) -> None:
    for path, place in (
        ("sites.office.rules.zone-floor.min_score", 0),
        ("sites.office.rules[0].min_score", 0),
        ("sites.office.rules.zone-floor-2.min_score", 3),
    ):
        made = tried(base, f"{path}=0.3,0.5")
        rules = [each.config.sites["office"].rules[place] for each in made]
        assert [rule.min_score for rule in rules] == [0.3, 0.5]  # type: ignore[union-attr]
        assert [each.values for each in made] == [{path: 0.3}, {path: 0.5}]


def test_all_combinations_are_made_in_the_order_of_the_options(base: Config) -> None:
    made = tried(
        base,
        "sites.office.rules.sound.labels.gunshot=0.4,0.6",
        "sites.office.incidents.close_after=5,10",
    )
    assert [tuple(each.values.values()) for each in made] == [
        (0.4, 5),
        (0.4, 10),
        (0.6, 5),
        (0.6, 10),
    ]
    assert made[1].config.sites["office"].incidents.close_after == 10


def test_settings_that_the_file_leaves_out_and_short_forms_can_be_set(base: Config) -> None:
    (one,) = tried(base, "sites.office.fusion.threshold=0.9")
    assert one.config.sites["office"].fusion.threshold == 0.9
    (new,) = tried(base, "sites.office.rules.sound.labels.glass=0.5")
    assert dict(new.config.sites["office"].rules[1].labels) == {  # type: ignore[union-attr]
        "gunshot": 0.5,
        "glass": 0.5,
    }
    (off,) = tried(base, "sites.office.fusion.threshold=null")
    assert off.config == base


def test_values_are_read_as_in_a_file(base: Config) -> None:
    made = tried(base, "sites.office.rules.zone-floor.objects=[person],[person,car]")
    assert [each.config.sites["office"].rules[0].objects for each in made] == [  # type: ignore[union-attr]
        ("person",),
        ("person", "car"),
    ]
    path = "sites.office.rules.zone-floor.schedule"
    made = tried(base, f'{path}=22:00-06:00,"sat-sun 00:00-24:00, mon-fri 18:00-07:00"')
    assert len(made) == 2
    (desk,) = tried(base, "sites.office.cameras.desk.detect.min_score=0.3")
    assert desk.config.sites["office"].cameras["desk"].detect.min_score == 0.3


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (
            "sites.office",
            "--set 'sites.office': PATH=VALUE,VALUE, please, like sites.office.rules.",
        ),
        ("=1", "--set '=1': PATH=VALUE,VALUE, please"),
        ("sites.office.rules.zone-floor.min_score=", "min_score: has no value"),
        ("sites.office.rules.zone-floor.min_score=[0.3", "min_score: is no list of values like"),
        ("sites.office.rules.zone-floor.min_score=*a", "an alias (*name) is not allowed"),
        (
            "sites.office.rules.zone-flor.min_score=0.3",
            "sites.office.rules has no rule 'zone-flor'; did you mean `zone-floor`?",
        ),
        (
            "sites.office.rules.crowd.min_score=0.3",
            "has no rule 'crowd'; there is zone-floor, sound, help, zone-floor-2",
        ),
        ("sites.office.rules[7].min_score=0.3", "sites.office.rules has 4 items, counted from 0"),
        (
            "sites.office.rules.zone-floor.min_scor=0.3",
            "sites.office.rules[0].min_scor: is not a setting; known here: label, min_score, modes",
        ),
        (
            "sites.office.rules.zone-floor.min_score=0.3,1.5",
            "--set sites.office.rules.zone-floor.min_score=1.5: sites.office.rules[0].min_score: "
            "must be at least 0 and at most 1",
        ),
        (
            "sites.office.rules.zone-floor.min_score=high",
            "sites.office.rules[0].min_score: must be a number, and is text",
        ),
        ("sites.ofice.rules.zone-floor.min_score=0.3", "sites.ofice"),
        (
            "sites.office.rules.zone-floor.min_score.x=0.3",
            "sites.office.rules[0].min_score is a value, and has no setting 'x'",
        ),
        ("sites.office.cameras[0].detect.min_score=0.3", "sites.office.cameras is no list"),
        (
            "sites.office.cameras.desk.detect.fps=5",
            "does not judge what was observed, so a sweep cannot try it; it can try rules",
        ),
        ("sites.office.cameras.desk.source=a", "does not judge what was observed"),
        ("models.detector.kind=onnx", "does not judge what was observed"),
        ("state=/tmp", "does not judge what was observed"),
        ("sites.office.windows.hop=3", "sites.office.windows.hop: must divide windows.size"),
    ],
)
def test_a_wrong_path_or_value_is_refused_and_the_option_is_named(
    base: Config, option: str, wanted: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        tried(base, option)
    assert str(refused.value).startswith("--set ")
    assert wanted in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_values_that_do_not_go_together_are_refused_with_all_options(base: Config) -> None:
    sizes, hops = "sites.office.windows.size=4,6", "sites.office.windows.hop=1,2,4"
    with pytest.raises(ConfigError) as refused:
        tried(base, sizes, hops)
    assert "--set sites.office.windows.size=6 --set sites.office.windows.hop=4: " in str(
        refused.value
    )


def test_too_many_combinations_and_a_setting_twice_are_refused(base: Config) -> None:
    path = "sites.office.rules.zone-floor.min_score"
    with pytest.raises(ConfigError, match=r"has .0\.3. twice"):
        tried(base, f"{path}=0.3,0.4,0.3")
    with pytest.raises(ConfigError, match="is given twice"):
        tried(base, f"{path}=0.3", f"{path}=0.4")
    with pytest.raises(ConfigError, match="is given twice"):
        tried(base, f"{path}=0.3", "sites.office.rules[0].min_score=0.4")
    many = ",".join(str(n / 1000) for n in range(1, 200))
    with pytest.raises(ConfigError, match="39601 combinations; at most 10000"):
        tried(base, f"{path}={many}", f"sites.office.rules.sound.labels.gunshot={many}")
