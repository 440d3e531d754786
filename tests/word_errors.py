"""How many words a transcript has wrong."""

from __future__ import annotations

from pipeline.words import words


def word_errors(said: str, text: str, *, part: bool = False) -> int:
    """The fewest words to insert, delete or replace in `said` to get `text`, or a part of it."""
    theirs = words(text)
    row = [0] * (len(theirs) + 1) if part else list(range(len(theirs) + 1))
    for number, word in enumerate(words(said), 1):
        above, row = row, [number]
        for at, other in enumerate(theirs):
            row.append(min(above[at] + (word != other), above[at + 1] + 1, row[at] + 1))
    return min(row) if part else row[-1]
