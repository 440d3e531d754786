"""Parses addresses of cameras and microphones: a closed list of schemes, and a safe display form.

A scheme that is not on the list is refused, so that no address makes FFmpeg run a program, join
files or read other data (Frigate's CVE-2026-25643 and similar). Addresses are parsed, not searched
for secrets: one that cannot be parsed is shown as a placeholder. No message quotes an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from pipeline.config.problem import known_only, nearest
from pipeline.errors import ConfigError
from workers.config.system_files import system_file

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
SCHEMES = (*NETWORK_SCHEMES, "device", "file")
MAX_LENGTH = 2048
_KEYS = ("url", "username", "password")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TOLD = (  # schemes of FFmpeg or other recorders: the only ones that a refusal may name
    *(
        "exec",
        "pipe",
        "concat",
        "concatf",
        "data",
        "gopher",
        "subfile",
        "tee",
        "ftp",
        "sftp",
        "udp",
    ),
    *("tcp", "rtp", "rtmp", "srt", "hls", "crypto", "cache", "async", "unix", "fd", "smb", "echo"),
    *("expr", "ffmpeg", "lavfi", "media"),
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_LIKE_HOST = re.compile(r"(\d{1,3}\.){3}\d{1,3}(:\d+)?(/|\Z)|[\w.@-]+:\d+/", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_IN_URL = re.compile(r"[A-Za-z0-9\-._~:/?&=%!$'()*+,;\[\]@]+")
_CAMERA_DEVICE = re.compile(r"/dev/(video\d{1,3}|v4l/by-(id|path)/[\w:+-][\w.:+-]*)", re.ASCII)
_BEGINS = {  # of a path -> what to do instead
    "-": "write `./` before it",
    "//": "write one slash",
    "~": "write the whole path from `/` on",
}
_UNSAFE_IN_PATH = frozenset('%|*?\\`"<>:')


class Address(msgspec.Struct, frozen=True):
    """A source's address that is safe to print: `str()` and `repr()` hide possible secrets.

    `target` is the whole URL with its password, the device's name or number, or the file's path.
    Equal addresses are one stream: a camera and a microphone with the same address share its
    connection.
    """

    scheme: str
    target: str

    @property
    def streamed(self) -> bool:
        """Whether one connection may carry both picture and sound."""
        return self.scheme != "device"

    def __str__(self) -> str:
        return (
            _shown(self.target)
            if self.scheme in NETWORK_SCHEMES
            else f"{self.scheme}:{self.target}"
        )

    def __repr__(self) -> str:
        return f"Address({self})"


def parse(source: object, kind: str, base: Path | None = None) -> Address:
    """Parses the address in a config's `source`; raises ConfigError, which never quotes it.

    `source` is text, or a mapping of `url`, `username` and `password`, with `${ENV}` already
    resolved. User name and password of a mapping are used as they are; the parts of a URL are
    percent-encoded. `kind` is camera or microphone. Relative paths start from the folder `base`.
    """
    text = _joined(source) if isinstance(source, Mapping) else source
    if not isinstance(text, str):
        _refuse("must be text, or a mapping of url, username and password")
    if not text or len(text) > MAX_LENGTH:
        _refuse("is empty" if not text else f"is longer than {MAX_LENGTH} characters")
    if not text.isprintable() or text[0] in "-@|!" or text != text.strip():
        _refuse("holds a control character, or starts or ends with a character that no address has")
    found = _SCHEME.match(text)
    if found is None:
        return _path(text, kind, base)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in NETWORK_SCHEMES:
        return _network(scheme, rest)
    if scheme == "device":
        return _device(rest, kind)
    if scheme == "file":
        return _path(rest.removeprefix("//") if rest.startswith("///") else rest, kind, base)
    told = f" `{scheme}:`" if scheme in _TOLD else ""
    near = "" if told else nearest(scheme, SCHEMES)
    renamed = (
        "" if told or near or "://" in text else "; no path may hold a `:`, so rename the file"
    )
    _refuse(f"has a scheme{told} that is not one of: {', '.join(SCHEMES)}{near or renamed}")


def _shown(url: str) -> str:
    scheme, _, rest = url.partition("://")
    rest, asks, _ = rest.partition("?")
    head, _, path = rest.partition("/")
    user, at, host = head.rpartition("@")
    if any(mark in path for mark in "=&;%@:"):  # some recorders have /user=a&password=x
        path = "***"
    shown = f"{scheme}://{'***' if user or at else ''}{at}{host}"
    return shown + (f"/{path}" if path else "") + ("?***" if asks else "")


def _network(scheme: str, rest: str) -> Address:
    if not rest.startswith("//"):
        _refuse(f"needs two slashes: {scheme}://host/path")
    if not _PRINTABLE.fullmatch(rest) or not _IN_URL.fullmatch(rest) or "://" in rest[2:]:
        _refuse("holds characters that an address may not; percent-encode user and password, "
                "or give them beside it: {url: ..., username: ..., password: ...}")  # fmt: skip
    if re.search(r"%(?![0-9A-Fa-f]{2})|%0[0-9A-Fa-f]|%1[0-9A-Fa-f]|%7[fF]", rest):
        _refuse("holds a `%` that encodes nothing, or a control character; write `%25` for `%`")
    end = re.search(r"[/?]", rest[2:])
    authority = rest[2 : 2 + end.start()] if end else rest[2:]
    user, _, host = authority.rpartition("@")
    if "@" in rest[2 + len(authority) :] or "@" in user:
        _refuse("holds more than one `@`, or one after the host; write `%40` in user and password, "
                "or give them beside it: {url: ..., username: ..., password: ...}")  # fmt: skip
    name, port = _host_and_port(host)
    if not _HOST.fullmatch(name) or ".." in name:
        _refuse("has no usable host")
    if port is not None and not (port.isdecimal() and port.isascii() and 1 <= int(port) <= 65535):
        _refuse("has a port that is not 1 to 65535 (in a password write `%2F`, `%3F` and `%3A`)")
    return Address(scheme, f"{scheme}:{rest}")


def _host_and_port(host: str) -> tuple[str, str | None]:
    if host.startswith("["):
        name, _, after = host.partition("]")
        return f"{name}]", after[1:] if after.startswith(":") else (after or None)
    name, colon, port = host.partition(":")
    return name, port if colon else None


def _device(rest: str, kind: str) -> Address:
    if kind == "camera":
        if re.fullmatch(r"\d{1,3}", rest, re.ASCII):
            return Address("device", str(int(rest)))
        if _CAMERA_DEVICE.fullmatch(rest):
            return Address("device", rest)
        _refuse("must name a camera by number (device:0) or as device:/dev/video0")
    if not rest or len(rest) > 200 or rest.startswith(("-", "/")):
        _refuse("must name a microphone: device:default, device:3 or device:NAME")
    return Address("device", rest)


def _path(text: str, kind: str, base: Path | None) -> Address:
    if kind == "camera" and text.startswith("/dev/"):
        return _device(text, kind)
    if not text:
        _refuse("names no file after `file:`")
    for begins, instead in _BEGINS.items():
        if text.startswith(begins):
            _refuse(f"is a path that begins with `{begins}`; {instead}")
    for place, sign in enumerate(text, start=1):
        if sign in _UNSAFE_IN_PATH:
            if hint := host_hint(text):
                _refuse(hint)
            shown = "a backquote" if sign == "`" else f"`{sign}`"
            _refuse(
                f"holds {shown} as sign {place}, which no path may hold: it may be read as "
                "something else; rename the file with `-` in its place"
            )
    if ",," in text:
        _refuse("holds `,,`, which hands options to FFmpeg")
    path = Path(text) if base is None else base / text
    if system_file(path):
        _refuse("names a device or a system file; cameras are device:N, microphones device:NAME")
    return Address("file", str(path))


def host_hint(text: str) -> str:
    """Returns what is missing where a path looks like the address of a camera, or ""."""
    hint = "begins with a host; write rtsp:// or http:// before it"
    return hint if _LIKE_HOST.match(text) else ""


def _joined(source: Mapping[object, object]) -> str:
    """Returns the URL of a mapping, with its user and password percent-encoded in it."""
    for wrong in known_only([key for key in source if isinstance(key, str)], _KEYS, (), "key"):
        _refuse(f"is a mapping of {', '.join(_KEYS)}: {wrong.message}")
    if "url" not in source or any(key not in _KEYS for key in source):
        _refuse(f"must be a mapping of {', '.join(_KEYS)}, and nothing else")
    if not all(isinstance(value, str) for value in source.values()):
        _refuse("must hold text only")
    url, user, word = (str(source.get(key, "")) for key in _KEYS)
    if not user and not word:
        return url
    found = _SCHEME.match(url)
    rest = url[found.end() :] if found else ""
    if found is None or found[1].lower() not in NETWORK_SCHEMES or not rest.startswith("//"):
        _refuse(f"takes username and password with {', '.join(NETWORK_SCHEMES)} only")
    if "@" in re.split(r"[/?]", rest[2:], maxsplit=1)[0]:
        _refuse("gives the user twice: in the URL and beside it")
    return f"{url[: len(url) - len(rest)]}//{_quoted(user)}:{_quoted(word)}@{rest[2:]}"


def _quoted(text: str) -> str:
    if not text.isprintable():
        _refuse("holds a control character in its user or password")
    return "".join(
        c if re.match(r"[A-Za-z0-9._~-]", c) else "".join(f"%{b:02X}" for b in c.encode())
        for c in text
    )


def _refuse(why: str) -> NoReturn:
    msg = f"the address {why}"
    raise ConfigError(msg)
