"""Mutation testing: `ci/mutants.py [GROUP...] --sample N --seed N`: which small faults in the code do the tests see?

A mutant is a function with one change: another comparison, operator or number, a condition turned round, a statement
left out. Tests are collected and run once in this process, which notes what functions each of them calls; then each
mutant of a random sample, stratified by module, is tried in a fork by the tests that call its function, fastest first.
So torch is imported once. Tests that fail as they are, or take longer than `--slowest`, are left out, as is code that
runs when modules are imported. Of every mutant that no test sees the change is printed; those in `EQUIVALENT` are
known to change nothing, and do not count.

Ends with 1 where fewer than `--goal` of the sample are seen. The interval is Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import math
import os
import pickle
import random
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from cProfile import Profile
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the code that is changed, not what is installed
GROUPS = {
    "pruning and update": ("ops/prune.py", "ops/reference.py", "ops/update.py", "ops/masks.py"),
    "statistics": tuple(
        f"analysis/{name}.py"
        for name in ("statistics", "intervals", "mixed", "paired", "ranks", "decide", "over_pairs", "agreement")
    ),
    "training": ("training/*.py",),
    "tasks": ("tasks/*.py",),
}
TESTS = {
    "pruning and update": ("kernels/test_threshold.py", "kernels/test_masked_update.py", "unit/test_reference.py"),
    "statistics": tuple(
        f"unit/test_{name}.py" for name in ("agreement", "claim_statistics", "power", "statistics", "verdicts", "looks")
    ),
    "training": tuple(
        f"unit/test_{name}.py"
        for name in (
            "distance",
            "linear",
            "passes",
            "recipe",
            "steps",
            "streams",
            "tracking",
            "experiment_laws",
            "spec",
        )
    ),
    "tasks": tuple(
        f"unit/test_{name}.py"
        for name in ("documents", "fuzz", "spec", "task_files", "linear", "lease", "choices", "experiment_laws")
    ),
}
# File and change of mutants that compute the same, and why.
EQUIVALENT = {
    ("ops/masks.py", "if kernels_available(words.device):  ->  if not kernels_available(words.device):"): (
        "kernels and plain PyTorch give the same bits"
    ),
    ("ops/update.py", "break  ->  continue"): "without a plan the second turn of the loop does nothing",
}

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
# Where a function begins -> seconds and number of the tests that call it.
Called = dict[tuple[str, int], list[tuple[float, int]]]
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A function with one change.

    Attributes:
        where: the function's file and first line, by which its code is known.
        change: the line before and after it.
        code: what the function becomes.
    """

    group: str
    where: tuple[str, int]
    line: int
    change: str
    code: CodeType

    @property
    def file(self) -> str:
        return str(Path(self.where[0]).relative_to(ROOT / "lthbench"))


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _OTHER:
            yield ast.Compare(node.left, [_OTHER[type(op)]()], node.comparators)  # type: ignore[list-item]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            other = copy.copy(node)
            other.op = _OTHER[type(op)]()  # type: ignore[attr-defined]
            yield other
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            yield ast.Name(_NAMES[name], ast.Load())
        case ast.IfExp():
            yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        case ast.If() | ast.While():
            other = copy.copy(node)
            other.test = ast.UnaryOp(ast.Not(), node.test)
            yield other
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Parent, field, index and node of all that runs within a function: no annotation, default or message."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args", "type_comment") and not isinstance(
            node, ast.Call
        ):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            # Lengths that `strict` compares are equal by construction.
            if isinstance(child, ast.AST) and not (isinstance(child, ast.keyword) and child.arg == "strict"):
                yield node, name, index, child
                if not isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert):
                    yield from _places(child)


def mutants_of(group: str, path: Path) -> Iterator[Mutant]:
    """All mutants of a module's functions."""
    tree = ast.parse(path.read_text())
    for function in _functions(tree):
        line = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        for parent, name, index, node in list(_places(function)):
            for new in _changed(node):
                ast.copy_location(new, node)
                ast.fix_missing_locations(new)
                value = getattr(parent, name)
                change = f"{_text(node)}  ->  {_text(new)}"
                _put(parent, name, index, new)
                code = _find(compile(tree, str(path), "exec"), line, function.name)
                setattr(parent, name, value) if index is None else _put(parent, name, index, node)
                yield Mutant(group, (str(path), line), node.lineno, change, code)  # type: ignore[attr-defined]


def _text(node: ast.AST) -> str:
    return ast.unparse(node).split("\n")[0][:100]


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions of a module and of its classes; those within functions are parts of these."""
    for child in getattr(node, "body", ()):
        if isinstance(child, ast.FunctionDef):
            yield child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child)


def _find(code: CodeType, line: int, name: str) -> CodeType:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            if const.co_firstlineno == line and const.co_name == name:
                return const
            if const.co_firstlineno <= line:
                try:
                    return _find(const, line, name)
                except LookupError:
                    continue
    raise LookupError(f"{name} at line {line}")


def stratified(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """A random sample, of each file in proportion to its mutants, and at least one."""
    rng, by_file = random.Random(seed), defaultdict[str, list[Mutant]](list)
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    share = count / max(1, len(mutants))
    return [m for each in by_file.values() for m in rng.sample(each, min(len(each), max(1, round(share * len(each)))))]


@dataclass
class Trial:
    """The plugin that runs the collected tests once, and then those that a mutant concerns, in a fork for each."""

    group: str
    sample: list[Mutant]
    slowest: float
    outcomes: Counter[str] = field(default_factory=Counter)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        called = self._called(session)
        functions = defaultdict[tuple[str, int], list[FunctionType]](list)
        for found in gc.get_objects():
            if isinstance(found, FunctionType):
                functions[found.__code__.co_filename, found.__code__.co_firstlineno].append(found)
        for mutant in self.sample:
            tests = sorted(called.get(mutant.where, ()))
            outcome = self._try(session, mutant, functions[mutant.where], tests) if tests else "not tested"
            if outcome in ("survived", "not tested"):
                outcome = "equivalent" if (mutant.file, mutant.change) in EQUIVALENT else outcome
                told = f"{outcome:10} {mutant.file}:{mutant.line}: {mutant.change} [{len(tests)} tests]"
                session.config.get_terminal_writer().line(told, flush=True)
            self.outcomes[outcome] += 1
        return True

    def _called(self, session: pytest.Session) -> Called:
        """Run all tests, in a fork too: threads that they start would not be there in later forks."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            called: Called = {}
            for number, item in enumerate(session.items):
                profile, before, failed = Profile(), time.process_time(), session.testsfailed
                profile.enable()
                self._run(item)
                profile.disable()
                seconds = time.process_time() - before
                if seconds <= self.slowest and session.testsfailed == failed:
                    codes = [entry.code for entry in profile.getstats() if isinstance(entry.code, CodeType)]
                    for where in {(code.co_filename, code.co_firstlineno) for code in codes}:
                        called.setdefault(where, []).append((seconds, number))
            with os.fdopen(write, "wb") as out:
                pickle.dump(called, out)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            found: Called = pickle.load(answer)
        os.waitpid(child, 0)
        return found

    def _run(self, item: pytest.Item) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def _try(
        self, session: pytest.Session, mutant: Mutant, functions: list[FunctionType], tests: list[tuple[float, int]]
    ) -> str:
        child = os.fork()
        if child == 0:
            session.config.pluginmanager.unregister(name="terminalreporter")
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            limit = 20 + math.ceil(10 * sum(seconds for seconds, _ in tests))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            signal.alarm(3 * limit)
            for function in functions:
                function.__code__ = mutant.code
            failed = session.testsfailed
            for _, number in tests:
                try:
                    self._run(session.items[number])
                except BaseException:
                    os._exit(1)
                if session.testsfailed > failed:
                    os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return "survived" if status == 0 else "killed" if status > 0 else "timeout"


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    centre, width = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return (centre - width) / (n + z * z), (centre + width) / (n + z * z)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all, unless given")
    parser.add_argument("--sample", type=int, default=200, help="mutants of each group, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=5.0, help="seconds of the slowest test that is run")
    parser.add_argument("--goal", type=float, default=0.85, help="share that is to be killed")
    args = parser.parse_args()
    missed = False
    for group in args.groups or GROUPS:
        paths = sorted(path for pattern in GROUPS[group] for path in (ROOT / "lthbench").glob(pattern))
        mutants = [mutant for path in paths for mutant in mutants_of(group, path)]
        trial = Trial(group, stratified(mutants, args.sample, args.seed), args.slowest)
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "--no-header",
            *(str(ROOT / "tests" / test) for test in TESTS[group]),
        ]
        if (code := pytest.main(options, plugins=[trial])) not in (0, 1):
            return int(code)
        seen = trial.outcomes["killed"] + trial.outcomes["timeout"]
        n = sum(trial.outcomes.values()) - trial.outcomes["equivalent"]
        low, high = wilson(seen, n)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(trial.outcomes.items()))
        print(f"{group}: {len(mutants):,} mutants, sample: {counts}: {seen / n:.1%} killed ({low:.1%} to {high:.1%})")
        missed |= seen / n < args.goal
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
