"""`fusewatch sweep`: prints what each setting is worth, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError, OutsideError
from workers.config.output_file import check_output
from workers.runtime.printable import printable
from workers.tuning.outcomes import HOUR, Outcome
from workers.tuning.sweep import Swept, Tried
from workers.tuning.swept_settings import word
from workers.tuning.trade_off import SVG_BEGIN, draw

TITLES = ("recall", "false/h", "alert after", "incidents", "")
UNKNOWN = (
    "no truth is known: a scene says it in `truth`, and --verdicts FILE has what people said of "
    "alerts (`fusewatch review`)"
)


def check_picture(picture: Path | None) -> None:
    """Raises ConfigError for a file that cannot be written, before the long work."""
    if picture is None:
        return
    if picture.suffix.lower() != ".svg":
        msg = f"--picture {picture}: an .svg file, please"
        raise ConfigError(msg)
    check_output("--picture", picture, SVG_BEGIN, "picture of a sweep")
    if not picture.parent.is_dir():
        msg = f"--picture {picture}: a file in a folder that exists, please"
        raise ConfigError(msg)


def show(swept: Swept, *, picture: Path | None, as_json: bool) -> None:
    """Prints the result of a sweep; raises OutsideError for a picture that cannot be written."""
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(swept)) + "\n")
    else:
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines(swept))
    if picture is not None:
        try:
            picture.write_text(draw(swept.tried), encoding="utf-8")
        except OSError as error:
            msg = f"--picture {picture}: cannot be written: {error.strerror}"
            raise OutsideError(msg) from error


def lines(swept: Swept) -> Iterator[str]:
    """Yields the table, the settings that no other beats, and what the figures are of."""
    names = short_names(list(swept.tried[0].values))
    rows = [[*names, *TITLES], *(_row(each) for each in swept.tried)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    first = swept.tried[0].outcome
    hours = sum(case.length for case in swept.cases) / HOUR
    inputs = f"{len(swept.cases)} input{'s' if len(swept.cases) != 1 else ''}"
    yield f"{inputs}, {_long(hours)}, {swept.observations} records of observations"
    yield from (f"left out: {each.why}" for each in swept.left_out)
    if first.rank is None:
        yield UNKNOWN
        return
    yield f"{first.events} true events in {_long(first.hours)} with a known truth"
    best = [each for each in swept.tried if each.unbeaten]
    yield "no other setting beats:"
    for each in best:
        yield f"  {told(each, names)}: {_worth(each.outcome)}"


def _long(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{hours * 60:.3g} minutes"


def told(each: Tried, names: Sequence[str]) -> str:
    """The values of a combination: `zone-floor.min_score=0.4`."""
    return " ".join(
        f"{name}={word(value)}" for name, value in zip(names, each.values.values(), strict=True)
    )


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths of settings without `sites`, the site if it is the same, and `rules`."""
    steps = [path.split(".") for path in paths]
    for _ in range(2):
        if len({each[0] for each in steps}) == 1:
            steps = [each[1:] for each in steps]
    return [".".join(each).removeprefix("rules.") for each in steps]


def _row(each: Tried) -> list[str]:
    outcome = each.outcome
    recall = "-" if outcome.recall is None else f"{outcome.recall:.3f}"
    false = "-" if outcome.false_an_hour is None else f"{outcome.false_an_hour:.2f}"
    after = "-" if outcome.alert_after_s is None else f"{outcome.alert_after_s:.1f} s"
    notes = ["*"] if each.unbeaten else []
    notes += ["as now"] if each.as_now else []
    notes += [f"{outcome.unreviewed} not reviewed"] if outcome.unreviewed else []
    values = [word(value) for value in each.values.values()]
    return [*values, recall, false, after, str(outcome.incidents), " ".join(notes)]


def _worth(outcome: Outcome) -> str:
    found = f"{outcome.found} of {outcome.events} events" if outcome.events else "no event to find"
    after = "" if outcome.alert_after_s is None else f", after {outcome.alert_after_s:.1f} s"
    false = outcome.false_an_hour
    return found + ("" if false is None else f", {false:.2f} false alerts an hour") + after
