"""What is wrong with a config: a problem and where it is, and the checks that many fields share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,39}")

MAX_LISTED = 8  # known words that a message lists
NO_SYNONYMS: Mapping[str, str] = MappingProxyType({})

Way = tuple[str | int, ...]
T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """One problem; `path` leads to the value: `("sites", "office", "rules", 0, "zone")`."""

    path: Way
    message: str

    @property
    def where(self) -> str:
        """The path as text, `sites.office.rules[0].zone`; hides a step that is not a plain word."""
        way = ""
        for step in self.path:
            if isinstance(step, int):
                way += f"[{step}]"
            else:
                way += ("." if way else "") + (step if WORD.fullmatch(step) else "(not a word)")
        return way

    def __str__(self) -> str:
        """`sites.office.rules[0].zone: what is wrong`."""
        return f"{self.where}: {self.message}" if self.path else self.message


def nearest(word: str, known: Iterable[str], synonyms: Mapping[str, str] = NO_SYNONYMS) -> str:
    """Returns `; did you mean ...?` if a known word is similar or means the same, else ""."""
    words = {each.lower(): each for each in (*synonyms, *known)}
    close = difflib.get_close_matches(word[:60].lower(), words, n=1, cutoff=0.6)
    found = words[close[0]] if close else ""
    return f"; did you mean `{synonyms.get(found, found)}`?" if found else ""


def known_only(
    words: Iterable[str],
    known: Iterable[str],
    way: Way,
    what: str,
    *,
    keys: bool = False,
    synonyms: Mapping[str, str] = NO_SYNONYMS,
    listed: str = "",
) -> Iterator[Problem]:
    """Yields a problem for each unknown word, with the most similar known word.

    `listed` says where the list of known words is, if it is too long for a message.
    """
    known = list(known)
    few = f"; known: {', '.join(known)}" if 0 < len(known) <= MAX_LISTED else ""
    where = f" ({listed})" if listed else ""
    for word in words:
        if word not in known:
            at = (*way, word) if keys else way
            hint = nearest(word, known, synonyms) or few
            yield Problem(at, f"{_shown(word)} is no {what}{hint}{where}")


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
