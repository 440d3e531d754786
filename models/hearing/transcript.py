"""Decides whether a transcript is accepted; shared by all speech adapters.

Whisper invents words when nobody speaks ("Thank you.", "you", "S-S-S-S"). There is no list of such
phrases, since real people say them too. Invented words show in three ways: the model is unsure, it
repeats itself, or another window gives other words:

    below 0.45 mean token probability        rejected (Whisper's own limit is 0.37)
    "no speech" likely, and below 0.75       rejected
    one word or letter again and again       accepted only if "no speech" is very unlikely
    below 0.5                                decoded again in the full 30 s window, and accepted
                                             if half of the words agree
    the same words repeated to the end,      accepted once, if "no speech" is very unlikely:
    three different ones or more             short windows repeat correct words in this way
    other loops, or out of tokens            decoded again, and accepted from 0.5 on
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np

from models.hearing.waveform import RATE, Samples
from pipeline.words import words

FULL_WINDOW = 30  # s, the window that Whisper was trained on
MIN_CONFIDENCE = 0.45  # mean token probability
SURE = 0.5  # mean token probability
QUITE_SURE = 0.75  # mean token probability
NO_SPEECH_FROM = 0.6  # probability of the token `<|nospeech|>`; Whisper's default
SPEECH_BELOW = 0.2  # the same; a lower value means speech
REPETITIVE_FROM = 2.4  # bytes of text to bytes compressed by zlib; Whisper's default
MIN_ALIKE = 0.5  # least share of common words of two decodings

_LETTER = re.compile(r"([^\W\d_])\1{3}")  # four times in a row


class Transcript(msgspec.Struct, frozen=True):
    """The accepted text, empty if there was none; `confidence` is the mean token probability."""

    text: str
    language: str
    confidence: float


class Decoding(msgspec.Struct, frozen=True):
    """One greedy decoding: `mean_logprob` over its tokens and the end token, natural logarithm."""

    text: str
    language: str
    mean_logprob: float
    no_speech: float
    unfinished: bool  # the token limit was reached before the end of the text

    @property
    def confidence(self) -> float:
        """Mean token probability, 0 to 1, rounded to 1e-3."""
        return round(min(math.exp(self.mean_logprob), 1.0), 3)

    @property
    def stuck(self) -> bool:
        """Whether the decoder is in a loop."""
        raw = self.text.encode()
        return self.unfinished or len(raw) > REPETITIVE_FROM * len(zlib.compress(raw))

    @property
    def once(self) -> str | None:
        """The text without repetitions, if three or more words repeat until its end; else None."""
        said = words(self.text)
        for n in range(3, len(said) // 2 + 1):
            for at in range(len(said) - 2 * n + 1):
                block, rest = said[at : at + n], said[at + n :]
                if block != rest[:n] or len(set(block)) < 3:
                    continue
                if rest == (block * len(rest))[: len(rest)]:
                    return self._first(said[: at + n])
        return None

    def _first(self, said: list[str]) -> str:
        """Returns the shortest beginning of the text that holds these words."""

        def holds(end: int) -> bool:
            return words(self.text[:end])[: len(said)] == said

        return self.text[: bisect_left(range(len(self.text)), True, key=holds)]

    @property
    def monotonous(self) -> bool:
        """Whether one word or one letter repeats: "Oh, oh, oh", "Sssss"."""
        said = words(self.text)
        return (len(said) > 2 and len(set(said)) == 1) or any(map(_LETTER.search, said))

    @property
    def likely(self) -> bool:
        """Whether this decoding alone is likely to be speech."""
        if not words(self.text) or (self.monotonous and self.no_speech >= SPEECH_BELOW):
            return False
        return self.confidence >= (
            QUITE_SURE if self.no_speech > NO_SPEECH_FROM else MIN_CONFIDENCE
        )


def accept_transcript(first: Decoding, again: Callable[[], Decoding]) -> Transcript:
    """Returns the accepted transcript; `again` decodes in the full window, if that is needed."""
    loop = first.stuck or first.once is not None
    if not loop and not first.likely:
        return _nothing(first)
    if not loop and first.confidence >= SURE:
        return _transcript(first)
    if first.once and first.no_speech < SPEECH_BELOW and first.confidence >= QUITE_SURE:
        return _transcript(msgspec.structs.replace(first, text=first.once))
    second = again()
    sure = second.confidence >= SURE if loop else alike(first.text, second.text) >= MIN_ALIKE
    believed = sure and second.likely and not second.stuck
    return _transcript(second) if believed else _nothing(second)


def cleaned_waveform(waveform: Samples) -> Samples:
    """Returns the samples without NaN and infinite values, which become zero.

    Raises ValueError for a waveform that no window can hold.
    """
    if waveform.ndim != 1 or len(waveform) > FULL_WINDOW * RATE:
        msg = f"a waveform has one dimension and {FULL_WINDOW} s at most: {waveform.shape}"
        raise ValueError(msg)
    clean = np.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)
    return np.ascontiguousarray(clean, np.float32)


def most_tokens(waveform: Samples) -> int:
    """Returns the token limit for this time: few people speak faster than 6 tokens per second."""
    return 8 + 6 * len(waveform) // RATE


def alike(one: str, other: str) -> float:
    """Returns the number of common words as a share of the longer text's words, 0 to 1."""
    ours, theirs = words(one), words(other)
    common = Counter(ours) & Counter(theirs)
    return common.total() / max(len(ours), len(theirs), 1)


def _transcript(hearing: Decoding) -> Transcript:
    return Transcript(hearing.text.strip(), hearing.language, hearing.confidence)


def _nothing(hearing: Decoding) -> Transcript:
    return Transcript("", hearing.language, 0.0)
