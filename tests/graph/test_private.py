"""What is kept is for this user only: 0600 files in 0700 folders, whatever was there before."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.bus.log import LocalLog
from pipeline.errors import OutsideError
from tests import make
from tests.graph.conftest import FAKES
from workers import daemon
from workers.bus.spool import Spool
from workers.capture.report_client import own_token
from workers.config import loader
from workers.delivery.jsonl import Jsonl, subscribers, write_all
from workers.runtime.state_folder import make_private
from workers.setup.init_config import NewConfig, NewSource, write_config


@pytest.fixture(autouse=True, params=[0o022, 0o000], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, str]:
    """The files and folders below `path` that others have a right to, with their modes."""
    return {
        str(each.relative_to(path)): oct(stat.S_IMODE(each.stat().st_mode))
        for each in (path, *path.rglob("*"))
        if each.stat().st_mode & 0o077
    }


def opened(path: Path) -> None:
    """As an earlier version left it: 0644 files in 0755 folders."""
    for each in (path, *path.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


@pytest.mark.parametrize("before", ["nothing", "an open folder", "an earlier version's"])
def test_all_that_a_daemon_keeps_is_private(
    config: Path, scene: Callable[..., Path], tmp_path: Path, before: str
) -> None:
    state, played = tmp_path / "state", scene(person=(3, 6), loud=(8, 9))
    if before != "nothing":
        state.mkdir(mode=0o755)
    if before == "an earlier version's":
        assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
        opened(state)
    assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    assert list((state / "evidence").rglob("*.jpg"))
    assert (state / "alerts.jsonl").stat().st_size
    assert modes(state) == {}


def test_a_log_is_private_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o755)
    for _ in range(2):
        bus = LocalLog(folder, clock=lambda: 1)
        bus.publish("alerts.v1", "office", b"words")
        bus.flush()
        assert (folder / "alerts.v1.db-wal").exists()
        assert modes(folder) == {}
        opened(folder)
        bus.close()


def test_a_spool_is_private_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", cap=20_000_000)
    spool.put("frames.v1", [make.roster("desk", start=1)])
    assert {each.name for each in tmp_path.iterdir()} >= {"spool.db", "spool.db-wal", "spool.lock"}
    assert not set(modes(tmp_path)) - {"."}
    spool.close()


def test_the_token_is_private_also_if_it_was_not(tmp_path: Path) -> None:
    own_token(tmp_path / "state")
    opened(tmp_path / "state")
    own_token(tmp_path / "state")
    assert "state/token" not in modes(tmp_path)


def test_init_makes_a_private_state_folder_of_an_open_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    camera = NewSource(name="camera", url="rtsp://h/x", username="ops", password="pw")
    new = NewConfig(camera=camera, state=state)
    write_config(tmp_path / "site.yaml", new, say=lambda _: None)
    assert (state / "camera-password").exists()
    assert not {name for name in modes(tmp_path) if name.startswith("state")}
    assert stat.S_IMODE((tmp_path / "site.yaml").stat().st_mode) == 0o600


def test_a_file_of_the_config_is_the_operators(config: Path, tmp_path: Path) -> None:
    config.write_text(f"{config.read_text()}jsonl: [{{path: {tmp_path / 'told' / 'a.jsonl'}}}]\n")
    (tmp_path / "state").mkdir()
    own, given = subscribers(loader.load(config), tmp_path / "state", msgspec.UNSET)  # type: ignore[arg-type]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "told" / "a.jsonl").stat().st_mode) == 0o640 & ~umask
    assert stat.S_IMODE((tmp_path / "state" / "alerts.jsonl").stat().st_mode) == 0o600
    for each in (own, given):
        assert isinstance(each.sink, Jsonl)
        each.sink.close()


def test_a_replays_alerts_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    os.umask(0o077)
    write_all(tmp_path / "again.jsonl", [])
    assert stat.S_IMODE((tmp_path / "again.jsonl").stat().st_mode) == 0o600


# --- a state folder that is not ours alone


def test_a_folder_with_other_things_keeps_its_mode_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / "log").mkdir(mode=0o755)
    with caplog.at_level(logging.WARNING):
        make_private(tmp_path)
    assert set(modes(tmp_path)) == {".", "holiday.jpg"}
    assert "may be listed by other users (mode 755)" in caplog.text


def test_a_folder_where_everybody_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(OutsideError, match="every user may write in it"):
        make_private(tmp_path)


def test_an_empty_folder_where_everybody_may_write_becomes_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "lost+found").mkdir()
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12345)
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_what_a_link_leads_to_is_left(tmp_path: Path) -> None:
    elsewhere, state = tmp_path / "elsewhere", tmp_path / "state"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "a").touch(0o644)
    state.mkdir()
    (state / "evidence").symlink_to(elsewhere)
    make_private(state)
    assert elsewhere.stat().st_mode & 0o055
    assert (elsewhere / "a").stat().st_mode & 0o044
