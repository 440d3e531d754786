"""What is found in a file of settings: each finding has its file, line and path."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pipeline.config.problem import Problem, Way
from pipeline.errors import ConfigError

log = logging.getLogger("fusewatch")

Lines = Mapping[Way, int]  # the line (from 1) of each key and item

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
MAX_PROBLEMS = 50  # limit of problems in one error; the rest is counted
MAX_MESSAGE_LENGTH = 400  # characters; limit of one problem


class ConfigFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One problem, warning or note. A file with a problem cannot be used.

    With a warning, something that the file names is missing now, or may work badly. A note asks for
    nothing.
    """

    level: str = PROBLEM
    file: str
    line: int
    path: str  # `sites.office.rules[0].zone`; empty: the file as a whole
    message: str

    def __str__(self) -> str:
        level = "" if self.level == PROBLEM else f"{self.level}: "
        where = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {level}{where}{self.message}"


class FaultyFile(ConfigError):
    """A file has problems; `findings` are all of them, and `str()` is a line for each."""

    findings: tuple[ConfigFinding, ...] = ()


def located(
    file: str | Path, lines: Lines, problems: Iterable[Problem], level: str = PROBLEM
) -> list[ConfigFinding]:
    """Returns the problems with their lines, in the order of the file."""
    found = [
        ConfigFinding(
            level=level,
            file=str(file),
            line=_line(lines, problem.path),
            path=problem.where,
            message=problem.message[:MAX_MESSAGE_LENGTH],
        )
        for problem in problems
    ]
    return sorted(found, key=lambda finding: (finding.line, finding.path, finding.message))


def faulty(findings: Iterable[ConfigFinding]) -> FaultyFile:
    """Returns one error for all findings, one line each."""
    kept = tuple(findings)
    told = [str(finding) for finding in kept[:MAX_PROBLEMS]]
    if len(kept) > MAX_PROBLEMS:
        told.append(f"{kept[0].file}: and {len(kept) - MAX_PROBLEMS} more problems")
    error = FaultyFile("\n".join(told))
    error.findings = kept
    return error


def announce(findings: Iterable[ConfigFinding]) -> None:
    """Logs warnings and notes; it is called before anything slow begins."""
    for finding in findings:
        log.log(logging.WARNING if finding.level == WARNING else logging.INFO, "%s", finding)


def _line(lines: Lines, way: Way) -> int:
    while way and way not in lines:
        way = way[:-1]
    return lines.get(way, 1)
