"""Writes every generated page and figure: `python -m docs.generate`."""

from __future__ import annotations

import sys

from docs.generate.everything import ROOT, everything


def main() -> int:
    """Writes what differs and names it; returns the exit code."""
    for name, text in everything().items():
        path = ROOT / name
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"{name}: written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
