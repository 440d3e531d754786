"""What judges a site is told in full, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest

from pipeline.config import rule_kinds, schema
from pipeline.config.fields import Settings
from pipeline.config.judging import OWN_FILE, Difference, differences, site_config
from pipeline.types import SiteConfig

RULES = (
    rule_kinds.ZoneRule(zone="floor"),
    rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="high"),
)
SITE = schema.Site(
    cameras={
        "desk": schema.Camera(
            source="rtsp://10.0.0.7/secret",
            zones={"floor": schema.Zone(coordinates="0,0, 1,0, 1,1")},
        )
    },
    microphones={"room": schema.Microphone(source={"url": "rtsp://x", "password": "hush"})},
    rules=RULES,
    fusion=schema.Fusion(head="/srv/heads/new", threshold=0.7),
)
MODELS = schema.Models()
SECRETIVE = {"source", "url", "secret", "token", "password", "username", "path", "head"}
SECRETIVE |= {"streams", "record"}  # the addresses of a camera with two streams
DECODING = {"decode", "hwaccel"}  # they decide which frames there are; what is recorded judges


def told(
    site: schema.Site = SITE,
    models: schema.Models = MODELS,
    head: str = "rules",
    sha256: str = "",
) -> SiteConfig:
    names = ("yolox_nano", "yamnet")
    return site_config("office", site, models, names, start=1, head=head, head_sha256=sha256)


def filled(cls: type[Settings]) -> Settings:
    """Settings of which each text is `Class.field!`, down to the leaves."""
    values = {
        field.name: _filled(field.type, f"{cls.__name__}.{field.name}!")
        for field in msgspec.structs.fields(cls)
    }
    return cls(**values)


def _filled(kind: Any, mark: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return _filled(args[0], mark)
    if origin in (Union, UnionType):
        kinds = [_filled(arg, mark) for arg in args if arg is not type(None)]
        return kinds[-1]  # of an address: the mapping
    if origin is tuple:
        arms = get_args(args[0]) or (args[0],)
        return tuple(_filled(arm, mark) for arm in arms)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {mark: _filled(args[1], mark)}
    if isinstance(kind, type) and issubclass(kind, Settings):
        return filled(kind)
    return mark


def classes(cls: type[Settings]) -> set[type[Settings]]:
    """The settings that are part of a class, and itself."""
    found, left = set[type[Settings]](), [cls]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.add(one)
        kinds = [field.type for field in msgspec.structs.fields(one)]
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, Settings):
                left.append(kind)
            kinds += get_args(kind)
    return found


def test_no_address_path_or_secret_gets_in() -> None:
    whole = classes(schema.Config)
    assert {schema.Webhook, schema.Sasl, schema.Api, rule_kinds.PhraseRule} <= whole
    site, models = filled(schema.Site), filled(schema.Models)
    assert isinstance(site, schema.Site)
    assert isinstance(models, schema.Models)
    text = told(site, models).settings
    assert "ZoneRule.zone!" in text
    assert "Detect.aspect!" in text
    inside = classes(schema.Site) | classes(schema.Models)
    for cls in whole:
        for name in cls.__struct_fields__:
            if cls not in inside or name in SECRETIVE:
                assert f"{cls.__name__}.{name}!" not in text
    assert "Streams." not in text
    assert "Model.weights!" not in text
    assert OWN_FILE in text


def test_every_other_setting_of_a_site_is_told() -> None:
    site = filled(schema.Site)
    assert isinstance(site, schema.Site)
    text = told(site).settings
    for cls in classes(schema.Site):
        missing = {n for n in cls.__struct_fields__ if f'"{n}":' not in text}
        assert not missing - SECRETIVE - DECODING, cls


def test_equal_settings_have_one_hash_and_each_change_another() -> None:
    same = msgspec.structs.replace(SITE, cameras=dict(SITE.cameras))
    louder = msgspec.structs.replace(SITE, rules=RULES[:1])
    assert told(same).hash == told().hash
    assert len({c.hash for c in (told(), told(louder), told(head="a 1"), told(sha256="ff"))}) == 4


def test_a_default_and_the_same_number_written_out_are_equal() -> None:
    written = msgspec.convert({"windows": {"size": 4, "hop": 1.0}}, schema.Site)
    assert told(written).hash == told(schema.Site()).hash


def test_an_address_or_the_folder_of_a_head_is_no_difference() -> None:
    moved = msgspec.structs.replace(
        SITE,
        cameras={"desk": msgspec.structs.replace(SITE.cameras["desk"], source="device:0")},
        fusion=schema.Fusion(head="shipped", threshold=0.7),
    )
    assert told(moved).hash == told().hash
    assert differences(told(moved), told()) == []


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        (
            {"rules": (RULES[0], msgspec.structs.replace(RULES[1], severity="critical"))},
            "sites.office.rules[1].severity was critical, is high",
        ),
        (
            {"rules": RULES[:1]},
            'sites.office.rules[1] was not set, is {"labels":{"gunshot":0.5},"name":"",'
            '"rule":"sound","schedule":"","severity":"high"}',
        ),
        ({"timezone": "Europe/Rome"}, "sites.office.timezone was Europe/Rome, is UTC"),
        (
            {"windows": schema.Windows(size=2)},
            "sites.office.windows.size was 2, is 4",
        ),
        (
            {"microphones": {}},
            'sites.office.microphones.room was not set, is {"hear":{"audit":0.01,"gate":"auto"},'
            '"track":null}',
        ),
    ],
)
def test_what_differs_is_named(site: dict[str, Any], expected: str) -> None:
    before = told(msgspec.structs.replace(SITE, **site))
    found = [str(each) for each in differences(before, told())]
    assert len(found) == 1
    if "name" not in expected:
        assert found == [expected]
    assert found[0].startswith(expected.split("{", maxsplit=1)[0])


def test_another_head_is_named_with_its_hash() -> None:
    before, now = told(head="fusewatch 3", sha256="ab12cd34" * 8), told()
    assert differences(before, now) == [
        Difference(path="sites.office.fusion.head", was="fusewatch 3 (ab12cd34)", now="rules")
    ]
    same = told(head="fusewatch 3", sha256="ffffffff" * 8)
    assert [str(each) for each in differences(before, same)] == [
        "sites.office.fusion.head was fusewatch 3 (ab12cd34), is fusewatch 3 (ffffffff)"
    ]
