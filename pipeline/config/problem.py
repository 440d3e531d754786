"""What is wrong with a config: a problem and where it is, and the checks that many fields share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,39}")

Way = tuple[str | int, ...]
T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """One problem; `path` leads to the value: `("sites", "office", "rules", 0, "zone")`."""

    path: Way
    message: str

    def __str__(self) -> str:
        """`sites.office.rules[0].zone: what is wrong`; hides a step that is not a plain word."""
        way = ""
        for step in self.path:
            if isinstance(step, int):
                way += f"[{step}]"
            else:
                way += ("." if way else "") + (step if WORD.fullmatch(step) else "(not a word)")
        return f"{way}: {self.message}" if way else self.message


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean ...?` if a known word is similar, else ""."""
    close = difflib.get_close_matches(word[:60], list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def known_only(
    words: Iterable[str], known: Iterable[str], way: Way, what: str, *, keys: bool = False
) -> Iterator[Problem]:
    """Yields a problem for each unknown word, with the most similar known word."""
    known = list(known)
    few = f"; known: {', '.join(known)}" if 0 < len(known) <= 8 else ""
    for word in words:
        if word not in known:
            at = (*way, word) if keys else way
            yield Problem(at, f"{_shown(word)} is no {what}{nearest(word, known) or few}")


def _shown(word: str) -> str:
    return f"`{word}`" if WORD.fullmatch(word) else "what stands there"


def tried(
    parse: Callable[[str], T], text: str, way: Way, judge: Callable[[T], str]
) -> Iterator[Problem]:
    """A problem where `parse` raises ValueError, or `judge` finds one in what it gave."""
    try:
        wrong = judge(parse(text))
    except ValueError as error:
        wrong = str(error)
    if wrong:
        yield Problem(way, wrong)
