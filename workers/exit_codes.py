"""What a command ends with, and how one is added to the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol

OK = 0  # done
FOUND = 1  # check, doctor, verify and evaluate: found something
WRONG = 2  # wrong use or config
OUTSIDE = 3  # the outside world failed


class Add(Protocol):
    """Adds a command with its help; what comes back takes its arguments."""

    def __call__(
        self, name: str, command: Callable[[argparse.Namespace], int], help_: str
    ) -> argparse.ArgumentParser: ...


def usage(given: argparse.Namespace) -> int:
    """Of a word that has commands of its own, and is none."""
    return WRONG
