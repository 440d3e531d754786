"""What a receiver writes into Retry-After is a wait, or nothing; never an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.delivery.webhook import MAX_RETRY_AFTER, _retry_after

NOW = 1_767_225_600.0
DATES = st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,9} (Jan|Feb|Foo) [0-9]{1,12} [0-9:]{0,20} ([+-][0-9]{1,30}|GMT|[A-Z]+)"
)


@given(st.one_of(st.binary(max_size=60), DATES.map(lambda text: text.encode())))
@example(b"Thu, 01 Jan 1970 00:00:00 +99999999999999")
@example(b"Thu, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_a_wait_of_a_day_at_most_or_nothing(value: bytes) -> None:
    wait = _retry_after([(b"Retry-After", value)], NOW)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


@pytest.mark.parametrize("value", [b"Thu, 01 Jan 2026 00:00:09 GMT", b"9"])
def test_a_date_and_seconds_say_the_same(value: bytes) -> None:
    assert _retry_after([(b"retry-after", value)], NOW) == 9
