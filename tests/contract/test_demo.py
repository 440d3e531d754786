"""The demo: its scene and page need nothing else, and no text of a scene becomes a command."""

from __future__ import annotations

import base64
import io
import re
import sys
import wave
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
from rich.console import Console

from pipeline.errors import OutsideError
from pipeline.types import SECOND, AudioChunk, ns
from tests.golden import demo_clips
from tests.graph.conftest import FAKES
from tests.make import box, detections
from workers.config import loader
from workers.demo import page, terminal, terminal_picture
from workers.demo.demo import SHIPPED, demo, play
from workers.demo.story import Story, _objects, wav
from workers.media import jpeg

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = r"""
site: office
start: 2026-01-05T22:00:00Z
duration: 12
reports:
  - at: 2
    author: "guard\e]0;TITLE\a\u202e<img src=x>"
    text: "help \e]52;c;UExBTlRFRA==\a <script>alert(1)</script> \e[8mhidden\e[0m \x9b31m [red]"
"""
SITE = """
version: 1
sites:
  office:
    fusion: rules
    rules: [{rule: keyword, words: {en: [help]}, on: [report], severity: high, label: call}]
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, str]:
    """A story with a report of control codes and markup, and what the terminal got of it."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "site.yaml").write_text(SITE)
    (folder / "scene.yaml").write_text(HOSTILE)
    out = io.StringIO()
    console = Console(file=out, highlight=False, soft_wrap=True)
    settings = loader.load(folder / "site.yaml")
    scene, left_out = folder / "scene.yaml", {"speech": "no \x1b[31mnetwork"}
    story = play(settings, scene, FAKES, console=console, left_out=left_out, folder=folder / "out")
    terminal.tell_left_out(console, left_out)
    terminal.tell_end(console, story, folder)
    return story, out.getvalue()


class Tags(HTMLParser):
    """The tags of a page, and every address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = {"src", "href", "data", "action", "poster", "srcset"}
        self.addresses += [value or "" for name, value in attrs if name in named]


def test_the_terminal_gets_no_control_code_of_a_scene(hostile: tuple[Story, str]) -> None:
    _, printed = hostile
    assert CONTROL.search(printed) is None
    for words in ("help", "hidden", "[red]", "<script>alert(1)</script>", "network"):
        assert words in printed


def test_the_page_escapes_every_text(hostile: tuple[Story, str]) -> None:
    text = page.rendered(hostile[0])
    assert not {"script", "iframe", "object"} & set(Tags(text).tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert CONTROL.search(text.replace("\t", "")) is None
    assert "Left out: speech." in text
    assert "nobody broke in" not in text  # it is not the shipped scene


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out/demo"


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_the_demo_tells_the_break_in(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    assert demo(open_page=True, browse=lambda url: not opened.append(url)) == 0
    printed = capsys.readouterr().out
    story = ("glass heard", "person in zone floor", "reported by guard-1", '"your country" said')
    for words in (*story, "7 of 7 webhooks arrived", "init camera.yaml --camera device:0"):
        assert words in printed
    picture = re.search(r"Picture with boxes: (\S+)", printed)
    assert picture is not None
    assert jpeg.opened((out.parents[1] / picture[1]).read_bytes()).shape == (360, 640, 3)
    assert opened == [(out / "story.html").as_uri()]
    text = (out / "story.html").read_text()
    found = Tags(text)
    assert {"img", "audio", "svg", "details"} <= set(found.tags)
    assert "script" not in found.tags
    assert all(re.match(r"data:(image/jpeg|audio/wav);base64,|#", a) for a in found.addresses)
    assert "CC BY 3.0" in text
    assert len((out / "alerts.jsonl").read_text().splitlines()) == 7


@pytest.mark.slow
def test_what_cannot_be_had_is_left_out_and_the_rest_is_told(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the shipped models are here: no other weights, no network, no package registry."""
    for name in ("FUSEWATCH_WEIGHTS", "PIP_FIND_LINKS", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(out.parents[1] / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert demo(open_page=True, browse=lambda url: False) == 0
    printed = capsys.readouterr().out
    left_out = [line for line in printed.splitlines() if line.startswith("left out: ")]
    assert [line.split()[2] for line in left_out] == ["speech.", "text."]
    for words in ("glass heard", "person in zone floor", "signatures verified"):
        assert words in printed
    assert '"your country" said' not in printed
    assert "No browser could be started here" in printed


def test_a_folder_that_cannot_be_written_is_told_first(out: Path) -> None:
    (out.parents[1] / "out").write_text("a file")
    with pytest.raises(OutsideError, match="out/demo: cannot be written: Not a directory"):
        demo()


def test_the_shipped_clips_are_small_and_have_credits() -> None:
    files = [file for file in SHIPPED.iterdir() if file.suffix in {".mp4", ".flac"}]
    assert sum(file.stat().st_size for file in files) < 4_000_000
    credited = (SHIPPED / "CREDITS.md").read_text()
    assert all(f"## {file.name}\n" in credited for file in files)


@pytest.mark.slow
def test_the_script_makes_the_shipped_clips(media: Path, tmp_path: Path) -> None:
    """Sounds to the sample. Pictures nearly: another version of the encoder differs a little."""
    demo_clips.main(media, tmp_path)
    for name in demo_clips.SOUNDS:
        assert np.array_equal(samples(tmp_path / name), samples(SHIPPED / name))
    made, shipped = (list(pictures(folder / "office.mp4")) for folder in (tmp_path, SHIPPED))
    assert len(made) == len(shipped) == 165
    assert max(np.abs(a - b).mean() for a, b in zip(made, shipped, strict=True)) < 2


def samples(file: Path) -> np.ndarray:
    with av.open(str(file)) as clip:
        return np.concatenate([f.to_ndarray().reshape(-1) for f in clip.decode(audio=0)])


def pictures(file: Path) -> Iterator[np.ndarray]:
    with av.open(str(file)) as film:
        for frame in film.decode(video=0):
            yield frame.to_ndarray(format="gray").astype(np.int16)


# The picture in a terminal


PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm", "TMUX": "/run/tmux,1,0"}, ""),
        ({"TERM": "xterm-256color"}, ""),
        ({}, ""),
    ],
)
def test_a_terminal_is_known_by_its_environment(env: dict[str, str], kind: str) -> None:
    assert terminal_picture.protocol(env) == kind


def test_kitty_gets_the_pixels_in_commands_of_4096_bytes() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (60, 80, 3), np.uint8)
    text = terminal_picture.shown("kitty", b"", pixels)
    commands = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in commands) + "\n" == text
    assert max(len(data) for _, data in commands) == 4096
    assert [keys.rpartition("m=")[2] for keys, _ in commands] == ["1"] * (len(commands) - 1) + ["0"]
    assert {"a=T", "q=2", "f=24", "o=z", "s=80", "v=60"} <= set(commands[0][0].split(","))
    rgb = zlib.decompress(base64.b64decode("".join(data for _, data in commands)))
    assert np.array_equal(np.frombuffer(rgb, np.uint8).reshape(60, 80, 3)[:, :, ::-1], pixels)


def test_iterm_gets_the_jpeg() -> None:
    text = terminal_picture.shown("iterm2", b"jpeg", PIXELS)
    keys, _, data = text.removeprefix("\x1b]1337;File=").removesuffix("\a\n").partition(":")
    assert {"inline=1", "size=4"} <= set(keys.split(";"))
    assert base64.b64decode(data) == b"jpeg"


def test_no_picture_goes_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg.encoded(PIXELS))
    for is_terminal, shows in ((False, False), (True, True)):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, highlight=False, soft_wrap=True)
        terminal.tell_picture(console, tmp_path / "a.jpg", {"TERM": "xterm-kitty"})
        assert ("\x1b_G" in out.getvalue()) is shows
        assert f"{tmp_path / 'a.jpg'}" in out.getvalue()


# Small things


def test_a_piece_of_sound_is_exact_to_the_sample() -> None:
    chunks = [
        AudioChunk(
            site="office",
            source="room",
            start=k * SECOND // 2,
            end=(k + 1) * SECOND // 2,
            seq=k,
            rate=16_000,
            channels=1,
            data=np.arange(8000 * k, 8000 * (k + 1)).astype("<i2").tobytes(),
        )
        for k in range(2, 6)
    ]
    with wave.open(io.BytesIO(wav(chunks, 5 * SECOND // 4, 2 * SECOND))) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        assert np.array_equal(
            np.frombuffer(file.readframes(99_999), "<i2"), np.arange(20_000, 32_000).astype("<i2")
        )
    assert wav([], 0, SECOND) == b""


def test_the_next_commands_name_the_program_as_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fusewatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert terminal.command(str(program)) == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert terminal.command(str(program)) == "fusewatch"
    assert terminal.command(str(Path(sys.executable))) == "fusewatch"


def test_the_demo_shows_an_object_in_gated_frames_as_the_last_look_did() -> None:
    site = loader.load(SHIPPED / "site.yaml").sites["office"]
    camera = next(name for name, one in site.cameras.items() if one.zones)
    person, gone = detections(0, box(), source=camera), detections(4, source=camera)
    held = [
        msgspec.structs.replace(detections(at, source=camera), gated=True) for at in (0.2, 0.4, 4.2)
    ]
    spans = list(_objects(site, [person, *held[:2], gone, held[2]]))
    assert [(span.text, span.start) for span in spans] == [
        ("person", ns(0)),
        ("person", ns(0.2)),
        ("person", ns(0.4)),
    ]
