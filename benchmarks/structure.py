"""How the code is laid out: rooms, sizes, floors and names, of one checkout or of two side by side.

    python -m benchmarks.structure [OTHER_CHECKOUT]

Counts the Python files of `pipeline`, `models` and `workers`; `__init__.py` is no file of a folder.
A floor is the length of the longest chain of imports below a file, lazy imports included.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "models", "workers")


def measured(root: Path) -> dict[str, str]:
    """What there is to say of the checkout in `root`."""
    files = [p for name in PACKAGES for p in sorted((root / name).rglob("*.py"))]
    trees = {path: ast.parse(path.read_bytes()) for path in files}
    modules = {_module(root, path): path for path in files}
    rooms = Counter(str(p.relative_to(root).parent) for p in files if p.name != "__init__.py")
    sizes = {path: len(path.read_bytes().splitlines()) for path in files}
    longest, (fullest, most) = max(files, key=sizes.__getitem__), rooms.most_common(1)[0]
    classes = Counter(
        node.name for tree in trees.values() for node in ast.walk(tree) if _is_class(node)
    )
    twice = sorted(name for name, count in classes.items() if count > 1)
    below = {path: _imported(trees[path], modules) - {path} for path in files}

    @cache
    def floor(path: Path) -> int:
        return 1 + max((floor(other) for other in below[path]), default=0)

    return {
        "files": str(len(files)),
        "folders": str(len(rooms)),
        "fullest folder": f"{fullest}, {most} files",
        "longest file": f"{longest.relative_to(root)}, {sizes[longest]} lines",
        "lines": str(sum(sizes.values())),
        "floors of imports": str(max(map(floor, files))),
        "class names defined twice": f"{len(twice)}: {', '.join(twice)}",
    }


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


def _imported(tree: ast.AST, modules: dict[str, Path]) -> set[Path]:
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases):
                names |= {f"{module}.{alias.name}" for alias in aliases}
    found = {modules.get(name) or modules.get(name.rpartition(".")[0]) for name in names}
    return {path for path in found if path is not None}


def main() -> None:
    """Print a row for each measure, and a column for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("others", nargs="*", type=Path, help="checkouts to put beside this one")
    roots = [*(other.resolve() for other in parser.parse_args().others), ROOT]
    columns = [measured(root) for root in roots]
    print("measure | " + " | ".join(str(root) for root in roots))
    for what in columns[0]:
        print(f"{what} | " + " | ".join(column[what] for column in columns))


if __name__ == "__main__":
    main()
