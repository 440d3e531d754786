"""Damages bytes and lines of text, by the dice that it is given."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

HEAD = 600  # bytes; headers lie in them, so that half of the damage is done there
NUMBERS = (0, 1, -1, 2**7, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _place(dice: random.Random, data: bytes) -> int:
    most = len(data) if dice.random() < 0.5 else min(len(data), HEAD)
    return dice.randrange(most) if most else 0


def _block(dice: random.Random, data: bytes) -> tuple[int, int]:
    begin = _place(dice, data)
    return begin, min(len(data), begin + dice.choice((1, 4, 16, 188, 500, 2000)))


def _bits(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _each in range(dice.choice((1, 1, 3, 10, 40))):
        if changed:
            changed[_place(dice, data)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _noise(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _block(dice, data)
    return data[:begin] + dice.randbytes(end - begin) + data[end:]


def _zeros(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _block(dice, data)
    return data[:begin] + bytes(end - begin) + data[end:]


def _number(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A size or a count becomes extreme."""
    size, order = dice.choice((1, 2, 4, 4, 8)), dice.choice((">", "<"))
    mask = (1 << 8 * size) - 1
    letter = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    begin = _place(dice, data)
    written = struct.pack(order + letter, dice.choice(NUMBERS) & mask)
    return data[:begin] + written + data[begin + size :]


def _cut(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(dice, data)]


def _beheaded(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[_place(dice, data) :]


def _removed(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _block(dice, data)
    return data[:begin] + data[end:]


def _repeated(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _block(dice, data)
    return data[:end] + data[begin:end] * dice.choice((1, 2, 20)) + data[end:]


def _moved(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = _block(dice, data)
    rest = data[:begin] + data[end:]
    to = _place(dice, rest)
    return rest[:to] + data[begin:end] + rest[to:]


def _joined(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data + dice.choice(others)


def _new_head(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    size = dice.choice((4, 16, 64, 300))
    return dice.choice(others)[:size] + data[size * dice.randrange(2) :]


def _grafted(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = dice.choice(others)
    begin, end = _block(dice, other)
    to = _place(dice, data)
    return data[:to] + other[begin:end] + data[to + dice.choice((0, end - begin)) :]


_MUTATIONS: tuple[_Mutation, ...] = (
    _bits, _bits, _noise, _zeros, _number, _number, _number, _cut, _beheaded, _removed,
    _repeated, _moved, _joined, _new_head, _grafted,
)  # fmt: skip


def damaged(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data` after one to four mutations; parts of `others` may get into it."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        data = dice.choice(_MUTATIONS)(dice, data, others)
    return data


WORDS = (
    "", "~", "null", "true", "-1", "0", "1e99", ".nan", ".inf", "99999999999999999999", "0x1f",
    "[]", "{}", "[[[[[[]]]]]]", "{a: b}", "- x", "&a x", "*a", "!!python/object:os.system x",
    "!x y", "|", ">", "'", '"', "%", "@", "`", "?", "? [a]", ": :", "---", "...", "#", "\t",
    "\ufeff", "\u202e", "\x00", "\x1b[31m", "\ud7ff", "x" * 5000, "\u00e9" * 300, "{" * 40,
    "[" * 2000, "${", "${A}", "${A:-b}", "../../etc/passwd", "file:///etc/passwd", "http://[::1",
    "rtsp://a:b@c:d/e", "device:", "device:-1", "concat:a|b", "2026-01-01", "22:00-06:00",
    "022:00", "25:61", "Mars/Phobos", "0,0", "0,0, 1e9,0, 1,1", "nan,nan, 1,0, 1,1",
    "127.0.0.1:99999", ":", "person", "1_000", "5GB", "-5 GB",
)  # fmt: skip


def _line(dice: random.Random, rows: list[str]) -> int:
    return dice.randrange(len(rows)) if rows else 0


def _value(dice: random.Random, rows: list[str]) -> None:
    at = _line(dice, rows)
    if rows and ": " in rows[at]:
        parts = rows[at].split(": ")
        parts[dice.randrange(1, len(parts))] = dice.choice(WORDS)
        rows[at] = ": ".join(parts)


def _word(dice: random.Random, rows: list[str]) -> None:
    at = _line(dice, rows)
    if rows:
        to = dice.randrange(len(rows[at]) + 1)
        rows[at] = rows[at][:to] + dice.choice(WORDS) + rows[at][to + dice.randrange(4) :]


def _lost_line(dice: random.Random, rows: list[str]) -> None:
    if rows:
        del rows[_line(dice, rows)]


def _second_line(dice: random.Random, rows: list[str]) -> None:
    if rows:
        rows.insert(_line(dice, rows), rows[_line(dice, rows)])


def _moved_line(dice: random.Random, rows: list[str]) -> None:
    if rows:
        rows.insert(_line(dice, rows), rows.pop(_line(dice, rows)))


def _indented(dice: random.Random, rows: list[str]) -> None:
    at = _line(dice, rows)
    if rows:
        rows[at] = dice.choice((" ", "  ", "\t", "    - ", "- ")) + rows[at]


def _dedented(dice: random.Random, rows: list[str]) -> None:
    at = _line(dice, rows)
    if rows:
        rows[at] = rows[at][dice.choice((1, 2, 4)) :]


def _without_sign(dice: random.Random, rows: list[str]) -> None:
    at = _line(dice, rows)
    if rows:
        rows[at] = rows[at].replace(dice.choice(':{}[],"-'), dice.choice(("", "", ": ", "{")), 1)


_LINES: tuple[Callable[[random.Random, list[str]], None], ...] = (
    _value, _value, _value, _word, _lost_line, _second_line, _moved_line, _indented, _dedented,
    _without_sign,
)  # fmt: skip


def rewritten(dice: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The text `data` with one to five of its lines changed; sometimes damaged as bytes."""
    rows = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(dice.choice((1, 1, 2, 5))):
        dice.choice(_LINES)(dice, rows)
    changed = "\n".join(rows).encode("utf-8", "surrogateescape")
    return damaged(dice, changed, others) if dice.random() < 0.15 else changed
