"""What is read ahead comes in its order, with its error, and ends when it is not wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from workers.stored.ahead import Ahead


class Broken(Exception):
    """The source is broken."""


def test_items_come_in_their_order() -> None:
    with closing(Ahead(iter(range(1000)), 3)) as ahead:
        assert list(ahead) == list(range(1000))


def test_an_error_comes_where_its_item_would_be() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Broken

    with closing(Ahead(items(), 3)) as ahead:
        found = iter(ahead)
        assert next(found) == 1
        with pytest.raises(Broken):
            next(found)


def test_what_is_closed_reads_no_further_and_closes_its_source() -> None:
    closed, read = threading.Event(), []

    def items() -> Iterator[int]:
        try:
            for number in range(10**9):
                read.append(number)
                yield number
        finally:
            closed.set()

    ahead = Ahead(items(), 3)
    assert next(iter(ahead)) == 0
    ahead.close()
    assert closed.is_set()
    assert len(read) < 10
