"""`fusewatch doctor`: what works is said to work, on real media, and what does not is told."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from models.fusion.learned_head import LearnedHead
from pipeline import topics
from pipeline.bus.log import LocalLog
from pipeline.config.schema import (
    Camera,
    Config,
    Fusion,
    Microphone,
    Model,
    Models,
    Recording,
    Site,
    Storage,
    Webhook,
)
from pipeline.types import ns
from tests.reels import film, mjpeg
from tests.small_disk import small_disk
from workers.capture.running_daemons import RunningDaemon
from workers.config.loader import examine
from workers.delivery.outbox import CircuitBreaker, fingerprint, pack
from workers.setup.doctor import Check, doctor, show
from workers.setup.subscriber_health import with_state

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def config_of(tmp_path: Path, **more: object) -> Config:
    given: dict[str, object] = {"version": 1, "state": str(tmp_path / "state"), "sites": {}}
    return Config(**{**given, **more})  # type: ignore[arg-type]


def checked(config: Config | None, tmp_path: Path, **env: str) -> dict[str, Check]:
    found = doctor(config, {"XDG_CACHE_HOME": str(tmp_path), **env}, tmp_path, tmp_path / "devices")
    return {check.name: check for check in found}


def test_weights_are_present_or_told_how_to_get(weights: Path, tmp_path: Path) -> None:
    there = checked(None, tmp_path, FUSEWATCH_WEIGHTS=str(weights))
    assert there["weights yolox_nano"] == Check(
        "weights yolox_nano", True, str(weights / "yolox_nano")
    )
    name = "faster-whisper-tiny.en"
    gone = checked(None, tmp_path)
    assert gone[f"weights {name}"] == Check(
        f"weights {name}", False, f"missing; download it: fusewatch weights pull {name}"
    )
    assert gone["weights yolox_nano"].ok, "it comes with Fusewatch"


def test_only_the_weights_that_a_config_needs_are_asked_for(tmp_path: Path) -> None:
    yard = Site(cameras={"gate": Camera(source="file:none.mp4")})
    hall = Site(microphones={"room": Microphone(source="file:none.wav")})
    asked = {
        name: {check for check in checked(config_of(tmp_path, sites=sites), tmp_path)}
        for name, sites in (("yard", {"yard": yard}), ("hall", {"hall": hall}))
    }
    heard = {"weights faster-whisper-tiny.en", "weights yamnet", "weights all-MiniLM-L6-v2-int8"}
    assert {name for name in asked["yard"] if name.startswith("weights")} == {"weights yolox_nano"}
    assert {name for name in asked["hall"] if name.startswith("weights")} == heard


def test_a_path_to_weights_must_exist(tmp_path: Path) -> None:
    models = Models(detector=Model(kind="onnx", weights=str(tmp_path / "my.onnx")))
    name = f"weights {tmp_path}/my.onnx"
    sites = {"yard": Site(cameras={"gate": Camera(source="file:none.mp4")})}
    config = config_of(tmp_path, models=models, sites=sites)
    assert not checked(config, tmp_path)[name].ok
    (tmp_path / "my.onnx").write_bytes(b"x")
    assert checked(config, tmp_path)[name].ok


def test_cameras_of_this_machine_are_listed(tmp_path: Path) -> None:
    for number, label in ((10, "far"), (0, "near")):
        device = tmp_path / "devices" / f"video{number}"
        device.mkdir(parents=True)
        (device / "name").write_text(f"{label}\n")
    cameras = checked(None, tmp_path)["cameras"]
    assert cameras.detail.startswith("device:0 near, device:10 far")


def test_each_source_gives_a_frame_or_a_second(media: Path, tmp_path: Path) -> None:
    site = Site(
        cameras={"desk": Camera(source=f"file:{media}/video/office_a.mp4")},
        microphones={"room": Microphone(source=f"file:{media}/speech/jfk.flac")},
    )
    found = checked(config_of(tmp_path, sites={"office": site}), tmp_path)
    assert found["camera office/desk"].ok
    assert "a frame of 768 x 432" in found["camera office/desk"].detail
    assert "looked at as 640 x 360" in found["camera office/desk"].detail
    assert found["microphone office/room"].ok
    assert "a second of sound, peak" in found["microphone office/room"].detail


def test_a_source_that_fails_is_told_without_its_password(tmp_path: Path) -> None:
    site = Site(
        cameras={
            "dead": Camera(source="rtsp://u:hunter2@127.0.0.1:1/x"),
            "unset": Camera(source="rtsp://u:${PW}@127.0.0.1:1/x"),
            "set": Camera(source="rtsp://u:${SET}@127.0.0.1:1/x"),
            "bad": Camera(source={"url": "rtsp://h h/", "username": "u", "password": "hunter2"}),
        },
    )
    found = checked(config_of(tmp_path, sites={"office": site}), tmp_path, SET="hunter2")
    assert found["camera office/dead"].detail == (
        "the host cannot be reached: Connection refused; nothing listens on port 1 there: "
        "see the port, and whether its stream is turned on"
    )
    assert "variable PW is not set" in found["camera office/unset"].detail
    assert not any(found[f"camera office/{name}"].ok for name in site.cameras)
    assert "hunter2" not in repr(found)


def test_problems_of_the_config_hide_no_source_and_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    film(tmp_path / "a.mkv", [(n / 10, n) for n in range(10)])
    file.write_text(
        "version: 1\nsites:\n  yard:\n    cameras:\n"
        '      one: {source: "a:b.mkv"}\n      two: {source: "a:b.mkv"}\n'
        "      odd: {source: a.mkv, detect: {fps: fast}}\n      good: {source: a.mkv}\n"
    )
    read = examine(file, {}, warn=False, salvage=True)
    config = msgspec.structs.replace(read.config, state=str(tmp_path / "state"))
    found = doctor(config, {}, tmp_path, tmp_path / "devices", read.problems)
    told = {check.name: check for check in found if not check.ok}
    assert told["camera yard/one"].detail.startswith("a.yaml:5: the address has a scheme")
    assert told["camera yard/two"].detail.startswith("a.yaml:6: the address has a scheme")
    assert told["a.yaml:7"].detail == (
        "sites.yard.cameras.odd.detect.fps: must be a number, and is text"
    )
    assert "camera yard/good" in {check.name for check in found if check.ok}


def test_a_camera_that_is_busy_at_first_is_asked_once_more(tmp_path: Path) -> None:
    picture = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
    with mjpeg(picture, busy=1) as address:
        site = Site(cameras={"gate": Camera(source=address)})
        found = checked(config_of(tmp_path, sites={"office": site}), tmp_path)
    assert "a frame of 64 x 48" in found["camera office/gate"].detail


def test_a_muted_microphone_and_a_short_file_are_told(tmp_path: Path) -> None:
    for name, samples in (("mute", 32_000), ("short", 100)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as out:
            out.setparams((1, 2, 16_000, 0, "NONE", ""))
            out.writeframes(bytes(2 * samples))
    site = Site(microphones={n: Microphone(source=f"file:{n}.wav") for n in ("mute", "short")})
    found = checked(config_of(tmp_path, sites={"office": site}), tmp_path)
    assert found["microphone office/mute"].detail == "it gives silence only: is it muted?"
    assert "ended before it gave a second" in found["microphone office/short"].detail


def test_the_state_folder_is_writable_private_and_has_room(tmp_path: Path) -> None:
    found = checked(config_of(tmp_path), tmp_path)
    assert found["state folder"].detail == f"{tmp_path}/state (to be made)"
    assert not (tmp_path / "state").exists(), "doctor changes nothing"
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text("x")
    (tmp_path / "state" / "token").chmod(0o644)
    assert "chmod 600" in checked(config_of(tmp_path), tmp_path)["file token"].detail
    huge = config_of(tmp_path, storage=Storage(cap="900000 TB"))
    assert "lower storage.cap" in checked(huge, tmp_path)["disk"].detail


def test_the_folder_of_recordings_is_writable_and_has_room(tmp_path: Path) -> None:
    assert "recording" not in checked(config_of(tmp_path), tmp_path)
    small = Storage(cap="200 MB")
    good = config_of(tmp_path, storage=small, recording=Recording(keep="100 MB"))
    found = checked(good, tmp_path)["recording"]
    assert found.ok, found.detail
    assert found.detail.startswith(f"{tmp_path}/state/recordings (to be made): 0.1 GB are kept")
    assert not (tmp_path / "state").exists(), "doctor changes nothing"
    huge = config_of(tmp_path, storage=small, recording=Recording(keep="900000 TB"))
    found = checked(huge, tmp_path)["recording"]
    assert not found.ok
    assert "storage.cap may take 0.2 GB more of this disk: lower recording.keep" in found.detail
    (tmp_path / "file").write_text("")
    wrong = ((tmp_path / "file" / "out", "file is no folder"), (Path("/proc/x"), "/proc cannot"))
    for path, why in wrong:
        other = config_of(tmp_path, recording=Recording(path=str(path)))
        found = checked(other, tmp_path)["recording"]
        assert not found.ok
        assert why in found.detail
        assert "name another in recording.path" in found.detail


def test_recordings_do_not_count_as_room_for_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "recordings"
    folder.mkdir(parents=True)
    (folder / "20260101T000000.000000Z.mcap").write_bytes(bytes(30_000_000))
    config = config_of(tmp_path, recording=Recording(keep="100 MB"))
    assert "0.0 GB used; the cap" in checked(config, tmp_path)["disk"].detail


def test_a_small_disk_has_no_room_for_recordings(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64) as disk:
        config = config_of(tmp_path, recording=Recording(keep="100 MB", path=str(disk / "out")))
        found = checked(config, tmp_path)["recording"]
        assert not found.ok
        assert "0.0 GB stay free: lower recording.keep, or name a larger disk" in found.detail


def test_fusion_heads_are_opened(tmp_path: Path) -> None:
    sites = {
        "mall": Site(fusion=Fusion(head="shipped")),
        "yard": Site(fusion=Fusion(head=str(tmp_path / "none"))),
        "attic": Site(fusion=Fusion(head="rules")),
    }
    found = checked(config_of(tmp_path, sites=sites), tmp_path)
    assert found["fusion head of mall"] == Check(
        "fusion head of mall", True, LearnedHead.shipped().version
    )
    assert not found["fusion head of yard"].ok
    assert "holds no fusion head" in found["fusion head of yard"].detail
    assert "fusion head of attic" not in found, "the rules need no file"


def test_webhooks_have_secrets_and_addresses(tmp_path: Path) -> None:
    hooks = (
        Webhook(name="good", url="https://127.0.0.1/x", secret=SECRET),
        Webhook(name="none", url="https://127.0.0.1/x", secret="file:none"),
        Webhook(name="far", url="https://no-such-host.invalid/x", secret=SECRET),
    )
    found = checked(config_of(tmp_path, webhooks=hooks), tmp_path)
    assert found["webhook good"].ok
    assert not found["webhook none"].ok
    assert not found["webhook far"].ok
    assert SECRET not in repr(found)


def test_a_program_reads_json_and_a_person_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check("disk", True, "[bold]fine"), Check("camera a/b", False, "gone")]
    show(checks, as_json=True)
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "camera a/b",
        "ok": False,
        "detail": "gone",
    }
    show(checks, as_json=False)
    out = capsys.readouterr().out
    assert "[bold]fine" in out
    assert "problem" in out


URL = "http://127.0.0.1:9/hook"
NOW = 1_767_650_400


def noted(folder: Path, name: str, breaker: CircuitBreaker) -> None:
    """Commits what a delivery to `name` would, and closes the log as a daemon does."""
    bus = LocalLog(folder / "log", clock=lambda: ns(NOW))
    reader = bus.reader(topics.ALERTS, f"delivery-{name}")
    reader.poll(1, 0)
    reader.commit(0, 0, pack(0, 0, breaker, {}))
    reader.close()
    bus.close()


def hook(url: str = URL) -> Webhook:
    return Webhook(name="guardroom", url=url, secret=SECRET)


def test_a_subscriber_that_answered_410_or_fails_is_a_problem(tmp_path: Path) -> None:
    state = tmp_path / "state"
    noted(state, "guardroom", CircuitBreaker(disabled=fingerprint(URL)))
    gone = checked(config_of(tmp_path, webhooks=(hook(),)), tmp_path)["webhook guardroom"]
    assert not gone.ok
    assert gone.detail == (
        "http://127.0.0.1:9: guardroom is disabled: 410 Gone: the receiver wants no more alerts; "
        "its alerts become dead letters (0 so far); to send to it again: fusewatch webhooks enable "
        "CONFIG guardroom"
    )
    elsewhere = hook("http://127.0.0.1:9/another")
    assert checked(config_of(tmp_path, webhooks=(elsewhere,)), tmp_path)["webhook guardroom"].ok
    noted(state, "guardroom", CircuitBreaker(3, NOW, since=NOW - 60, reason="503 it says"))
    fails = checked(config_of(tmp_path, webhooks=(hook(),)), tmp_path)["webhook guardroom"]
    assert not fails.ok
    assert fails.detail == (
        "http://127.0.0.1:9: guardroom fails: 503 it says; 3 attempts in a row failed since "
        "2026-01-05T21:59:00Z; it is tried again at 2026-01-05T22:00:00Z"
    )
    noted(state, "guardroom", CircuitBreaker())
    assert checked(config_of(tmp_path, webhooks=(hook(),)), tmp_path)["webhook guardroom"].ok


def test_a_file_of_alerts_that_fails_is_a_problem_and_a_removed_webhook_is_none(
    tmp_path: Path,
) -> None:
    noted(tmp_path / "state", "jsonl", CircuitBreaker(1, NOW))
    noted(tmp_path / "state", "removed", CircuitBreaker(9, NOW))
    found = checked(config_of(tmp_path), tmp_path)
    told = {name: check for name, check in found.items() if name.startswith("subscriber")}
    assert {name: check.ok for name, check in told.items()} == {"subscriber jsonl": False}
    assert told["subscriber jsonl"].detail == (
        "the last attempt failed: the reason was not noted; it is tried again at "
        "2026-01-05T22:00:00Z"
    )
    noted(tmp_path / "state", "jsonl", CircuitBreaker())
    assert checked(config_of(tmp_path), tmp_path)["subscriber jsonl"].detail == "takes alerts"


def test_a_log_that_is_none_is_told_and_the_rest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "state/log").mkdir(parents=True)
    (tmp_path / "state/log/alerts.v1.db").write_bytes(b"no database" * 99)
    found = checked(config_of(tmp_path, webhooks=(hook(),)), tmp_path)
    assert "alerts.v1.db cannot be read" in found["subscribers"].detail
    assert found["webhook guardroom"].ok


def test_the_state_folder_is_the_given_one_or_that_of_the_running_daemon(tmp_path: Path) -> None:
    config, path = config_of(tmp_path), tmp_path / "site.yaml"
    mine = RunningDaemon(pid=1, url="http://127.0.0.1:1", sites=(), state="/mine", config=str(path))
    same = RunningDaemon(pid=1, url="http://127.0.0.1:8674", sites=(), state="/same")
    other = RunningDaemon(pid=1, url="http://127.0.0.1:2", sites=(), state="/other", config="/x")
    for given, daemons, state in (
        (None, [other, mine], "/mine"),
        (None, [other, same], "/same"),
        (None, [other], config.state),
        (tmp_path, [mine], str(tmp_path)),
    ):
        assert with_state(config, path, given, daemons).state == state
