"""What pages of HTML share: the style, the templates, and data without any address.

Templates escape every text.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path

import jinja2

PAGE_BEGIN = b"<!doctype html"
STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def data_uri(kind: str, data: bytes) -> str:
    """The bytes of a picture or sound as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def tick_step(seconds: float) -> float:
    """A round number of seconds, so that a span has about ten of them."""
    rough = seconds / 10
    power = 10.0 ** math.floor(math.log10(rough))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
