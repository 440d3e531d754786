"""`doctor` and `init` before a real RTSP server: what it gives, and why it gives nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.schema import Camera, Config, Microphone, Site, Streams
from tests.live.servers import rtsp_server
from workers.setup.doctor import Check, doctor

pytestmark = pytest.mark.live

PASSWORD = "s3cretpw"


def checked(tmp_path: Path, site: Site) -> dict[str, Check]:
    config = Config(version=1, state=str(tmp_path / "state"), sites={"office": site})
    found = doctor(config, {}, tmp_path)
    assert PASSWORD not in repr(found)
    return {check.name: check for check in found}


def test_a_stream_shows_its_native_size_and_what_is_made_of_it(tmp_path: Path, media: Path) -> None:
    with rtsp_server(media / "video/office_a.mp4", "--tone") as address:
        site = Site(
            cameras={"desk": Camera(source=address)},
            microphones={"room": Microphone(source=address)},
        )
        found = checked(tmp_path, site)
    assert found["camera office/desk"].ok
    assert "a frame of 768 x 432 after" in found["camera office/desk"].detail
    assert "looked at as 640 x 360" in found["camera office/desk"].detail
    assert found["microphone office/room"].ok
    assert "a second of sound" in found["microphone office/room"].detail


def test_a_wrong_password_a_missing_one_and_a_wrong_path_are_three_causes(
    tmp_path: Path, media: Path
) -> None:
    film = media / "video/office_a.mp4"
    with (
        rtsp_server(film, "--user", "ops", "--password", PASSWORD) as locked,
        rtsp_server(film) as open_,
    ):
        host = locked.removeprefix("rtsp://")
        site = Site(
            cameras={
                "right": Camera(source=f"rtsp://ops:{PASSWORD}@{host}"),
                "wrong": Camera(source=f"rtsp://ops:{PASSWORD}x@{host}"),
                "none": Camera(source=locked),
                "path": Camera(source=f"{open_}/nothing"),
            },
            microphones={"mute": Microphone(source=open_)},
        )
        found = checked(tmp_path, site)
    details = {name: found[f"camera office/{name}"].detail for name in site.cameras}
    assert found["camera office/right"].ok, details["right"]
    assert "refuses this user or password (401)" in details["wrong"]
    assert "asks for a user and a password (401)" in details["none"]
    assert "has nothing at this path (404)" in details["path"]
    assert found["microphone office/mute"].detail == "the stream holds no sound"


def test_both_streams_of_a_camera_are_tried_and_what_decodes_is_told(
    tmp_path: Path, media: Path
) -> None:
    film = media / "video/office_a.mp4"
    with rtsp_server(film, "--user", "ops", "--password", PASSWORD) as url:
        host = url.removeprefix("rtsp://")
        (tmp_path / "word").write_text(f"{PASSWORD}\n")
        small = {"url": url, "username": "ops", "password": "file:word"}
        site = Site(
            cameras={
                "good": Camera(
                    streams=Streams(detect=small, record=f"rtsp://ops:{PASSWORD}@{host}"),
                    hwaccel="auto",
                ),
                "half": Camera(
                    streams=Streams(detect=small, record=f"rtsp://ops:{PASSWORD}x@{host}")
                ),
            }
        )
        found = checked(tmp_path, site)
    for name in ("good", "good record", "half"):
        assert found[f"camera office/{name}"].ok, found[f"camera office/{name}"].detail
    assert "; nothing reads it yet" in found["camera office/good record"].detail
    assert ", decoded by " in found["camera office/good"].detail
    assert "decoded" not in found["camera office/half"].detail
    large = found["camera office/half record"]
    assert not large.ok
    assert "refuses this user or password (401)" in large.detail
