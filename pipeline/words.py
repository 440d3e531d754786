"""Cleans texts that people wrote, and splits them into words that can be compared.

Two words are equal if they are the same word in any case, Unicode normal form, width, ligature and
kind of apostrophe, with or without Arabic and Hebrew vowel signs. Accents and vowel signs that
belong to the spelling stay: `policía` is not `policia`, and the Hindi `चोर` is not `चार`.

The rules are those of Unicode (TR15 normal forms, TR44 categories): a word is a run of letters,
marks and digits, and of apostrophes between them, as in TR29. The standard library has the tables;
regex and PyICU split in the same way, but leave the equality of words to their user.
"""

from __future__ import annotations

import re
import unicodedata

import msgspec

from pipeline.types import Described, Mode, Record, Report, Utterance

_APOSTROPHES = "\u2019\u2018\u201b`\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u02cb\u2032\u2035" + (
    "\u055a\u05f3\ua78c\uff07\uff40\u1fbd\u1fbf\u1fef\u1ffd\u1ffe\u0384"
)
_INVISIBLE = (  # letters and marks that nobody sees; all of the category Cf are added below
    ("\u034f", "\u034f"),  # combining grapheme joiner
    ("\u115f", "\u1160"),  # Hangul fillers
    ("\u17b4", "\u17b5"),
    ("\u180b", "\u180f"),  # Mongolian variation selectors
    ("\u3164", "\u3164"),
    ("\ufe00", "\ufe0f"),  # variation selectors
    ("\uffa0", "\uffa0"),
    ("\U000e0000", "\U000e0fff"),
)
_UNSPELLED = (  # marks that no word of a supported language is spelled with, once it is composed
    (
        "\u0300",
        "\u036f",
    ),  # stress marks, strokes through letters, the dot of a lower-case Turkish İ
    ("\u0591", "\u05c7"),  # Hebrew points
    ("\u0610", "\u061a"),
    ("\u0640", "\u0640"),  # tatweel, which stretches a word
    ("\u064b", "\u065f"),  # Arabic vowel signs
    ("\u0670", "\u0670"),
    ("\u06d6", "\u06ed"),
    ("\u08ca", "\u08ff"),
    ("\u1ab0", "\u1aff"),
    ("\u1dc0", "\u1dff"),
    ("\u20d0", "\u20ff"),
    ("\ufe20", "\ufe2f"),
)
_WORD = re.compile(r"[^\s'·]+(?:'[^\s'·]+)*")
# The normal forms NFKC and NFKD make a space and a mark of an acute accent that stands alone.
_LONE_ACCENT = re.compile(r"(?<=[\w\u0300-\u036f]) [\u0301\u0313](?=\w)")
_MOST_MARKS = 30  # in a row, as in TR15's stream-safe format: sorting more takes quadratic time
_SPLIT_DOT = re.compile(r"(?<=l)·(?=l)")  # Catalan: col·legi
_BIDI = (("\u061c", "\u061c"), ("\u200e", "\u200f"), ("\u202a", "\u202e"), ("\u2066", "\u2069"))


def _within(character: str, spans: tuple[tuple[str, str], ...]) -> bool:
    return any(first <= character <= last for first, last in spans)


class _Early(dict[int, str]):
    """For `str.translate`: what must be replaced before the text is normalised."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in _APOSTROPHES:
            shown = "'"
        elif unicodedata.category(character) == "Cf" or _within(character, _INVISIBLE):
            shown = ""
        else:
            shown = character
        return self.setdefault(code, shown)


class _Late(dict[int, str]):
    """For `str.translate`: keeps the characters of words, makes spaces of the others."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind == "Nd":
            shown = str(unicodedata.decimal(character))
        elif kind[0] in "LMN":
            shown = "" if _within(character, _UNSPELLED) and kind != "Lo" else character
        else:
            shown = {"'": "'", "\u00b7": "·", "\u2027": "·"}.get(character, " ")
        return self.setdefault(code, shown)


_EARLY, _LATE = _Early(), _Late()
_CONTROLS = {
    **{code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"},
    **{code: None for first, last in _BIDI for code in range(ord(first), ord(last) + 1)},
}


def words(text: str, language: str = "", *, turkish_i: str = "ı") -> list[str]:
    """Returns the words of a text, lower case and normalised.

    `language` is a code like `tr`, in which the lower case of I is `turkish_i`; elsewhere it is i,
    and a ı is an i. The time is linear in the length of the text.
    """
    plain = _normal(_LONE_ACCENT.sub("'", text.translate(_EARLY)))
    if language == "tr":
        plain = plain.replace("İ", "i").replace("I", turkish_i)
    folded = _normal(plain.casefold()).translate(_EARLY)
    if language != "tr":
        folded = folded.replace("ı", "i")
    found = _WORD.findall(_SPLIT_DOT.sub("", folded.translate(_LATE)))
    return [word for word in found if any(map(str.isalnum, word))]


def _normal(text: str) -> str:
    """Returns the NFKC form of a text, without the marks beyond _MOST_MARKS in a row."""
    marks, kept = 0, []
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return unicodedata.normalize("NFKC", "".join(kept))


def cleaned(text: str) -> str:
    """Returns `text` with spaces for control characters, and without marks of writing direction.

    Line breaks and tabs stay. Both kinds can make a reader see a text that is not there.
    """
    return text.translate(_CONTROLS).strip()


def cleaned_line(text: str) -> str:
    """Returns `text` as `cleaned` does, in one line."""
    return " ".join(cleaned(text).splitlines())


def cleaned_record(record: Record) -> Record:
    """Returns the record with its words cleaned; any producer may have written them."""
    match record:
        case Report() | Described():
            text, author = cleaned(record.text), cleaned_line(record.author)
            return msgspec.structs.replace(record, text=text, author=author)
        case Utterance():
            return msgspec.structs.replace(record, text=cleaned(record.text))
        case Mode():
            return msgspec.structs.replace(record, by=cleaned_line(record.by))
        case _:
            return record
