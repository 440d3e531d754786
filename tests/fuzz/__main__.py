"""Fuzzes the readers of media, the endpoint, configs and what else is read from outside.

python -m tests.fuzz [--minutes 10] [--seed N]
python -m tests.fuzz --seed N --only KIND --case NUMBER     one case again
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz import endpoint, harness, media, recordings, records, texts

KINDS: dict[str, tuple[Callable[[Path], harness.Kind], float]] = {  # and its share of the time
    "notes": (records.Notes, 0.01),
    "configs": (texts.Configs, 0.13),
    "scenes": (texts.Scenes, 0.06),
    "alerts": (records.Alerts, 0.05),
    "records": (records.Records, 0.12),
    "recordings": (recordings.Recordings, 0.05),
    "requests": (endpoint.Requests, 0.23),
    "media": (media.Media, 0.35),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")))
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--case", type=int)
    given = parser.parse_args(argv)
    logging.disable(logging.ERROR)
    print(f"seed {given.seed}, {given.minutes:g} minutes", flush=True)
    left = {given.only: KINDS[given.only]} if given.only else dict(KINDS)
    end = time.monotonic() + given.minutes * 60
    found: list[harness.Finding] = []
    with tempfile.TemporaryDirectory(prefix="fusewatch-fuzz-") as folder:
        while left:
            name, (make, share) = next(iter(left.items()))
            shares = sum(each for _, each in left.values())
            until = time.monotonic() + (end - time.monotonic()) * share / shares
            del left[name]
            place = Path(folder) / name
            place.mkdir()
            kind = make(place)
            last = kind.target if left or given.only else sys.maxsize  # the last one fills the time
            numbers = range(1, last + 1) if given.case is None else (given.case,)
            result = harness.run(kind, given.seed, place, iter(numbers), until)
            print(
                f"{name:9} {result.cases:6} cases in {result.seconds:5.0f} s, "
                f"{len(result.findings)} findings",
                flush=True,
            )
            for one in result.findings:
                print(_told(given.seed, one), flush=True)
            found += result.findings
    return 1 if found else 0


def _told(seed: int, one: harness.Finding) -> str:
    again = f"python -m tests.fuzz --seed {seed} --only {one.kind} --case {one.number}"
    return f"--- {again}\n{one.what}"


if __name__ == "__main__":
    sys.exit(main())
