"""The command `explain`: what it refuses, its JSON, and its page, which needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import ConfigError
from pipeline.judge.refusal import REASONS
from pipeline.types import Utterance, ns
from tests.contract.test_demo import Tags
from tests.graph.test_planted_misses import EVENING, day, explained, nobody, site, twice, walking
from workers.cli import main
from workers.demo.demo import SHIPPED
from workers.explain import page
from workers.explain.moments import at_time, incident_of
from workers.explain.observed import Picture

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/explain.md"
CAMERA_ALONE = """
version: 1
sites:
  office:
    timezone: Europe/Berlin
    cameras:
      desk: {source: "device:0", zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}}
    rules: [{rule: zone, zone: floor, severity: high}]
    fusion: rules
"""


def page_of_demo(folder: Path) -> Path:
    """Explains the shipped scene by the real models, as a page."""
    file = folder / "demo.html"
    words = [str(SHIPPED / "site.yaml"), str(SHIPPED / "scene.yaml"), "--page", str(file)]
    assert main(["explain", *words]) == 0
    return file


@pytest.fixture
def camera(tmp_path: Path) -> list[str]:
    """A config and a clip of it: the shipped detector alone is needed."""
    (tmp_path / "site.yaml").write_text(CAMERA_ALONE)
    return [str(tmp_path / "site.yaml"), str(SHIPPED / "office.mp4"), "--camera", "desk",
            "--start", "2026-01-05T22:00:00+01:00"]  # fmt: skip


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_a_clip_is_explained_as_text_as_json_and_as_a_page(
    camera: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "why.html"
    assert main(["explain", *camera, "--json", "--page", str(file)]) == 0
    assert file.stat().st_mode & 0o077 == 0, "it shows people"
    document = told(capsys)
    assert document["rules"] == ["zone-floor", "fusion", "learned"]
    assert document["seconds"]
    assert {"rule", "source", "start", "score", "fired"} <= set(document["seconds"][0]) | {"start"}
    (incident, *_) = document["incidents"]
    found = Tags(file.read_text())
    assert {"svg", "image", "polyline"} <= set(found.tags)
    assert not {"script", "iframe", "link"} & set(found.tags)
    assert all(re.match(r"data:image/jpeg;base64,|#", a) for a in found.addresses)
    assert main(["explain", *camera, "--incident", incident["id"][:8]]) == 0
    printed = capsys.readouterr().out
    assert "Why it came (rules zone-floor" in printed
    assert "Why it closed:" in printed
    assert re.search(r"^  22:00:\d\d person in zone floor", printed, re.M)  # it is 21:00 UTC
    assert main(["explain", *camera, "--at", "+3"]) == 0
    assert "Around 22:00:03" in capsys.readouterr().out


def test_wrong_words_are_told_before_anything_is_played(
    camera: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", camera[0]]) == 2
    assert "--since TIME" in capsys.readouterr().err
    assert main(["explain", *camera, "--at", "+3", "--incident", "ab"]) == 2
    assert "either --at or --incident" in capsys.readouterr().err
    assert main(["explain", *camera, "--page", str(tmp_path / "no/why.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    before = Path(camera[0]).read_bytes()
    assert main(["explain", *camera, "--page", camera[0]]) == 2
    assert "and is no page of Fusewatch" in capsys.readouterr().err
    assert Path(camera[0]).read_bytes() == before
    for time in ("soon", "+nan", "-5", "25:00", "2026-01-05T22:00:07"):
        assert main(["explain", *camera, "--at", time]) == 2
        said = capsys.readouterr().err
        assert "or +7 for seconds after the begin" in said or "is no time of day" in said
    assert main(["explain", *camera, camera[1]]) == 2
    assert "one input is explained at a time" in capsys.readouterr().err


def test_times_and_incidents_that_are_not_there_are_told() -> None:
    found = explained(site(), day(twice))
    assert at_time("21:58:10", found) == ns(EVENING + 10)
    assert at_time("+12.5", found) == ns(EVENING + 12.5)
    assert at_time("2026-01-05T20:58:10Z", found) == ns(EVENING + 10)
    with pytest.raises(ConfigError, match="begins at 2026-01-05T20:58:00Z and ends at"):
        at_time("23:00", found)
    with pytest.raises(ConfigError, match="is no time of day"):
        at_time("25:00", found)
    with pytest.raises(ConfigError, match="there is no such incident; there is"):
        incident_of("nothing", [found])
    with pytest.raises(ConfigError, match="nothing was told"):
        incident_of("ab", [explained(site(), day(nobody))])


def test_the_page_escapes_every_text_and_loads_nothing() -> None:
    hostile = "<script>alert(1)</script> \x1b[31m <img src=http://x>"
    found = explained(site(), day(walking(0.53), says=(f"help {hostile}", 0.31)))
    spoken = [one for one in found.observations if isinstance(one, Utterance)]
    assert spoken
    shown = page.rendered(page.view(found, at=ns(EVENING + 15)))
    tags = Tags(shown)
    assert not {"script", "iframe", "object", "link", "img"} & set(tags.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "\x1b" not in shown
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in tags.addresses)
    assert "default-src 'none'" in shown


def test_a_page_of_a_day_is_refused_and_a_moment_of_it_is_shown() -> None:
    found = explained(site(), day(walking(0.53)))
    long = msgspec.structs.replace(found, end=found.start + ns(24 * 3600))
    with pytest.raises(ConfigError, match="--page shows at most 2 hours"):
        page.view(long)
    shown = page.view(long, at=ns(EVENING + 16))
    assert shown.scale.end == ns(EVENING + 16 + 300)


def test_the_guide_names_every_reason() -> None:
    written = GUIDE.read_text()
    assert [reason for reason in REASONS if f"`{reason}`" not in written] == []


def test_the_page_shows_pictures_zones_and_ways() -> None:
    found = explained(site(), day(walking(0.3)))
    with_picture = msgspec.structs.replace(found, pictures={"desk": [Picture(found.start, b"x")]})
    shown = page.rendered(page.view(with_picture))
    assert 'class="zone"' in shown
    assert 'class="way"' in shown
    assert "data:image/jpeg;base64,eA==" in shown
    assert "person 2, at most 0.90" in shown or "person 1, at most 0.90" in shown
