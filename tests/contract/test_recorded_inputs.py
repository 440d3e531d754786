"""Inputs that do not fit: a foreign site, a clock of several sites, a bad file among good ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.types import SiteConfig, ns
from tests.recorded import BEGIN, Recorded, entries, entry, write
from workers.cli import main
from workers.recordings.recording import open_recording

SITE = """
  {name}:
    timezone: {zone}
    cameras:
      desk: {{source: "device:0", zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}}}
    microphones: {{room: {{source: "device:default"}}}}
    rules: [{{rule: zone, zone: floor, severity: high}}, {{rule: sound, labels: {{glass: 0.5}}}}]
    fusion: rules
"""
SET = "sites.{}.rules.zone-floor.min_score=0.3,0.5"

Run = Callable[..., int]


def config(folder: Path, state: Path | None = None, **zones: str) -> Path:
    """A config with a site for each name, in its time zone."""
    path = folder / f"{'-'.join(zones)}.yaml"
    text = "version: 1\n" + (f"state: {state}\n" if state else "") + "sites:"
    path.write_text(text + "".join(SITE.format(name=n, zone=z) for n, z in zones.items()))
    return path


def of_sites(*sites: str, seconds: int = 12, configs: bool = False) -> Iterator[Recorded]:
    """What each of these sites recorded, one after another within each second."""
    offsets: dict[str, int] = {}

    def put(topic: str, one: bytes, site: str) -> Recorded:
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        record = msgspec.structs.replace(codec.decode(one), site=site)
        return topic, entry(record, offset, topic)

    if configs:
        for site in sites:
            made = SiteConfig(site=site, source="", start=ns(BEGIN), hash="h", head="rules",
                              settings="{}")  # fmt: skip
            yield put(topics.CONFIGS, codec.encode(made), site)
    for topic, one in entries(seconds):
        for site in sites:
            yield put(topic, one.value, site)


def commands(path: Path, out: Path, site: str) -> dict[str, list[str]]:
    """The commands that judge or show recorded input by a config, without their input."""
    return {
        "explain": ["explain", str(path)],
        "observations": ["observations", str(path)],
        "replay": ["replay", str(path), "--out", str(out) + "/"],
        "sweep": ["sweep", str(path), "--set", SET.format(site)],
    }


NAMES = ("explain", "observations", "replay", "sweep")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_of_a_site_that_the_config_lacks_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(tmp_path / "rec", of_sites("office", "shop"))
    words = commands(config(tmp_path, yard="UTC"), tmp_path / "out", "yard")[name]
    assert main([*words, str(tmp_path / "rec")]) == 2
    said = capsys.readouterr()
    assert "rec: is of the sites office, shop, and the config has the site yard;" in said.err
    assert said.out == ""
    near = commands(config(tmp_path, ofice="UTC"), tmp_path / "out", "ofice")[name]
    assert main([*near, str(tmp_path / "rec")]) == 2
    assert "did you mean `ofice`?" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_log_of_a_site_that_the_config_lacks_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    state = tmp_path / "state"
    log = LocalLog(state / "log", clock=time.time_ns)
    for topic, one in of_sites("office", configs=True):
        log.publish(topic, one.key, one.value)
    log.flush()
    log.close()
    since = ["--since", "2026-01-01T00:00:00Z", "--state", str(state)]
    words = commands(config(tmp_path, yard="UTC"), tmp_path / "out", "yard")[name]
    assert main([*words, *since]) == 2
    assert "the log: is of the site office, and the config has" in capsys.readouterr().err
    words = commands(config(tmp_path, office="UTC"), tmp_path / "out", "office")[name]
    assert main([*words, *since]) == 0


def test_sites_beside_those_of_the_config_are_named_and_only_those_there_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "rec", of_sites("office", "shop"))
    path = config(tmp_path, office="UTC", yard="UTC")
    assert main(["explain", str(path), str(tmp_path / "rec"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["site"] == "office"
    assert "rec: also holds the site shop, which the config lacks" in said.err + caplog.text


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--site", "yard"), "rec: is of the site office, and --site names yard"),
        (("--source", "door"), "rec: has no source door, which --source names; it has desk, room"),
        (
            ("--since", "2026-02-01T00:00:00Z", "--until", "2026-02-02T00:00:00Z"),
            "rec: has nothing between --since and --until: it begins at 2026-01-01T00:00:00Z and",
        ),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_selection_of_which_a_recording_has_nothing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, more: tuple[str, ...], why: str
) -> None:
    write(tmp_path / "rec", of_sites("office"))
    path = config(tmp_path, office="UTC", yard="UTC")
    path.write_text(
        path.read_text().replace("cameras:\n", 'cameras:\n      door: {source: "device:1"}\n')
    )
    words = commands(path, tmp_path / "out", "office")[name]
    assert main([*words, str(tmp_path / "rec"), *more]) == 2
    assert why in capsys.readouterr().err


# -- a time of day


@pytest.mark.parametrize("zones", [("Europe/Berlin", "America/New_York"), ("UTC", "Asia/Kolkata")])
def test_a_time_of_day_at_several_clocks_asks_for_the_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zones: tuple[str, str]
) -> None:
    write(tmp_path / "rec", of_sites("office", "shop"))
    path = config(tmp_path, office=zones[0], shop=zones[1])
    words = ["explain", str(path), str(tmp_path / "rec")]
    assert main([*words, "--at", "01:00:05"]) == 2
    said = capsys.readouterr().err
    assert "--at 01:00:05: is another moment at each site:" in said
    assert "Z at office" in said
    assert "name one site by --site, or a time with its zone" in said
    assert main([*words, "--at", "+5"]) == 0
    assert capsys.readouterr().out.count("the first cause first") == 2
    assert main([*words, "--at", "2026-01-01T00:00:05Z"]) == 0


def test_a_time_of_day_is_that_of_the_site_and_of_sites_whose_clocks_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "rec", of_sites("office", "shop"))
    for zones, site, at in (
        (("Europe/Berlin", "America/New_York"), ["--site", "shop"], "19:00:05"),
        (("Europe/Berlin", "America/New_York"), ["--site", "office"], "01:00:05"),
        (("Europe/Berlin", "Europe/Paris"), [], "01:00:05"),
    ):
        path = config(tmp_path, office=zones[0], shop=zones[1])
        assert main(["explain", str(path), str(tmp_path / "rec"), *site, "--at", at]) == 0
        said = capsys.readouterr().out
        assert said.count(f"Around {at}") == (1 if site else 2)


def test_a_page_of_several_sites_is_refused_before_they_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "rec", of_sites("office", "shop"))
    path, page = config(tmp_path, office="UTC", shop="UTC"), tmp_path / "why.html"
    words = ["explain", str(path), str(tmp_path / "rec"), "--page", str(page)]
    assert main(words) == 2
    assert "name it by --site; there is office, shop" in capsys.readouterr().err
    assert main([*words, "--site", "shop"]) == 0
    assert page.is_file()


# -- a bad file among good ones


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def noise(folder: Path) -> Path:
    (folder / "noise.mkv").write_bytes(bytes(range(256)) * 40)
    return folder / "noise.mkv"


def no_yaml(folder: Path) -> Path:
    (folder / "torn.yaml").write_text("site: office\ncameras: {desk: [}\n")
    return folder / "torn.yaml"


def missing_clip(folder: Path) -> Path:
    (folder / "scene.yaml").write_text(
        "site: office\nstart: 2026-01-01T00:00:00Z\ncameras: {desk: {file: gone.mp4}}\n"
    )
    return folder / "scene.yaml"


def foreign_scene(folder: Path) -> Path:
    (folder / "plaza.yaml").write_text(
        "site: plaza\nstart: 2026-01-01T00:00:00Z\nduration: 5\ncameras: {}\n"
    )
    return folder / "plaza.yaml"


def foreign_recording(folder: Path) -> Path:
    write(folder / "shop", of_sites("shop"))
    return folder / "shop"


def recording_of_noise(folder: Path) -> Path:
    (folder / "bad").mkdir()
    (folder / "bad" / "x.mcap").write_bytes(b"no recording")
    return folder / "bad"


BAD = (empty, noise, no_yaml, missing_clip, foreign_scene, foreign_recording, recording_of_noise)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_file_of_a_folder_is_named_and_the_others_go_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    bad: Callable[[Path], Path],
) -> None:
    folder = tmp_path / "all"
    write(folder / "good", of_sites("office"))
    found = bad(folder)
    path = config(tmp_path, office="UTC")
    out = tmp_path / "out"
    for name, words in commands(path, out, "office").items():
        caplog.clear()
        assert main([*words, str(folder)]) == 1, name
        said = capsys.readouterr()
        told = said.err + caplog.text
        assert str(found) in told
        assert "it is left out" in told
        assert said.out
    assert [each.name for each in out.iterdir()] == ["good.jsonl"]
    for name, words in commands(path, out, "office").items():
        # Alone, it is an error, and beside another one it is named as in a folder.
        assert main([*words, str(found)]) in (2, 3), name
        assert str(found) in capsys.readouterr().err
        if name != "explain":
            assert main([*words, str(folder / "good"), str(found)]) == 1, name
            capsys.readouterr()


def test_a_program_learns_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    write(folder / "good", of_sites("office"))
    found = empty(folder)
    words = commands(config(tmp_path, office="UTC"), tmp_path / "out", "office")
    assert main([*words["replay"], str(folder), "--json"]) == 1
    good, left_out = json.loads(capsys.readouterr().out)
    assert good["kind"] == "recording"
    assert left_out == {"input": str(found), "left_out": f"{found}: is empty"}
    assert main([*words["sweep"], str(folder), "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)["left_out"]
    assert one["path"] == str(found)


@pytest.mark.parametrize("name", NAMES)
def test_bad_files_alone_are_an_error_and_a_name_that_is_not_there_is_one_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    empty(folder), noise(folder)
    words = commands(config(tmp_path, office="UTC"), tmp_path / "out", "office")[name]
    assert main([*words, str(folder)]) == 2
    assert "none of the 2 inputs can be used" in capsys.readouterr().err
    write(tmp_path / "good", of_sites("office"))
    assert main([*words, str(tmp_path / "good"), str(tmp_path / "god")]) == 2
    assert "no such file" in capsys.readouterr().err.lower()


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_suits_no_file_is_not_the_fault_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "all"
    write(folder / "good", of_sites("office"))
    empty(folder)
    words = commands(config(tmp_path, office="UTC"), tmp_path / "out", "office")[name]
    for more, why in (
        (("--camera", "dsk"), "--camera dsk: the config has no such camera; did you mean `desk`"),
        (("--microphone", "hall"), "has no such microphone; there is room"),
        (("--start", "yesterday"), "--start 'yesterday': must be a time with its zone"),
    ):
        assert main([*words, str(folder), *more]) == 2
        assert why in capsys.readouterr().err


def test_a_bad_file_in_the_folder_of_a_recording_is_a_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rec"
    for part in range(2):
        write(folder, list(of_sites("office"))[60 * part : 60 * part + 60])
    whole = list(open_recording(folder).appended(topics.OBSERVATIONS))
    bad = {
        "a.mcap": b"no recording",
        "b.mcap": b"\x89MCAP0\r\n\x01\x0c\0\0\0\0\0\0\0\x04\0\0\0ros2\0\0\0\0",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "c.mcap").mkdir()
    recording = open_recording(folder)
    assert list(recording.appended(topics.OBSERVATIONS)) == whole
    reasons = [loss.reason for loss in recording.unusable]
    assert reasons[0] == "is no MCAP file"
    assert reasons[1].startswith("is an MCAP file of the profile 'ros2'")
    assert reasons[2] == "cannot be read: Is a directory"
    path = config(tmp_path, office="UTC")
    for words in commands(path, tmp_path / "out", "office").values():
        assert main([*words, str(folder)]) == 1
        assert "a.mcap" in capsys.readouterr().err
    for name in bad:
        assert main(["observations", str(path), str(folder / name)]) == 2
        assert name in capsys.readouterr().err


def test_diff_compares_the_other_files_of_folders_and_names_the_bad_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "office-break-in.jsonl"
    for side in ("before", "after"):
        (tmp_path / side).mkdir()
        for name in ("a.jsonl", "b.jsonl"):
            (tmp_path / side / name).write_bytes(golden.read_bytes())
    (tmp_path / "after" / "a.jsonl").write_text("no alert\n")
    words = ["diff", str(tmp_path / "before"), str(tmp_path / "after")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "a.jsonl:1: is no alert" in said.err
    assert "the same" in said.out
    assert "1 of 2 files cannot be compared" in said.err
    assert main([*words, "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert [row.get("input") for row in rows] == [None, "a.jsonl"]
