"""Shows a picture in terminals that can show one.

Two protocols carry a picture as text: that of kitty
(https://sw.kovidgoyal.net/kitty/graphics-protocol/) and that of iTerm2
(https://iterm2.com/documentation-images.html). A terminal is known by its environment: none is
asked, since its answer could be taken for something that the user types.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

from workers.media.jpeg import Pixels

KITTY, ITERM = "kitty", "iterm2"
COLUMNS = 72  # of the terminal that a picture takes
CHUNK = 4096  # bytes of base64 in one command of kitty's protocol

_KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
_PROGRAMS = {"ghostty": KITTY, "iTerm.app": ITERM, "WezTerm": ITERM, "mintty": ITERM}


def protocol(env: Mapping[str, str]) -> str:
    """The protocol of the terminal that `env` tells of; empty when none is known.

    Inside tmux and screen there is none, since both drop pictures.
    """
    if "TMUX" in env or "STY" in env or env.get("TERM") == "dumb":
        return ""
    if "KITTY_WINDOW_ID" in env or env.get("TERM") in _KITTY_TERMS:
        return KITTY
    return _PROGRAMS.get(env.get("TERM_PROGRAM", ""), "")


def shown(kind: str, jpeg: bytes, pixels: Pixels) -> str:
    """The text that makes a terminal of protocol `kind` show the picture."""
    return _iterm(jpeg) if kind == ITERM else _kitty(pixels)


def _iterm(jpeg: bytes) -> str:
    data = base64.b64encode(jpeg).decode()
    keys = f"inline=1;size={len(jpeg)};width={COLUMNS};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{data}\a\n"


def _kitty(pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    rgb = pixels[:, :, ::-1].tobytes()
    data = base64.b64encode(zlib.compress(rgb)).decode()
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    # a=T: transmit and show. f=24, o=z: deflated RGB. q=2: the terminal sends no answer.
    keys = f"a=T,q=2,f=24,o=z,s={width},v={height},c={COLUMNS},"
    commands = [
        f"\x1b_G{keys if i == 0 else ''}m={int(i < len(pieces) - 1)};{piece}\x1b\\"
        for i, piece in enumerate(pieces)
    ]
    return "".join(commands) + "\n"
