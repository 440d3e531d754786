"""`fusewatch init`: a config that loads, and secrets that only this user reads."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, OutsideError
from workers.config.loader import load
from workers.config.secrets import Secrets
from workers.setup.init_command import Given, run_init
from workers.setup.init_config import NewConfig, NewSource, write_config


@pytest.fixture
def said() -> list[str]:
    return []


def test_the_written_config_loads_as_it_is(tmp_path: Path, said: list[str]) -> None:
    write_config(tmp_path / "a.yaml", NewConfig(state=tmp_path / "state"), said.append)
    config = load(tmp_path / "a.yaml", {})
    assert config.state == str(tmp_path / "state")
    assert list(config.sites["home"].cameras) == ["webcam"]


def test_its_commented_webhook_works_when_it_is_uncommented(
    tmp_path: Path, said: list[str]
) -> None:
    file = tmp_path / "a.yaml"
    write_config(file, NewConfig(state=tmp_path / "a state"), said.append)
    file.write_text(
        file.read_text().replace("\n# webhooks", "\nwebhooks").replace("\n#   -", "\n  -")
    )
    assert load(file, {}).webhooks[0].secret == f"file:{tmp_path}/a state/webhook-secret"


def test_secrets_are_strong_shown_once_and_stored_for_this_user_only(
    tmp_path: Path, said: list[str]
) -> None:
    state = tmp_path / "state"
    write_config(tmp_path / "a.yaml", NewConfig(state=state), said.append)
    token, hook = ((state / name).read_text().strip() for name in ("token", "webhook-secret"))
    assert len(base64.b64decode(hook.removeprefix("whsec_"), validate=True)) == 32
    assert len(token) >= 43
    shown = "".join(said)
    assert (shown.count(token), shown.count(hook)) == (1, 1)
    for file in (state / "token", state / "webhook-secret", tmp_path / "a.yaml"):
        assert file.stat().st_mode & 0o077 == 0
        assert (file.name == "a.yaml") or token not in (tmp_path / "a.yaml").read_text()
    assert state.stat().st_mode & 0o077 == 0


def test_secrets_that_exist_are_kept_and_not_shown(tmp_path: Path, said: list[str]) -> None:
    state = tmp_path / "state"
    write_config(tmp_path / "a.yaml", NewConfig(state=state), lambda _: None)
    token = (state / "token").read_text()
    write_config(tmp_path / "b.yaml", NewConfig(state=state), said.append)
    assert (state / "token").read_text() == token
    assert token.strip() not in "".join(said)
    assert "kept as it was" in "".join(said)


def test_nothing_is_overwritten(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "a.yaml").write_text("mine")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "nowhere")
    for name in ("a.yaml", "b.yaml"):
        with pytest.raises(ConfigError, match="exists; name another file"):
            write_config(tmp_path / name, NewConfig(state=tmp_path / "state"), said.append)
    assert (tmp_path / "a.yaml").read_text() == "mine"
    assert not (tmp_path / "state").exists()
    assert said == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="cannot be written: Not a directory"):
        write_config(tmp_path / "a.yaml", NewConfig(state=tmp_path / "file" / "state"), said.append)
    assert not (tmp_path / "a.yaml").exists()


def test_a_camera_with_two_streams_is_written_with_both_and_no_password(
    tmp_path: Path, said: list[str]
) -> None:
    state = tmp_path / "state"
    login = {"username": "ops", "password": "s3cretpw"}
    new = NewConfig(
        camera=NewSource(name="camera", url="rtsp://10.0.0.5/small", **login),
        record=NewSource(name="camera-record", url="rtsp://10.0.0.5/large", **login),
        state=state,
    )
    write_config(tmp_path / "a.yaml", new, said.append)
    streams = load(tmp_path / "a.yaml", {}).sites["home"].cameras["camera"].streams
    assert streams is not None
    given = [Secrets({}, tmp_path).source(each, "p") for each in (streams.detect, streams.record)]
    assert given == [
        {"url": "rtsp://10.0.0.5/small", **login},
        {"url": "rtsp://10.0.0.5/large", **login},
    ]
    assert "s3cretpw" not in (tmp_path / "a.yaml").read_text() + "".join(said)


def test_a_large_stream_needs_a_camera(tmp_path: Path) -> None:
    given = Given(record="rtsp://h/x", microphone="none.wav")
    with pytest.raises(ConfigError, match=r"^--record: names the large stream of a camera"):
        run_init(tmp_path / "a.yaml", given, ask=False, env={})
