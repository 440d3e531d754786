"""What a speech model heard, and when it is believed: shared by all speech adapters.

Whisper invents words where nobody speaks ("Thank you.", "you", "S-S-S-S"). No list of such phrases
is kept here, since real people say them too. What gives an invention away is that the model itself
is unsure, that it repeats itself, or that it hears something else through another window:

    below 0.4 mean token probability                      not believed (Whisper's own limit is 0.37)
    "no speech" likely, and below 0.6                     not believed
    below 0.6                                             heard again in the full 30 s window, and
                                                          believed if half of the words agree
    repetitive, or out of tokens                          heard again, and believed from 0.6 on
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable

import msgspec

LEAST = 0.4  # mean token probability
SURE = 0.6  # mean token probability
NO_SPEECH = 0.6  # probability of the token `<|nospeech|>`; Whisper's default
REPETITIVE = 2.4  # bytes of text to bytes compressed by zlib; Whisper's default
ALIKE = 0.5  # share of words that two hearings must have in common

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


class Transcript(msgspec.Struct, frozen=True):
    """What was said; `text` is empty where nothing was, `confidence` the mean token probability."""

    text: str
    language: str
    confidence: float


class Hearing(msgspec.Struct, frozen=True):
    """One greedy decoding: `mean_logprob` over its tokens and the end token, natural logarithm."""

    text: str
    language: str
    mean_logprob: float
    no_speech: float
    unfinished: bool  # it ran out of tokens before it came to an end

    @property
    def confidence(self) -> float:
        """Mean token probability, 0 to 1, rounded to 1e-3."""
        return round(min(math.exp(self.mean_logprob), 1.0), 3)

    @property
    def stuck(self) -> bool:
        """Whether it is caught in a loop."""
        raw = self.text.encode()
        return self.unfinished or len(raw) > REPETITIVE * len(zlib.compress(raw))

    @property
    def repetitive(self) -> bool:
        """Whether it says three words or more twice in a row, as Whisper does in short windows."""
        said = words(self.text)
        return any(
            said[at : at + n] == said[at + n : at + 2 * n]
            for n in range(3, len(said) // 2 + 1)
            for at in range(len(said) - 2 * n + 1)
        )

    @property
    def likely(self) -> bool:
        """Whether it is speech at all, as far as this one hearing goes."""
        limit = SURE if self.no_speech > NO_SPEECH else LEAST
        return self.confidence >= limit and _WORD.search(self.text) is not None


def believe(first: Hearing, again: Callable[[], Hearing]) -> Transcript:
    """The transcript of what was heard; `again` hears it in the full window, if that is needed."""
    loop = first.stuck or first.repetitive
    if not loop and not first.likely:
        return _nothing(first)
    if not loop and first.confidence >= SURE:
        return _transcript(first)
    second = again()
    sure = second.confidence >= SURE if loop else alike(first.text, second.text) >= ALIKE
    believed = sure and second.likely and not second.stuck
    return _transcript(second) if believed else _nothing(second)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def alike(one: str, other: str) -> float:
    """The share of words that two texts have in common, of the longer one's; 0 to 1."""
    ours, theirs = words(one), words(other)
    common = Counter(ours) & Counter(theirs)
    return common.total() / max(len(ours), len(theirs), 1)


def _transcript(hearing: Hearing) -> Transcript:
    return Transcript(hearing.text.strip(), hearing.language, hearing.confidence)


def _nothing(hearing: Hearing) -> Transcript:
    return Transcript("", hearing.language, 0.0)
