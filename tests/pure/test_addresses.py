"""Addresses: only what is on the list is taken, in every form, and nothing secret is shown."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from workers.config.source_address import Address, parse

SIX_SPELLINGS = [
    "rtsp://ops.user:s3cretpw@h",
    "rtsp://ops%40site:s3cretpw@h",
    "rtsp://:s3cretpw@h",
    "rtsp://h/live?usr=opsa&pwd=s3cretpw",
    "http://h/mjpg?password=s3cretpw&user=opsy",
    "rtsp://opsu:s3c@retpw@h",
]

REFUSED = [
    "exec:ffmpeg -i x",
    "EXEC:id",
    "Exec://id",
    "pipe:0",
    "concat:/etc/passwd|/etc/shadow",
    "data:text/plain,hello",
    "gopher://h/x",
    "subfile,,start,0,end,9,,:/etc/passwd",
    "tee:a|b",
    "ftp://h/x",
    "udp://h:1",
    "rtmp://h/x",
    "lavfi:testsrc",
    "media+rtsp://h/x",
    "exec%3Aid",
    "%65xec:id",
    "-i",
    "-f lavfi -i testsrc",
    "|id",
    "@list.txt",
    "/srv/a.mp4|/etc/passwd",
    "/srv/`id`.mp4",
    "/srv/%2e%2e/passwd",
    "/srv/img%03d.jpg",
    "/srv/*.mp4",
    "/dev/mem",
    "/proc/self/environ",
    "/tmp/../proc/self/environ",  # noqa: S108 - nothing is written there
    "file:/tmp/../proc/self/environ",
    "file:///tmp/../proc/self/environ",
    "/var/./../proc/./self/environ",
    "/usr/../dev/mem",
    "/var/../sys/class",
    "/proc",
    "../" * 40 + "proc/self/environ",
    "file:" + "../" * 40 + "dev/zero",
    "~/x.mp4",
    "file:-i",
    "file://h/x.mp4",
    "file:exec:id",
    "rtsp:exec",
    "rtsp://",
    "rtsp:///x",
    "rtsp://h:0/x",
    "rtsp://h:99999/x",
    "rtsp://h:٣/x",
    "rtsp://h/x y",
    "rtsp://h/x\n-i /etc/passwd",
    "rtsp://h/x\x00",
    "rtsp://h/`id`",
    "rtsp://h/x|pipe:0",
    'rtsp://h/x" -i "',
    "rtsp://h\\@evil/x",
    "rtsp://h/x#frag",
    "rtsp://h/exec://x",
    "rtsp://h/%0a-i",
    "rtsp://h/%zz",
    "rtsp://-h/x",
    "rtsp://a..b/x",
    "rtsp://u:12/34@h/x",
    " rtsp://h/x",
    "rtsp://h/x ",
    "rtsp://h/" + "x" * 3000,
    "",
]


def shown_everywhere(source: object) -> str:
    """All that an address may be told by: errors, str, repr."""
    try:
        address = parse(source, "camera")
    except ConfigError as error:
        return f"{error} {error!r}"
    return f"{address} {address!r} {[address]}"


@pytest.mark.parametrize("spelling", SIX_SPELLINGS)
def test_no_spelling_shows_a_password_or_user(spelling: str) -> None:
    told = shown_everywhere(spelling)
    for secret in ("s3c", "retpw", "ops"):
        assert secret not in told


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_on_the_list_is_refused_as_text_list_and_mapping(address: str) -> None:
    for form in (address, [address], {"url": address}, {"url": address, "args": "-i"}):
        for kind in ("camera", "microphone"):
            with pytest.raises(ConfigError):
                parse(form, kind)


@pytest.mark.parametrize(
    "form", [None, 5, b"rtsp://h/x", ["rtsp://h/x"], {"source": "rtsp://h"}, {}]
)
def test_other_forms_are_refused_even_around_a_good_address(form: object) -> None:
    with pytest.raises(ConfigError):
        parse(form, "camera")


@pytest.mark.parametrize(
    ("address", "scheme", "shown"),
    [
        ("rtsp://10.0.0.5/h264", "rtsp", "rtsp://10.0.0.5/h264"),
        ("RTSP://u:p@Cam-1.local:8554/a/b", "rtsp", "rtsp://***@Cam-1.local:8554/a/b"),
        ("rtsps://u:p%40ss@[fe80::1]:322/x", "rtsps", "rtsps://***@[fe80::1]:322/x"),
        ("http://h:8080/mjpg?fps=5", "http", "http://h:8080/mjpg?***"),
        ("rtsp://h/user=admin&password=x&channel=1", "rtsp", "rtsp://h/***"),
        ("rtsp://h", "rtsp", "rtsp://h"),
        ("rtsp://h?pwd=x", "rtsp", "rtsp://h?***"),
    ],
)
def test_network_addresses_are_shown_without_user_and_query(
    address: str, scheme: str, shown: str
) -> None:
    parsed = parse(address, "camera")
    assert (parsed.scheme, str(parsed)) == (scheme, shown)


def test_devices_are_numbers_or_video_nodes_for_cameras_and_names_for_microphones() -> None:
    assert parse("device:0", "camera") == Address("device", "0")
    assert parse("/dev/video2", "camera") == Address("device", "/dev/video2")
    assert parse("device:/dev/v4l/by-id/usb-Cam_1-index0", "camera").scheme == "device"
    assert parse("device:default", "microphone") == Address("device", "default")
    assert parse("device:USB Audio: - (hw:1,0)", "microphone").target == "USB Audio: - (hw:1,0)"
    for wrong in (
        "device:",
        "device:/dev/video0;id",
        "device:/dev/v4l/by-id/../../mem",
        "device:x",
    ):
        with pytest.raises(ConfigError):
            parse(wrong, "camera")
    with pytest.raises(ConfigError):
        parse("device:/dev/snd/x", "microphone")


def test_files_are_relative_to_the_folder_of_the_config() -> None:
    assert parse("a/b.mp4", "camera", Path("/etc/fw")).target == "/etc/fw/a/b.mp4"
    assert parse("file:///a/b.mp4", "camera", Path("/etc/fw")).target == "/a/b.mp4"
    assert parse("file:../b.mp4", "microphone").target == "../b.mp4"


@pytest.mark.parametrize("behind", ["/proc/self/environ", "/dev/zero", "/sys", "/proc"])
def test_a_link_to_a_system_file_is_refused(behind: str, tmp_path: Path) -> None:
    (tmp_path / "one.mp4").symlink_to(behind)
    (tmp_path / "two.mp4").symlink_to("one.mp4")
    (tmp_path / "folder").mkdir()
    for name in ("one.mp4", "two.mp4", "folder/../two.mp4", f"{tmp_path}/folder/../two.mp4"):
        with pytest.raises(ConfigError, match="system file"):
            parse(name, "camera", tmp_path)


def test_a_device_is_refused_wherever_its_node_is(tmp_path: Path) -> None:
    node = tmp_path / "clip.mp4"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes a device: NOT tested here")
    with pytest.raises(ConfigError, match="names a device"):
        parse("clip.mp4", "camera", tmp_path)


def test_a_link_to_an_ordinary_file_and_names_like_system_folders_are_taken(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    (tmp_path / "a.mp4").symlink_to("b.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for name in ("a.mp4", "proc/self/environ", "/procedure/x.mp4", "loop.mp4", "../none/../x.mp4"):
        assert parse(name, "camera", tmp_path).target == str(tmp_path / name)


def test_a_mapping_takes_any_user_and_password_and_encodes_them() -> None:
    source = {"url": "rtsp://h:554/x", "username": "o p", "password": "p@/:?#ä"}
    address = parse(source, "camera")
    assert address.target == "rtsp://o%20p:p%40%2F%3A%3F%23%C3%A4@h:554/x"
    assert str(address) == "rtsp://***@h:554/x"
    with pytest.raises(ConfigError):
        parse({**source, "url": "rtsp://a:b@h/x"}, "camera")
    with pytest.raises(ConfigError):
        parse({**source, "url": "file:/x"}, "camera")
    with pytest.raises(ConfigError):
        parse({**source, "password": "a\nb"}, "camera")


def test_equal_addresses_are_one_stream() -> None:
    assert parse("rtsp://h/x", "camera") == parse("RTSP://h/x", "microphone")
    assert not parse("device:0", "camera").streamed


@given(st.text(max_size=60))
def test_whatever_is_given_is_an_address_or_a_config_error(text: str) -> None:
    for source in (text, f"rtsp://{text}", f"file:{text}", f"device:{text}", {"url": text}):
        with contextlib.suppress(ConfigError):
            assert str(parse(source, "camera"))


SECRET = st.text("abcXYZ0189:@/?#%&=|`$. -\\", min_size=6, max_size=20).map(lambda s: f"Q{s}Q")


@given(SECRET, SECRET)
def test_no_secret_is_shown_wherever_it_stands(user: str, word: str) -> None:
    forms: list[object] = [
        f"rtsp://{user}:{word}@cam/live",
        f"rtsp://:{word}@cam",
        f"rtsp://cam/live?user={user}&pwd={word}",
        {"url": "rtsp://cam/live", "username": user, "password": word},
    ]
    for form in forms:
        told = shown_everywhere(form)
        assert user not in told
        assert word not in told
