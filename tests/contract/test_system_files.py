"""No setting and no scene leads to a device or to a file of the kernel, whatever way it takes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.fusion.learned_head import SHIPPED_FOLDER, LearnedHead
from pipeline.errors import ConfigError, WeightsError
from workers.config.loader import load
from workers.config.secrets import Secrets
from workers.config.system_files import system_file
from workers.replay.scene_file import load_scene

ENVIRON = "/tmp/../proc/self/environ"  # noqa: S108 - nothing is written there
SYSTEM_FILES = ("/proc/self/environ", ENVIRON, "/sys/../proc/version", "link")


@pytest.fixture(autouse=True)
def _link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self/environ")


@pytest.mark.parametrize("file", [*SYSTEM_FILES, "/dev/zero", "/usr/../dev/video0"])
def test_a_scene_plays_no_system_file(file: str, tmp_path: Path) -> None:
    begin = "site: lobby\nstart: 2026-01-01T00:00:00Z\nduration: 1\n"
    camera = f"cameras: {{till: {{file: {file}}}}}"
    for text in (camera, f"microphones: {{hall: [{{file: {file}}}]}}"):
        (tmp_path / "scene.yaml").write_text(begin + text + "\n")
        with pytest.raises(ConfigError, match=r"scene\.yaml:4: .*file: is, or leads to, a device"):
            load_scene(tmp_path / "scene.yaml")


@pytest.mark.parametrize("file", SYSTEM_FILES)
def test_no_secret_is_read_from_a_system_file(file: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a system file; name a file of your own"):
        Secrets({}, tmp_path).lookup(f"file:{file}", "api.token")


def test_a_secret_may_be_handed_over_by_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"hunter2\n")
    os.close(writer)
    try:
        assert Secrets({}).lookup(f"file:/dev/fd/{reader}", "p").reveal() == "hunter2"
    finally:
        os.close(reader)


@pytest.mark.parametrize("file", ["/proc/sysrq-trigger", "/var/../proc/sys/kernel/x", "/sys/a"])
def test_no_alerts_are_written_to_a_system_file(file: str, tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(f"version: 1\nsites: {{lobby: {{}}}}\njsonl:\n- {{path: {file}}}\n")
    with pytest.raises(ConfigError, match=r"site\.yaml:4: jsonl\[0\]\.path: .*a system file"):
        load(config)


def test_alerts_may_be_written_to_what_the_process_was_started_with(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    for file in ("/dev/stdout", "/dev/fd/3", "/dev/null", "alerts.jsonl"):
        config.write_text(f"version: 1\nsites: {{lobby: {{}}}}\njsonl:\n- {{path: {file}}}\n")
        assert load(config).jsonl[0].path == file


def test_a_source_that_leads_to_a_system_file_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    for file in (ENVIRON, f"file:{ENVIRON}", "link", "file:../../../../../../../proc/version"):
        config.write_text(
            f"version: 1\nsites:\n  lobby:\n    cameras:\n      till: {{source: '{file}'}}\n"
        )
        with pytest.raises(ConfigError, match=r":5: .*source: .*a device or a system file"):
            load(config)


@pytest.mark.parametrize("name", ["card.json", "head.onnx"])
def test_a_head_of_devices_and_pipes_is_refused_at_once(name: str, tmp_path: Path) -> None:
    for other in ("card.json", "head.onnx"):
        if other != name:
            (tmp_path / other).symlink_to(SHIPPED_FOLDER / other)
    for make in (lambda at: at.symlink_to("/dev/zero"), os.mkfifo):
        make(tmp_path / name)
        with ThreadPoolExecutor(1) as pool:  # a pipe would be waited for until the end of time
            told = pool.submit(_refusal, tmp_path).result(20)
        assert "is no regular file" in str(told)
        (tmp_path / name).unlink()


def _refusal(folder: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        LearnedHead.read(folder)
    return caught.value


def test_links_that_lead_nowhere_or_in_circles_are_no_system_files(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("none")
    for name in ("circle", "nowhere", "none", "procedure"):
        assert not system_file(tmp_path / name)
