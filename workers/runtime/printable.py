"""Cleans text that others wrote, so that it can be printed on a terminal.

Reports, transcripts, names of files and answers of servers may hold control characters. A terminal
would execute them: they move the cursor, hide text, set the title or write to the clipboard.
"""

from __future__ import annotations

import re
import unicodedata

REPLACEMENT = "\ufffd"  # stands for each character or sequence that was taken out

# A control sequence (ECMA-48, 5.4) holds numbers and no words, so that it is replaced as a whole.
# Of every other escape sequence the characters after the introducer stay: they may be words.
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_NEWLINE = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_JOINERS = "\u200c\u200d"  # words of Persian and Hindi, and emoji, are written with them


def printable(text: str, *, newlines: bool = False) -> str:
    """Returns `text` without anything that a terminal executes or that changes its direction.

    Control sequences, control characters, marks of writing direction, invisible characters and
    unassigned ones are replaced by U+FFFD. Tabs and wide spaces become spaces. Newlines become
    spaces, too, unless `newlines` is true. The result is UTF-8 encodable.
    """
    lines = _NEWLINE.split(_SEQUENCE.sub(REPLACEMENT, text))
    return ("\n" if newlines else " ").join("".join(map(_shown, line)) for line in lines)


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    is_space = character == "\t" or unicodedata.category(character) == "Zs"
    return " " if is_space else REPLACEMENT
