"""The parts of the first hour: addresses as they are typed, the time zone, the disk's days."""

from __future__ import annotations

import lzma
import os
import threading
from pathlib import Path

import msgspec
import pytest

from pipeline import codec
from pipeline.config.schema import Camera, Config, Detect, Microphone, Site, Storage
from pipeline.errors import ConfigError, OutsideError
from pipeline.types import Detections, Sound
from tests.make import box, detections
from workers.config.loader import load
from workers.config.secrets import Secrets
from workers.config.source_address import parse
from workers.setup.init_command import Given, parsed, run_init
from workers.setup.init_config import NewConfig, NewSource, write_config
from workers.setup.machine_timezone import machine_timezone
from workers.setup.source_trial import Trial, within
from workers.setup.storage_estimate import BUSY, POSE, QUIET, SOUND_OBSERVED, estimate, told

GOLDEN = Path(__file__).parents[1] / "golden"


# Addresses


@pytest.mark.parametrize(
    ("typed", "url", "username", "password"),
    [
        ("rtsp://10.0.0.5/h264", "rtsp://10.0.0.5/h264", "", ""),
        ("rtsp://ops:a%40b@10.0.0.5:554/x?y=1", "rtsp://10.0.0.5:554/x?y=1", "ops", "a@b"),
        ("http://ops@h/x", "http://h/x", "ops", ""),
        ("rtsp://ops:${DOOR}@h/x", "rtsp://ops:${DOOR}@h/x", "", ""),
        ("/dev/video2", "device:/dev/video2", "", ""),
        ("device:1", "device:1", "", ""),
        ("/srv/a.mp4", "file:/srv/a.mp4", "", ""),
    ],
)
def test_a_typed_address_is_kept_with_its_login_apart(
    typed: str, url: str, username: str, password: str
) -> None:
    source = parsed("camera", typed)
    assert source is not None
    assert (source.url, source.username, source.password) == (url, username, password)
    assert "a@b" not in repr(source)


def test_a_relative_file_is_found_from_wherever_the_config_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = parsed("camera", "films/a.mp4")
    assert source is not None
    assert source.url == f"file:{tmp_path}/films/a.mp4"


def test_none_is_no_source_and_same_needs_a_stream() -> None:
    camera = parsed("camera", "rtsp://ops:pw@h/x")
    assert parsed("camera", "none") is None
    heard = parsed("microphone", "same", camera)
    assert heard is not None
    assert (heard.name, heard.url, heard.password) == ("microphone", "rtsp://h/x", "pw")
    for seen in (None, parsed("camera", "device:0")):
        with pytest.raises(ConfigError, match="no stream of a camera"):
            parsed("microphone", "same", seen)


@pytest.mark.parametrize(
    "typed", ["exec:id", "a:b.mp4", "10.0.0.5:554/x", "same", "rtsp:${A", "-x"]
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError):
        parsed("camera" if typed != "same" else "microphone", typed)


# Configs


CASES = {
    "camera only": (NewSource(name="camera", url="rtsp://h/x"), None),
    "microphone only": (None, NewSource(name="microphone", url="device:default")),
    "a file": (NewSource(name="camera", url="file:/srv/my film, \u00e9.mp4"), None),
    "both of one stream": (
        NewSource(name="camera", url="rtsp://h/x", username="ops", password='p"\\w: #\u20ac'),
        NewSource(name="microphone", url="rtsp://h/x", username="ops", password='p"\\w: #\u20ac'),
    ),
    "a password in the query": (
        NewSource(name="camera", url="http://h/flv?user=ops&password=s3cretpw&ch=1"),
        NewSource(name="microphone", url="http://h/flv?user=ops&password=s3cretpw&ch=1"),
    ),
    "a password in the path": (
        NewSource(name="camera", url="rtsp://h/user=ops_password=s3cretpw_channel=1.sdp"),
        None,
    ),
    "a user alone": (NewSource(name="camera", url="http://h/x", username="ops"), None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("webhook", ["", "https://example.org/a?b=c"])
def test_every_new_config_is_right(tmp_path: Path, case: str, webhook: str) -> None:
    camera, microphone = CASES[case]
    new = NewConfig(
        camera=camera,
        microphone=microphone,
        site="no",
        timezone="Europe/Berlin",
        webhook=webhook,
        state=tmp_path / "a state #1",
    )
    said: list[str] = []
    config = write_config(tmp_path / "it's.yaml", new, said.append)
    site = config.sites["no"]
    assert (len(site.cameras), len(site.microphones)) == (
        camera is not None,
        microphone is not None,
    )
    assert bool(config.webhooks) == bool(webhook)
    text = (tmp_path / "it's.yaml").read_text()
    assert "s3cretpw" not in text + "".join(said)
    kinds = (("camera", camera, site.cameras), ("microphone", microphone, site.microphones))
    for kind, source, named in kinds:
        if source is None:
            continue
        resolved = Secrets({}, tmp_path).source(named[source.name].source, "source")
        login = {"username": source.username, "password": source.password}
        meant = {"url": source.url, **login} if source.username else source.url
        assert parse(resolved, kind) == parse(meant, kind)
        if source.password:
            assert source.password not in text + "".join(said)
            secret = tmp_path / "a state #1/camera-password"
            assert secret.read_text() == source.password + "\n"
            assert not (tmp_path / "a state #1/microphone-password").exists()
    assert config == load(tmp_path / "it's.yaml", {})


def test_a_password_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    for n, word in enumerate(("one", "two", "one")):
        source = NewSource(name="camera", url="rtsp://h/x", username="ops", password=word)
        new = NewConfig(camera=source, microphone=None, state=tmp_path)
        write_config(tmp_path / f"{n}.yaml", new, lambda _: None)
    assert (tmp_path / "camera-password").read_text() == "one\n"
    assert (tmp_path / "camera-password-2").read_text() == "two\n"
    assert not (tmp_path / "camera-password-3").exists()


@pytest.mark.parametrize("name", ["a\nb.yaml", "caf\udce9.yaml"])
def test_a_name_that_could_not_stand_in_the_config_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="control character"):
        run_init(tmp_path / name, Given(camera="none"), ask=False)
    new = NewConfig(state=tmp_path / name)
    with pytest.raises(ConfigError, match="control character"):
        write_config(tmp_path / "a.yaml", new)


# The time zone


def test_the_time_zone_is_that_of_the_environment_or_of_the_machine(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    assert machine_timezone({}, etc) == "UTC"
    (etc / "timezone").write_text("Asia/Tokyo\n")
    assert machine_timezone({}, etc) == "Asia/Tokyo"
    zone = tmp_path / "share/zoneinfo/Europe/Berlin"
    zone.parent.mkdir(parents=True)
    zone.write_text("")
    (etc / "localtime").symlink_to(os.path.relpath(zone, etc))
    assert machine_timezone({}, etc) == "Europe/Berlin"
    assert machine_timezone({"TZ": "America/Lima"}, etc) == "America/Lima"
    assert machine_timezone({"TZ": ":/usr/share/zoneinfo/America/Lima"}, etc) == "America/Lima"
    assert machine_timezone({"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}, etc) == "Europe/Berlin"


# Storage


def office(cap: str = "20 GB", **cameras: float) -> Config:
    site = Site(
        cameras={
            name: Camera(source="device:0", detect=Detect(fps=fps)) for name, fps in cameras.items()
        },
        microphones={"room": Microphone(source="device:default")},
    )
    return Config(version=1, sites={"office": site}, storage=Storage(cap=cap))


def test_days_follow_from_the_cap_the_rate_and_the_size_of_pictures() -> None:
    config = office(desk=5)
    found = estimate(config, {("office", "desk"): 40_000}, 20_000_000_000)
    assert found.observations == (
        2_000_000_000 / (5 * BUSY + SOUND_OBSERVED),
        2_000_000_000 / (5 * QUIET + SOUND_OBSERVED),
    )
    assert (found.pictures, found.sound) == (900, 900), "no longer than storage.frames"
    assert found.evidence == 2_000_000_000 / 4_000_000 * 86_400
    small = estimate(office("100 MB", desk=5), {("office", "desk"): 40_000}, 100_000_000)
    assert small.pictures == 50_000_000 / 200_000


def test_poses_take_room_in_a_busy_place() -> None:
    plain, pictures = office(desk=5), {("office", "desk"): 40_000}
    camera = plain.sites["office"].cameras["desk"]
    camera = msgspec.structs.replace(camera, detect=msgspec.structs.replace(camera.detect, poses=2))
    site = msgspec.structs.replace(plain.sites["office"], cameras={"desk": camera})
    posed = msgspec.structs.replace(plain, sites={"office": site})
    found = estimate(posed, pictures, 20_000_000_000)
    assert found.observations == (
        2_000_000_000 / (5 * (BUSY + 2 * POSE) + SOUND_OBSERVED),
        2_000_000_000 / (5 * QUIET + SOUND_OBSERVED),
    )
    bare, with_pose = (
        len(codec.encode(detections(1.0, box(keypoints=keypoints))))
        for keypoints in (b"", bytes(102))
    )
    assert with_pose - bare == POSE


def test_the_disk_is_told_where_it_has_less_room_than_the_cap() -> None:
    config, pictures = office(desk=5), {("office", "desk"): 40_000}
    assert told(config, pictures, 30_000_000_000, 0) == (
        "the cap of 20.0 GB holds 35 hours (busy) to 3.8 days (quiet) of observations, 15 minutes "
        "of pictures, 15 minutes of sound, 500 days of alerts' pictures at 100 alerts a day and "
        "site (estimated)"
    )
    assert "the disk has room for 2.0 GB: 3.5 hours" in told(config, pictures, 10**9, 10**9)
    assert "of pictures" not in told(config, {}, 30_000_000_000, 0), "no camera gave one"


@pytest.mark.parametrize(
    ("scene", "expected"), [("office-after-hours", QUIET), ("retail-quiet", BUSY)]
)
def test_the_bytes_of_observations_are_those_of_recorded_scenes(scene: str, expected: int) -> None:
    stored = msgspec.msgpack.decode(lzma.decompress((GOLDEN / f"{scene}.obs.xz").read_bytes()))
    row = 150  # bytes of an entry beside its value: key, offset, times, trace, and their index
    pictures, size = 0, 0
    for _, value, _ in stored["entries"]:
        record = codec.decode(value)
        pictures += isinstance(record, Detections)
        size += 0 if isinstance(record, Sound) else len(value) + row
    assert expected / 1.5 < size / pictures < expected * 1.5


# Trials


def test_a_source_that_hangs_is_left_behind() -> None:
    stop = threading.Event()

    def wait() -> Trial:
        stop.wait(30)
        return Trial()

    with pytest.raises(OutsideError, match=r"gave nothing within 0\.1 s"):
        within(0.1, wait)
    stop.set()


def test_what_ended_too_soon_is_told() -> None:
    with pytest.raises(OutsideError, match="ended before it gave a frame"):
        Trial().camera()
    with pytest.raises(OutsideError, match="ended before it gave a second of sound"):
        Trial().microphone()
