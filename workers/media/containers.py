"""Opens files and streams with PyAV: which formats and protocols may be used, and which tracks.

Formats and protocols are closed lists by scheme, so that no address makes FFmpeg read a playlist,
another file or another host. A picture of more than `MAX_PIXELS` is refused before it is decoded.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from pipeline.errors import ConfigError
from pipeline.limits import MAX_PIXELS

FORMATS = (  # formats that FFmpeg may detect: no playlist, no script, no list of other files
    "mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,mpeg,flv,asf,mjpeg,mpjpeg,h264,hevc,"
    "wav,w64,flac,ogg,mp3,aac,aiff,caf,au"
)
TIMELESS = frozenset({"mjpeg", "mpjpeg", "h264", "hevc"})  # formats without times of their own
BROKEN = (av.error.FFmpegError, OSError, ValueError)  # what one bad packet or frame may raise
PICTURE_LIMITS = {"max_pixels": str(MAX_PIXELS)}
_LISTS = {  # by scheme: protocols, formats
    "file": ("file", FORMATS),
    "http": ("http,tcp", FORMATS),
    "https": ("https,tls,tcp,http", FORMATS),
    "rtsp": ("rtsp,tcp", f"rtsp,{FORMATS}"),
}

_own = threading.local()

av.logging.set_level(None)  # FFmpeg's own lines may quote addresses


class Unplayable(ConfigError):
    """A file is missing or does not contain the expected media."""


def options(scheme: str) -> dict[str, str]:
    """FFmpeg's options for an address of this scheme."""
    protocols, formats = _LISTS[scheme]
    return {
        **PICTURE_LIMITS,
        "protocol_whitelist": protocols,
        "format_whitelist": formats,
        "rtsp_transport": "tcp",
        "max_redirects": "0",
        "http_proxy": "",  # none, also where the environment names one
        "analyzeduration": "500000",
    }


def open_file(path: Path) -> Any:
    """Opens a file as an av container; raises Unplayable."""
    if not os.path.isfile(path):  # returns False for a name that is too long
        msg = f"{path}: there is no such file"
        raise Unplayable(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: is empty"
        raise Unplayable(msg)
    protocols, formats = _LISTS["file"]
    limits = {**PICTURE_LIMITS, "protocol_whitelist": protocols, "format_whitelist": formats}
    try:
        return av.open(f"file:{path.absolute()}", options=limits)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        msg = f"{path}: is not media that can be read ({getattr(error, 'strerror', '') or error})"
        raise Unplayable(msg) from error


def picture_track(container: Any) -> Any:
    """The stream of moving pictures; raises LookupError, whose text says what is wrong.

    Cover art (an attached picture) is no video.
    """
    found = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not found:
        msg = "holds no picture" + (" but cover art" if container.streams.video else "")
        raise LookupError(msg)
    return _decodable(found[0], "picture")


def sound_track(container: Any, number: int = 1) -> Any:
    """The sound track of this number, counted from 1; raises LookupError as `picture_track`."""
    found = container.streams.audio
    if not found:
        msg = "holds no sound"
        raise LookupError(msg)
    if number > len(found):
        msg = f"has {len(found)} sound track{'s' * (len(found) > 1)}, and track {number} is wanted"
        raise LookupError(msg)
    return _decodable(found[number - 1], "sound")


def timed(stream: Any) -> bool:
    """Whether a stream is moving picture or sound, and not cover art, text or data."""
    return stream.type in ("video", "audio") and not stream.disposition & Disposition.attached_pic


def _decodable(stream: Any, kind: str) -> Any:
    if stream.codec_context is None:
        better = "H.264" if kind == "picture" else "AAC"
        msg = f"has {kind} in a format (codec) that cannot be decoded here; use {better}"
        raise LookupError(msg)
    stream.codec_context.thread_count = 1  # each further thread delays a stream by a frame
    stream.codec_context.options = dict(
        PICTURE_LIMITS
    )  # the options of a container do not reach it
    return stream


def converted(frame: Any, *size: int, **to: Any) -> Any:
    """The frame in another size or format; `to` has the arguments of `VideoFrame.reformat`.

    That method makes a converter for each frame, and each converter starts threads of its own. Here
    each thread keeps one converter, which starts none. The pixels are the same.
    """
    if not hasattr(_own, "converter"):
        _own.converter = VideoReformatter()
    return _own.converter.reformat(frame, *size, threads=1, **to)
