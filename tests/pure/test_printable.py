"""What is printed of other people's text: no terminal executes any of it, and the words stay."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtime.printable import printable

R = "\ufffd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call the police", "call the police"),
        ("Löwe 狮子 مرحبا 👩‍🚒", "Löwe 狮子 مرحبا 👩‍🚒"),
        ("می‌خواهم", "می‌خواهم"),
        ("\x1b[8mhidden\x1b[0m", f"{R}hidden{R}"),
        ("\x9b31mred", f"{R}red"),
        ("\x1b]0;TITLE\a", f"{R}]0;TITLE{R}"),
        ("\x1b]52;c;UExBTlRFRA==\x1b\\", f"{R}]52;c;UExBTlRFRA=={R}\\"),
        ("\x1b[31", f"{R}[31"),
        ("guard\u202e", f"guard{R}"),
        ("\u2066a\u2069 \u200f \u061c \ufeff \U000e0041", f"{R}a{R} {R} {R} {R} {R}"),
        ("a\tb\u00a0c\u3000d", "a b c d"),
        ("a\nb\r\nc\u2028d\x85e", "a b c d e"),
        ("\udcff.yaml", f"{R}.yaml"),
    ],
)
def test_words_stay_and_what_a_terminal_executes_goes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_newlines_stay_where_they_are_wanted() -> None:
    assert printable("a\r\nb\x1b[2Jc\n", newlines=True) == f"a\nb{R}c\n"


@given(st.text(st.characters()) | st.text("\x1b\x9b[]0;m\a\n a"))
def test_nothing_of_any_text_is_executed(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not {"Cc", "Cs", "Cn", "Zl", "Zp"} & {unicodedata.category(c) for c in shown}
    assert not any(unicodedata.bidirectional(c) in _DIRECTION for c in shown)
    assert printable(shown) == shown


_DIRECTION = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
