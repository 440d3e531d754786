"""What a process and its descendants use, as Linux tells it: CPU seconds and memory."""

from __future__ import annotations

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(rest[1]), []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def spent(pid: int) -> float:
    """CPU seconds of a process and its descendants, those that have ended included."""
    total = 0
    for one in family(pid):
        try:
            rest = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, and its parent has its time
            continue
        total += sum(map(int, rest[11:15]))
    return total / TICK


def by_thread(pid: int) -> dict[str, float]:
    """CPU seconds of each thread of a process, by its number."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().rpartition(")")
        except OSError:
            continue
        used = sum(map(int, rest.split()[11:13])) / TICK
        found[f"{task.name} {name.partition('(')[2]}"] = used
    return found


def pss(pid: int) -> int:
    """Bytes of memory of a process and its descendants; shared pages count by share."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total
