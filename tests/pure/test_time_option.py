"""`--since` and `--until`: a span before now, or a moment; the same in each command."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.types import SECOND, ns
from workers.bus.time_option import moment

NOW = ns(1_767_650_400)  # 2026-01-05T22:00:00Z


@pytest.mark.parametrize(
    ("text", "ago"),
    [("30s", 30), ("10m", 600), ("5 min", 300), ("5min", 300), ("2h", 7200), ("3d", 259_200)],
)
def test_a_span_is_counted_back_from_now(text: str, ago: int) -> None:
    assert moment(text, "--since", NOW) == NOW - ago * SECOND


@pytest.mark.parametrize(
    "text",
    ["2026-01-05T22:00:00Z", "2026-01-05T23:00:00+01:00", "2026-01-05 22:00:00Z", "20260105T22Z"],
)
def test_a_moment_is_of_any_zone(text: str) -> None:
    assert moment(text, "--until", 0) == NOW


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-01-05", r"--since '2026-01-05': a span like 10m, .* with its zone \(Z is UTC\)"),
        ("yesterday", "--since 'yesterday': a span like 10m, 2h or 3d"),
        ("10 parsecs", "a span like 10m"),
        ("-5m", "a span like 10m"),
        ("999999999d", "before 1970"),
        ("2150-01-01T00:00:00Z", "after 2100"),
        ("\x1b[31m", r"'\\x1b\[31m'"),
        ("", "a span like"),
    ],
)
def test_another_time_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        moment(text, "--since", NOW)
