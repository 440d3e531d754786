"""Finds stemmed keywords (Snowball) in speech and reports: `help` matches "helping"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import snowballstemmer

from pipeline.config.fields import LANGUAGES
from pipeline.words import words as split

LONGEST_STEMMED = 64  # letters; no longer word has a stem, and stemming it takes long
# English words that are others without their apostrophe: hell, ill, shed, well, were, whore, ...
_ANOTHER_WORD = frozenset(
    ("he'll", "i'd", "i'll", "she'd", "she'll", "we'd", "we'll", "we're", "who're")
)
_BEFORE_WORD = ("ca", "pt")  # d'aigua is de + aigua; the stemmers of French and Italian know it
_NEVER_DROPPED = ("fr", "it", *_BEFORE_WORD)  # l'arme is not larme
_FRONT, _BACK = "eiöü", "aıou"  # Turkish vowels; i follows the first, ı the second


class Keywords:
    """Keywords by language code; one of several words ("he has a gun") must match in sequence.

    Words are compared as `pipeline.words` says. A missing apostrophe is found, too: "dont" is
    "don't". The Turkish I is read as ı and as i, since many people write it for both. Raises
    ValueError for a language without a stemmer.
    """

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self._languages = []
        for code, phrases in words.items():
            if code not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES))
                msg = f"no stemmer for language {code!r}; known: {known}"
                raise ValueError(msg)
            stems = _Stems(code)
            self._languages.append((stems, {p: stems(p, wanted=True) for p in phrases}))

    def __call__(self, text: str) -> tuple[str, ...]:
        """Returns the configured words that `text` contains, in the order of the config."""
        found: dict[str, None] = {}
        for stems, phrases in self._languages:
            said = stems(text)
            places: dict[str, list[int]] = {}
            for i, spellings in enumerate(said):
                for stem in spellings:
                    places.setdefault(stem, []).append(i)
            for phrase, wanted in phrases.items():
                starts = {i for stem in next(iter(wanted), ()) for i in places.get(stem, ())}
                if any(_follow(said, i, wanted) for i in starts):
                    found[phrase] = None
        return tuple(found)


def _follow(said: Sequence[frozenset[str]], at: int, wanted: Sequence[frozenset[str]]) -> bool:
    """Returns whether `wanted` stands in `said` from `at` on; each word has a common spelling."""
    return at + len(wanted) <= len(said) and all(
        not ours.isdisjoint(theirs) for ours, theirs in zip(wanted, said[at:], strict=False)
    )


class _Stems:
    """The stems of a language: for each word of a text, one for each way to spell the word."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._stemmer = snowballstemmer.stemmer(LANGUAGES[language])

    def __call__(self, text: str, *, wanted: bool = False) -> list[frozenset[str]]:
        read = split(text, self._language)
        several = wanted and len(read) > 1  # the other words of a phrase make its meaning clear
        dotted = split(text, "tr", turkish_i="i") if self._language == "tr" else read
        known: dict[tuple[str, str], frozenset[str]] = {}
        out = []
        for word, other in zip(read, dotted, strict=True):
            if (word, other) not in known:
                cases = _turkish(word, other) if word != other else (word,)
                spelled = {s for case in cases for s in self._spellings(case, several, wanted)}
                known[word, other] = frozenset(map(self._stem, spelled))
            out.append(known[word, other])
        return out

    def _spellings(self, word: str, several: bool, wanted: bool) -> Iterator[str]:
        yield word
        if "'" not in word:
            return
        if self._language not in _NEVER_DROPPED and (several or word not in _ANOTHER_WORD):
            yield word.replace("'", "")
        elif self._language in _BEFORE_WORD and not wanted:
            yield word.partition("'")[2]

    def _stem(self, word: str) -> str:
        return self._stemmer.stemWord(word) if len(word) <= LONGEST_STEMMED else word


def _turkish(dotless: str, dotted: str) -> Iterable[str]:
    """Returns how a word with I may be meant: with ı, with i, or with each by vowel harmony."""
    yield from (dotless, dotted)
    if len(dotless) == len(dotted):
        for vowel in "ıi":  # for an I before any other vowel
            made, before = [], vowel
            for one, other in zip(dotless, dotted, strict=True):
                letter = one if one == other else "i" if before in _FRONT else "ı"
                before = letter if letter in _FRONT + _BACK else before
                made.append(letter)
            yield "".join(made)
