"""`fusewatch report` finds the daemon of this user, and no daemon that has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, OutsideError
from workers.capture.running_daemons import RunningDaemon, registered, running
from workers.setup.report_target import report_target

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    return {"HOME": str(tmp_path)}


def one(folder: Path, *sites: str, port: int = 8674) -> RunningDaemon:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(f"the-token-of-{folder.name}\n")
    url = f"http://127.0.0.1:{port}"
    return RunningDaemon(pid=os.getpid(), url=url, sites=sites, state=str(folder))


def test_a_daemon_is_found_while_it_runs(tmp_path: Path, env: dict[str, str]) -> None:
    daemon = one(tmp_path / "st", "office")
    with registered(daemon, env):
        [file] = (tmp_path / ".local/state/fusewatch/running").glob("*.json")
        assert file.stat().st_mode & 0o777 == 0o600
        assert "token" not in file.read_text()
        assert list(running(env)) == [daemon]
        target = report_target("office", env=env)
        assert (target.url, target.token) == (daemon.url, "the-token-of-st")
    assert list(running(env)) == []


def test_a_daemon_under_a_runtime_folder_is_found_without_it(
    tmp_path: Path, env: dict[str, str]
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    daemon = one(tmp_path / "st", "office")
    with registered(daemon, env):
        assert list(running({**env, "XDG_RUNTIME_DIR": str(runtime)})) == [daemon]
    with registered(daemon, {**env, "XDG_RUNTIME_DIR": str(runtime)}):
        assert [path.parent for path in runtime.rglob("*.json")] == [runtime / "fusewatch"]
        assert list(running({**env, "XDG_RUNTIME_DIR": str(runtime)})) == [daemon]


def test_a_daemon_that_was_killed_is_forgotten(tmp_path: Path, env: dict[str, str]) -> None:
    code = (
        "import sys, time\n"
        "from workers.capture.running_daemons import RunningDaemon, registered\n"
        "daemon = RunningDaemon(pid=1, url='http://127.0.0.1:9', sites=('a',), state='/')\n"
        "with registered(daemon):\n    print('on', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **env}, cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(running(env)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(running(env)) == []
    assert list((tmp_path / ".local/state/fusewatch/running").iterdir()) == []


def test_files_that_are_none_of_ours_are_ignored(tmp_path: Path, env: dict[str, str]) -> None:
    folder = tmp_path / ".local/state/fusewatch/running"
    folder.mkdir(parents=True)
    (folder / "dir.json").mkdir()
    (folder / "link.json").symlink_to(tmp_path / "nowhere")
    assert list(running(env)) == []
    (folder / "open").mkdir(mode=0o777)
    folder.chmod(0o777)  # whoever may write here could name a daemon of his own
    (folder / "1-1.json").write_text(json.dumps({"pid": 1, "url": "http://evil", "sites": ["a"]}))
    assert list(running(env)) == []


def test_a_folder_that_cannot_be_written_hinders_no_daemon(
    tmp_path: Path, env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".local").write_text("a file")
    with caplog.at_level("INFO", "fusewatch"), registered(one(tmp_path / "st", "office"), env):
        assert list(running(env)) == []


def test_of_several_daemons_the_site_decides(tmp_path: Path, env: dict[str, str]) -> None:
    first = one(tmp_path / "one", "office", "yard", port=1001)
    second = one(tmp_path / "two", "shop", "yard", port=1002)
    with ExitStack() as all_:
        all_.enter_context(registered(first, env))
        all_.enter_context(registered(second, env))
        assert report_target("shop", env=env).token == "the-token-of-two"
        assert report_target("office", env=env).url == first.url
        with pytest.raises(ConfigError, match="2 daemons have a site `yard`") as several:
            report_target("yard", env=env)
        assert f"state {tmp_path}/one" in str(several.value)
        with pytest.raises(ConfigError, match="did you mean `office`") as unknown:
            report_target("offcie", env=env)
        assert "there is office, yard, shop" in str(unknown.value)
        given = report_target("yard", state=tmp_path / "two", env=env)
        assert (given.url, given.token) == (second.url, "the-token-of-two")
        given = report_target("yard", url=first.url, env=env)
        assert (given.url, given.token) == (first.url, "the-token-of-one")


def test_the_token_of_the_config_is_used_where_the_config_has_one(
    tmp_path: Path, env: dict[str, str]
) -> None:
    (tmp_path / "key").write_text("a-token-in-a-file\n")
    config = tmp_path / "a.yaml"
    config.write_text(
        'version: 1\nsites: {office: {cameras: {desk: {source: "device:0"}}}}\n'
        'api: {token: "file:key"}\n'
    )
    daemon = RunningDaemon(
        pid=1, url="http://127.0.0.1:7", sites=("office",), state="/x", config=str(config)
    )
    with registered(daemon, env):
        target = report_target("office", env=env)
    assert (target.url, target.token) == ("http://127.0.0.1:7", "a-token-in-a-file")


def test_without_a_daemon_it_is_said_what_to_do(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(OutsideError, match="start it: fusewatch run CONFIG"):
        report_target("office", env=env)
    one(tmp_path / ".local", "office")
    state = tmp_path / ".local/state/fusewatch"
    state.mkdir(parents=True)
    (state / "token").write_text("the-token-of-a-silent-one\n")
    target = report_target("office", env=env)
    assert (target.url, target.token) == ("http://127.0.0.1:8674", "the-token-of-a-silent-one")
