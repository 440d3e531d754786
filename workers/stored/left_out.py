"""What happens to an input that cannot be used: it is named, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError, FusewatchError, OutsideError, WeightsError
from workers.runtime.printable import printable

log = logging.getLogger("fusewatch")


class LeftOut(msgspec.Struct, frozen=True):
    """An input that could not be used, and why."""

    path: str
    why: str


class Unusable:
    """Collects the inputs that cannot be used.

    An input alone is never left out: its error ends the command.
    """

    def __init__(self) -> None:
        self._found: list[tuple[Path, FusewatchError]] = []

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The inputs that were left out so far."""
        return tuple(LeftOut(str(path), str(error)) for path, error in self._found)

    @contextmanager
    def trying(self, path: Path, *, alone: bool) -> Iterator[None]:
        """Names the input at `path` on stderr if it cannot be used, and goes on behind the block.

        Raises the error where the input is `alone`, and where it is the fault of no input.
        """
        try:
            yield
        except WeightsError:
            raise  # the models are those of the config
        except (ConfigError, OutsideError) as error:
            if alone:
                raise
            self.add(path, error)

    def add(self, path: Path, error: FusewatchError) -> None:
        """Leaves out an input, and names it on stderr."""
        text = str(error)
        named = text if str(path) in text else f"{path}: {text}"
        log.warning("%s; it is left out", printable(named))
        self._found.append((path, error))

    def check(self, used: int) -> None:
        """Raises an error of the first one's kind if none of several inputs could be used."""
        if used or not self._found:
            return
        msg = f"none of the {len(self._found)} inputs can be used: see above"
        raise (ConfigError if isinstance(self._found[0][1], ConfigError) else OutsideError)(msg)
