"""From nothing to a first alert: `init` on a terminal or by options, `check`, `run`, `report`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.servers import eventually, rtsp_server
from tests.terminal import Terminal, terminal
from workers.config.loader import load

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret word"  # as it is typed, not as a URL has it
FUSEWATCH = (sys.executable, "-m", "workers.cli")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A home of one's own, in a known time zone."""
    home = tmp_path / "home"
    home.mkdir()
    keep = ("PATH", "FUSEWATCH_WEIGHTS", "LANG")
    return {
        **{key: os.environ[key] for key in keep if key in os.environ},
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "TZ": "America/Lima",
        "TERM": "xterm",
    }


def run(env: dict[str, str], cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FUSEWATCH, *words], cwd=cwd, env=env, text=True, capture_output=True, timeout=120,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def answer(talk: Terminal, question: str, typed: str) -> None:
    talk.expect(question)
    talk.expect(": ")
    talk.type(typed)


def test_a_conversation_tries_each_address_and_ends_with_a_config_that_is_right(
    tmp_path: Path, media: Path, env: dict[str, str]
) -> None:
    film = media / "video/office_a.mp4"
    with rtsp_server(film, "--tone", "--user", "ops", "--password", PASSWORD) as address:
        with terminal([*FUSEWATCH, "init"], cwd=tmp_path, env=env) as talk:
            answer(talk, "Camera", "rtps://10.0.0.5/live")
            talk.expect("did you mean `rtsps`?")
            answer(talk, "Camera", "rtsp://127.0.0.1:1/live")
            talk.expect("Connection refused")
            answer(talk, "keep it as it is", "again")
            answer(talk, "Camera", address)
            talk.expect("asks for a user and a password (401)")
            answer(talk, "keep it as it is", "login")
            answer(talk, "User", "ops")
            talk.expect("Password")
            talk.expect_no_echo()
            talk.type(PASSWORD)
            talk.expect("a frame of 768 x 432")
            answer(talk, "Microphone: same", "")  # the stream has sound
            talk.expect("a second of sound")
            answer(talk, "Name of the site", "My Home")
            talk.expect("up to 40 small letters")
            answer(talk, "Name of the site", "lobby")
            talk.expect("Time zone (America/Lima)")
            answer(talk, "", "berlin")
            talk.expect("did you mean `Europe/Berlin`?")
            answer(talk, "Time zone", "Europe/Berlin")
            answer(talk, "Webhook", "http://example.org/hook")
            talk.expect("plain http to a host name")
            answer(talk, "Webhook", "")
            talk.expect("fusewatch.yaml: written")
            assert talk.ended() == 0
        told = talk.shown
        checked = run(env, tmp_path, "check", "fusewatch.yaml", "--strict")
        doctor = run(env, tmp_path, "doctor", "fusewatch.yaml")
    text = (tmp_path / "fusewatch.yaml").read_text()
    secret = Path(env["HOME"], ".local/state/fusewatch/camera-password")
    assert secret.read_text() == f"{PASSWORD}\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    for shown in (told, text, doctor.stdout + doctor.stderr):
        assert PASSWORD not in shown
        assert "s3cret" not in shown
    assert (checked.returncode, checked.stderr) == (0, "")
    assert " ".join(doctor.stdout.split()).count("a frame of 768 x 432") == 1
    site = load(tmp_path / "fusewatch.yaml", {}).sites["lobby"]
    assert site.timezone == "Europe/Berlin"
    assert site.cameras["camera"].source == site.microphones["microphone"].source


def test_who_gives_up_leaves_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    for last in ("\x03", "\x04"):  # Ctrl-C, Ctrl-D
        with terminal([*FUSEWATCH, "init"], cwd=tmp_path, env=env) as talk:
            answer(talk, "Camera", "none")
            talk.expect("Microphone")
            os.write(talk._end, last.encode())
            assert talk.ended() in (130, -signal.SIGINT)
            assert "Traceback" not in talk.shown
    assert not (tmp_path / "fusewatch.yaml").exists()
    assert not Path(env["HOME"], ".local").exists()


def test_an_address_that_fails_is_kept_if_the_user_says_so(
    tmp_path: Path, env: dict[str, str]
) -> None:
    given = ["--camera", "rtsp://ops:s3cret@127.0.0.1:1/live?key=s3cret", "--microphone", "none"]
    with terminal([*FUSEWATCH, "init", "a.yaml", *given], cwd=tmp_path, env=env) as talk:
        talk.expect("Connection refused")
        answer(talk, "keep it as it is", "keep")
        for question in ("Name of the site", "Time zone", "Webhook"):
            answer(talk, question, "")
        assert talk.ended() == 0
        assert "s3cret" not in talk.shown
    assert "ops" in (tmp_path / "a.yaml").read_text()
    assert ":s3cret@" not in (tmp_path / "a.yaml").read_text()


def test_options_ask_nothing_and_say_what_fails(tmp_path: Path, env: dict[str, str]) -> None:
    said = run(env, tmp_path, "init", "--camera", "http://ops:s3cret@127.0.0.1:1/x")
    assert said.returncode == 0
    assert "it fails: the host cannot be reached: Connection refused" in said.stdout
    assert "s3cret" not in said.stdout + (tmp_path / "fusewatch.yaml").read_text()
    site = load(tmp_path / "fusewatch.yaml", {}).sites["home"]
    assert (site.timezone, dict(site.microphones)) == ("America/Lima", {})
    for words, why in (
        (("--camera", "exec:id"), "--camera: the address has a scheme"),
        (("--camera", "none"), "a site needs a camera or a microphone"),
        (("--microphone", "same"), "--microphone: there is no stream"),
        (("--site", "A B"), "--site: a name must be"),
        (("--timezone", "berlin"), "did you mean `Europe/Berlin`?"),
        (("--webhook", "ftp://x"), "--webhook: webhook: its url must be"),
    ):
        said = run(env, tmp_path, "init", "b.yaml", *words)
        assert (said.returncode, why in said.stderr) == (2, True), said.stderr
    assert not (tmp_path / "b.yaml").exists()


@pytest.mark.slow
def test_a_file_as_a_camera_alerts_and_a_report_finds_the_daemon(
    tmp_path: Path, media: Path, env: dict[str, str]
) -> None:
    film = media / "video/office_a.mp4"
    made = run(env, tmp_path, "init", "--camera", str(film), "--site", "office", "--state", "st")
    assert made.returncode == 0, made.stderr
    config = tmp_path / "fusewatch.yaml"
    config.write_text(f'{config.read_text()}api: {{listen: "127.0.0.1:0"}}\n')
    alerts = tmp_path / "st/alerts.jsonl"
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen([*FUSEWATCH, "run", str(config)], env=env, stderr=log) as daemon:
        try:
            running = Path(env["HOME"], ".local/state/fusewatch/running")
            eventually(lambda: list(running.glob("*.json")), within=60)
            said = run(env, tmp_path, "report", "office", "a ladder", "--author", "me")
            assert (said.returncode, said.stdout) == (0, "accepted\n"), said.stderr
            said = run(env, tmp_path, "report", "ofice", "a ladder", "--author", "me")
            assert (said.returncode, "did you mean `office`?" in said.stderr) == (2, True)
            eventually(lambda: alerts.exists() and "intrusion" in alerts.read_text(), within=60)
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
    assert list(running.glob("*.json")) == []
    said = run(env, tmp_path, "report", "office", "a ladder", "--author", "me")
    assert (said.returncode, "no Fusewatch of this user runs here" in said.stderr) == (3, True)
