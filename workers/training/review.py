"""`fusewatch review`: stores verdicts on exported alerts in the file that `train` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.fusion.labels import LABELS
from models.training import dataset
from pipeline.errors import ConfigError
from pipeline.types import rfc3339

VERDICTS = {True: "right", False: "wrong", None: "-"}


class Reviewed(msgspec.Struct, frozen=True, kw_only=True):
    """An alert of the file, with its verdict."""

    id: str
    site: str
    start: str  # of its first window, UTC
    end: str
    label: str  # several with commas, in order
    verdict: bool | None
    windows: int

    def line(self) -> str:
        """Returns one line for a terminal."""
        said, label = VERDICTS[self.verdict], self.label or "(no label)"
        return f"{self.id}  {said:5}  {label:10}  {self.start}  {self.end}  {self.site}"


def alerts(file: Path) -> list[Reviewed]:
    """Returns the alerts of a file by start; ConfigError as `dataset.read`, or without alerts."""
    return _alerts(file, dataset.read([file]))


def review(
    file: Path, names: Sequence[str], verdict: bool | None, label: str = ""
) -> list[Reviewed]:
    """Sets the verdict of these alerts (ids or their prefixes; none: all) and returns them.

    `label` replaces the alert's label if it was wrong. The file is replaced atomically. Raises
    ConfigError for a name that matches no alert or several, an unknown label, and a right alert
    without a label.
    """
    if label and label not in LABELS:
        msg = f"--label {label}: it is none of {', '.join(LABELS)}"
        raise ConfigError(msg)
    rows = dataset.read([file])
    known = {row.alert for row in rows if row.alert}
    meant = {_meant(file, name, known) for name in names} if names else known
    said = [
        msgspec.structs.replace(row, verdict=verdict, label=label or row.label)
        if row.alert in meant
        else row
        for row in rows
    ]
    for row in said:
        if row.verdict and not row.label:
            msg = (
                f"{file}: alert {row.alert} was told with no label that can be learned: say what it"
                f" was, --label {'|'.join(LABELS)}"
            )
            raise ConfigError(msg)
    dataset.write(file, said)
    return [alert for alert in _alerts(file, said) if alert.id in meant]


def _alerts(file: Path, rows: Sequence[dataset.WindowRow]) -> list[Reviewed]:
    of: dict[str, list[dataset.WindowRow]] = {}
    for row in rows:
        if row.alert:
            of.setdefault(row.alert, []).append(row)
    if not of:
        msg = f"{file}: holds no alert to review: `fusewatch export` makes such files"
        raise ConfigError(msg)
    found = [
        Reviewed(
            id=name,
            site=windows[0].site,
            start=rfc3339(min(row.start for row in windows)),
            end=rfc3339(max(row.end for row in windows)),
            label=",".join(dict.fromkeys(row.label for row in windows if row.label)),
            verdict=windows[0].verdict,
            windows=len(windows),
        )
        for name, windows in of.items()
    ]
    return sorted(found, key=lambda alert: (alert.start, alert.id))


def _meant(file: Path, name: str, known: set[str]) -> str:
    found = [each for each in sorted(known) if each.startswith(name)]
    if name in known:
        return name
    if len(found) != 1:
        several = f"may be {', '.join(found[:5])}" if found else f"is in no line of {file}"
        msg = f"alert {name!r} {several}: `fusewatch review {file}` lists the alerts"
        raise ConfigError(msg)
    return found[0]
