"""Finds stemmed keywords (Snowball) in speech and reports: `help` matches "helping"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import snowballstemmer

from pipeline.config.fields import LANGUAGES

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


class Keywords:
    """Keywords by language code; one of several words ("he has a gun") must match in sequence.

    Raises ValueError for a language without a stemmer.
    """

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self._languages = []
        for code, phrases in words.items():
            if code not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES))
                msg = f"no stemmer for language {code!r}; known: {known}"
                raise ValueError(msg)
            stemmer = snowballstemmer.stemmer(LANGUAGES[code])
            self._languages.append((stemmer, {p: self._stems(stemmer, p) for p in phrases}))

    def __call__(self, text: str) -> tuple[str, ...]:
        """Returns the configured words that `text` contains, in the order of the config."""
        found: dict[str, None] = {}
        for stemmer, phrases in self._languages:
            said = self._stems(stemmer, text)
            places: dict[str, list[int]] = {}
            for i, stem in enumerate(said):
                places.setdefault(stem, []).append(i)
            for phrase, stems in phrases.items():
                starts = places.get(stems[0], ()) if stems else ()
                if any(said[i : i + len(stems)] == stems for i in starts):
                    found[phrase] = None
        return tuple(found)

    @staticmethod
    def _stems(stemmer: snowballstemmer.stemmer, text: str) -> list[str]:
        plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
        return stemmer.stemWords(_WORD.findall(plain))
