"""Mutation testing of the core modules: `make mutate` prints the changes that no test notices.

A mutant is one small change of one module, made in a copy of the tree: a comparison moved by one, a
number changed, a condition reversed, `min` for `max`, a statement left out. The tests of the module
run until one fails. A mutant that no test fails has survived. Then either the change cannot be
seen, or a test is missing; docs/explanations/mutation-testing.md judges each one.

The seed decides the order in which mutants are tried. No mutant is begun after the minutes that are
given, so what was tried is a fair sample. cosmic-ray makes the mutants and keeps the results.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import fnmatch
import queue
import random
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import parso
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem, WorkResult

# Module -> the tests that run first, and those that run only where the first ones see nothing.
TESTS: dict[str, tuple[str, str]] = {
    "pipeline/judge/align.py": (
        "tests/pure/test_align.py tests/pure/test_align_edges.py",
        "tests/pure/test_align_properties.py tests/golden/test_stored.py",
    ),
    "pipeline/judge/incident.py": (
        "tests/pure/test_incident_edges.py tests/pure/test_incident.py",
        "tests/golden/test_stored.py",
    ),
    "pipeline/tracking/track.py": (
        "tests/pure/test_track.py tests/pure/test_track_motion.py tests/pure/test_identity.py",
        "tests/golden/test_stored.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/tracking/active_track.py": (
        "tests/pure/test_track.py tests/pure/test_track_motion.py tests/pure/test_identity.py",
        "tests/golden/test_stored.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/tracking/identity.py": (
        "tests/pure/test_identity.py tests/pure/test_appearance.py",
        "tests/pure/test_track.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/tracking/appearance.py": (
        "tests/pure/test_appearance.py tests/pure/test_identity.py",
        "tests/pure/test_track.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/judge/rules.py": (
        "tests/pure/test_rules.py tests/pure/test_rules_edges.py tests/graph/test_site_plan.py",
        "tests/golden/test_stored.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/judge/vision_rules.py": (
        "tests/pure/test_rules.py tests/pure/test_rules_edges.py tests/graph/test_site_plan.py",
        "tests/golden/test_stored.py tests/graph/test_fusion_stage.py",
    ),
    "pipeline/host.py": (
        "tests/pure/test_host_edges.py tests/pure/test_host.py",
        "tests/pure/test_run.py tests/graph/test_many_sites.py",
    ),
    "pipeline/run.py": (
        "tests/pure/test_run_edges.py tests/pure/test_run.py",
        "tests/pure/test_host.py tests/graph/test_poison.py",
    ),
    "workers/delivery/outbox.py": (
        "tests/pure/test_outbox.py tests/graph/test_delivery_edges.py",
        "tests/graph/test_delivery.py tests/graph/test_many_sites.py",
    ),
    "workers/delivery/delivery.py": (
        "tests/graph/test_delivery_edges.py tests/graph/test_delivery.py",
        "tests/graph/test_many_sites.py tests/graph/test_traces.py",
    ),
}
TREE = ("pipeline", "models", "workers", "tests", "deploy", "pyproject.toml")  # what a copy has
PYTEST = "-x -q --tb=no --assert=plain -p no:cacheprovider -m 'not live and not slow'"
FOLDER = Path("build/mutate")
SEED, MINUTES, JOBS = 2026, 55.0, 2

# Of each operator its neighbour and its opposite: more of them die of the same test.
KEPT = (
    "AddNot", "BreakWithContinue", "ContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
    "RemoveDecorator", "ZeroIterationForLoop", "AndWithOr", "OrWithAnd", "TrueWithFalse",
    "FalseWithTrue", "Delete_Not", "Delete_USub", "Delete_Invert", "_Add_Sub", "_Sub_Add",
    "_Mul_Div", "_Div_Mul", "_FloorDiv_Mul", "_Mod_Mul", "_Pow_Mul", "_LShift_RShift",
    "_RShift_LShift", "_BitOr_BitAnd", "_BitAnd_BitOr", "_BitXor_BitAnd", "_Lt_LtE", "_Lt_GtE",
    "_LtE_Lt", "_LtE_Gt", "_Gt_GtE", "_Gt_LtE", "_GtE_Gt", "_GtE_Lt", "_Eq_NotEq", "_NotEq_Eq",
    "_Is_IsNot", "_IsNot_Is", "DropStatement", "SwapExtreme", "SwapIn",
)  # fmt: skip

OTHER = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}

Span = tuple[tuple[int, int], tuple[int, int]]  # (line, column) of the first and after the last


class DropStatement(Operator):
    """Leaves out a call, a `del`, or an assignment to something other than a plain name."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.parent is None or node.parent.type != "simple_stmt":
            return
        call = node.type == "atom_expr" and node.get_code().endswith(")")
        assignment = node.type == "expr_stmt" and (
            node.children[1].type == "operator"
            and (node.children[1].value != "=" or node.children[0].type != "name")
        )
        if call or assignment or node.type == "del_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse(node.get_first_leaf().prefix + "pass")

    @classmethod
    def examples(cls) -> Sequence[Any]:
        return ()


class SwapExtreme(Operator):
    """`min` for `max`, `minimum` for `maximum`, and back."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "name" and node.value in OTHER and node.get_next_leaf().value == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = OTHER[node.value]
        return node

    @classmethod
    def examples(cls) -> Sequence[Any]:
        return ()


class SwapIn(Operator):
    """`not in` for `in` where something is asked, and back."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "comparison":
            for sign in node.children[1::2]:
                if sign.get_code().split() in (["in"], ["not", "in"]):
                    yield sign.start_pos, sign.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        places = [
            place
            for place in range(1, len(node.children), 2)
            if node.children[place].get_code().split()[-1] == "in"
        ]
        turned = " not in" if node.children[places[index]].get_code().split() == ["in"] else " in"
        node.children[places[index]] = parso.parse(turned)
        return node

    @classmethod
    def examples(cls) -> Sequence[Any]:
        return ()


OURS = {operator.__name__: operator for operator in (DropStatement, SwapExtreme, SwapIn)}
plugins.OPERATOR_PROVIDERS["ours"] = OURS


# -- which mutants there are


def mutants(module: str) -> Iterator[WorkItem]:
    """All mutants of a module, in a fixed order."""
    tree = get_ast_from_path(Path(module))
    skipped = list(_unseen(Path(module).read_text()))
    for name in plugins.operator_names():
        if not name.endswith(KEPT):
            continue
        operator = plugins.get_operator(name)()
        spans = (
            (node, *span) for node in ast_nodes(tree) for span in operator.mutation_positions(node)
        )
        for occurrence, (node, start, end) in enumerate(spans):
            # The star of `def f(*, x)` is no product.
            star = node.parent is not None and node.parent.type == "parameters"
            if star or any(first <= start and end <= last for first, last in skipped):
                continue
            spec = MutationSpec(module, name, occurrence, start, end)
            yield WorkItem.single(f"{module}:{start[0]}:{start[1]} {name} {occurrence}", spec)


def _unseen(code: str) -> Iterator[Span]:
    """Where no mutant does anything: types are never evaluated, and `frozen` only forbids."""
    for node in ast.walk(ast.parse(code)):
        found = [getattr(node, place, None) for place in ("annotation", "returns")]
        if isinstance(node, ast.ClassDef):
            found += [keyword.value for keyword in node.keywords]
        for one in found:
            if isinstance(one, ast.expr):
                end = one.end_lineno or 0, one.end_col_offset or 0
                yield (one.lineno, one.col_offset), end


# -- how they are tried


def command(module: str, copy: Path, seconds: float = 3600) -> str:
    """What runs the module's tests in a copy; it ends by itself, whoever started it has gone."""
    first, then = TESTS[module]
    pytest = f"{shlex.quote(sys.executable)} -m pytest {PYTEST}"
    line = f"cd {shlex.quote(str(copy))} && {pytest} {first} && {pytest} {then}"
    end = f"timeout -k 5 {seconds + 10:.0f}"
    return f"{end} env PYTHONPATH={shlex.quote(str(copy))} sh -c {shlex.quote(line)}"


def copied(number: int) -> Path:
    """A fresh copy of the tree, compiled: the tests of a mutant write no compiled files."""
    copy = (FOLDER / str(number)).resolve()
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in TREE:
        if Path(name).is_dir():
            shutil.copytree(name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(name, copy)
    compileall.compile_dir(copy, quiet=2)
    return copy


def clean(modules: Iterable[str], copy: Path) -> dict[str, float]:
    """Seconds that the tests of each module take in a copy without a mutant."""
    took = {}
    for module in modules:
        began = time.monotonic()
        run = subprocess.run(
            shlex.split(command(module, copy)), check=False, capture_output=True, text=True
        )
        took[module] = time.monotonic() - began
        if run.returncode:
            sys.exit(f"the tests of {module} fail without any mutant:\n{run.stdout}{run.stderr}")
        print(f"{took[module]:6.1f} s  {module}, not mutated", flush=True)
    return took


def tried(
    items: Sequence[WorkItem], seconds: dict[str, float], until: float, jobs: int
) -> Iterator[tuple[WorkItem, WorkResult]]:
    """The result of each mutant as it comes; none is begun after `until`."""
    waiting, done = queue.SimpleQueue[WorkItem](), queue.SimpleQueue[Any]()
    for item in items:
        waiting.put(item)

    def work(copy: Path) -> None:
        while time.monotonic() < until:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
            (spec,) = item.mutations
            module = str(spec.module_path)
            there = MutationSpec(
                copy / module, spec.operator_name, spec.occurrence, spec.start_pos, spec.end_pos
            )
            limit = 20 + 2 * seconds[module]
            done.put((item, mutate_and_test([there], command(module, copy, limit), limit)))
        done.put(None)

    for number in range(jobs):
        threading.Thread(target=work, args=(copied(number),), daemon=True).start()
    running = jobs
    while running:
        result = done.get()
        if result is None:
            running -= 1
        else:
            yield result


# -- what is told


def told(item: WorkItem, result: WorkResult) -> str:
    """`file:line` and what was changed."""
    (spec,) = item.mutations
    lines = [line for line in (result.diff or "").splitlines() if line[:1] in ("-", "+")]
    changed = [line for line in lines if not line.startswith(("---", "+++"))]
    return "\n    ".join([f"{spec.module_path}:{spec.start_pos[0]}", *changed])


def _slow(result: WorkResult) -> bool:
    return result.output == "timeout"


def summary(results: dict[str, WorkResult], total: int) -> str:
    """Figures by module, and of all."""
    lines = []
    for module in [*TESTS, ""]:
        count = Counter[str]()
        for job, result in results.items():
            # cosmic-ray 8.7 cannot make some, such as another name for `binascii.Error`.
            if job.startswith(module) and result.test_outcome is not TestOutcome.INCOMPETENT:
                slow = _slow(result)
                count["survived" if not result.is_killed else "slow" if slow else "killed"] += 1
        name = module or f"all (of {total} mutants that there are)"
        lines.append(
            f"{sum(count.values()):6} tried {count['killed']:6} killed {count['slow']:4} too slow "
            f"{count['survived']:5} survived  {name}"
        )
    return "\n".join(lines)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="of the order of the mutants")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="when the last one begins")
    parser.add_argument("--jobs", type=int, default=JOBS, help="mutants at a time")
    parser.add_argument("--only", default="*", help="modules, such as '*/align.py'")
    parser.add_argument(
        "--again", action="store_true", help="only those that survived or were too slow last time"
    )
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Try mutants and print who survives."""
    args = arguments(given)
    modules = [module for module in TESTS if fnmatch.fnmatch(module, args.only)]
    items = [item for module in modules for item in mutants(module)]
    random.Random(args.seed).shuffle(items)
    FOLDER.mkdir(parents=True, exist_ok=True)
    session = WorkDB(FOLDER / "session.sqlite", WorkDB.Mode.create)
    results: dict[str, WorkResult] = {}
    if args.again:
        known = {item.job_id for item in items}
        results = {job: result for job, result in session.results if job in known}
        left = {job for job, result in results.items() if not result.is_killed or _slow(result)}
        items = [item for item in items if item.job_id in left]
    else:
        session.clear()
        session.add_work_items(items)
    seconds = clean(modules, copied(0))
    began = time.monotonic()
    tries = tried(items, seconds, began + 60 * args.minutes, args.jobs)
    for number, (item, result) in enumerate(tries, 1):
        session.set_result(item.job_id, result)
        results[item.job_id] = result
        if not result.is_killed:
            print(told(item, result), flush=True)
        if number % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{number} of {len(items)} tried in {minutes:.0f} minutes", flush=True)
    session.close()
    print(f"\nseed {args.seed}, {(time.monotonic() - began) / 60:.0f} minutes, {args.jobs} jobs")
    print(summary(results, sum(1 for module in TESTS for _ in mutants(module))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
