"""Mutation testing: `ci/mutants.py [ROOM...] --sample N --seed N`: which small faults in the code do the tests see?

A mutant is a function with one change: another comparison, operator or number, a condition turned round, a statement
left out. A room's tests run once in this process, which notes what functions of the room each calls, and once more in
the order of their cost, without a mutant; what fails in either, or takes longer than `--slowest`, is named and left
out. Then each mutant of a random sample, stratified by module, is tried in a fork by the tests that call its function,
cheapest first, to the first that fails, for `--budget` seconds at most. So torch is imported once, and a mutant takes
as long as one test. Code that runs when modules are imported is not changed.

Killed is what a test fails for, what does not end in ten times its time, and what ends the process by a fault of
memory or arithmetic. Whatever else ends a fork is printed as `abnormal`, counts for neither side, and lets this script
end with 2. Every mutant that no test sees is printed; of those in `KNOWN`, equivalent ones do not count. With
`--into FILE` all outcomes are kept there, and a run that was stopped goes on where it was, until code or tests change.

Ends with 1 where fewer than `--goal` of a sample are killed. The interval is Wilson's, of 95 %.
`--tests FILE...` takes other tests than `TESTS` names, and tells how many functions of the room each file calls.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import json
import math
import os
import pickle
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from cProfile import Profile
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the code that is changed, not what is installed
ROOMS = {
    "statistics": tuple(
        f"analysis/{name}.py"
        for name in (
            "statistics", "intervals", "mixed", "paired", "ranks", "rates", "decide", "over_pairs", "agreement",
            "power",
        )
    ),
    "pruning and update": ("ops/prune.py", "ops/reference.py", "ops/update.py", "ops/masks.py"),
    "tasks": ("tasks/*.py",),
    "training": ("training/*.py",),
}  # fmt: skip
_WHOLE = (
    "unit/test_spec.py", "unit/test_recipe.py", "unit/test_linear.py", "unit/test_experiment_laws.py",
    "integration/test_checkpoint_taken_up.py", "integration/test_batch_parts.py", "integration/test_controls.py",
    "integration/test_experiments.py", "integration/test_pairs.py", "integration/test_collapse.py",
)  # fmt: skip
TESTS = {
    "statistics": tuple(
        f"unit/test_{name}.py"
        for name in ("agreement", "claim_statistics", "power", "rates", "statistics", "verdicts", "looks")
    ),
    "pruning and update": (
        "unit/test_reference.py", "kernels/test_threshold.py", "kernels/test_masked_update.py",
        "kernels/test_contracts.py",
    ),
    "tasks": (
        *(f"unit/test_{name}.py" for name in ("documents", "fuzz", "task_files", "choices")),
        *_WHOLE, "integration/test_damage.py",
    ),
    "training": (
        *(f"unit/test_{name}.py" for name in ("distance", "passes", "steps", "streams", "tracking")),
        *_WHOLE, "integration/test_precision.py", "integration/test_usual_training.py", "cuda/test_recorded.py",
    ),
}  # fmt: skip
# File, function and change of mutants that survive, as (kind, reason): "equivalent" ones compute the same, "accepted"
# ones nothing that a test should hold fast; these count as survivors.
KNOWN = {
    ("ops/masks.py", "pack", "if kernels_available(words.device):  ->  if not kernels_available(words.device):"): (
        "equivalent", "kernels and plain PyTorch give the same bits",
    ),
}  # fmt: skip

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
# Where a function begins -> numbers of the tests that call it.
Called = dict[tuple[str, int], set[int]]
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A function with one change.

    Attributes:
        where: the function's file and first line, by which its code is known.
        line: of the change, or the first of its statement.
        change: the line before and after it.
        code: what the function becomes.
    """

    room: str
    where: tuple[str, int]
    function: str
    line: int
    column: int
    change: str
    code: CodeType

    @property
    def file(self) -> str:
        return str(Path(self.where[0]).relative_to(ROOT / "lthbench"))

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.change}"


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


def mutants_of(room: str, path: Path) -> Iterator[Mutant]:
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
                at = node.lineno, node.col_offset  # type: ignore[attr-defined]
                yield Mutant(room, (str(path), line), function.name, *at, change, code)


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
    """The plugin that runs the collected tests, and then those that a mutant concerns, in a fork for each."""

    room: str
    files: set[str]
    sample: list[Mutant]
    slowest: float
    budget: float
    into: Path | None
    outcomes: Counter[str] = field(default_factory=Counter)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.line = session.config.get_terminal_writer().line
        answer = _in_fork(lambda: self._called(session))
        if answer is None:
            raise pytest.UsageError(f"{self.room}: the tests, run as they are, ended their process")
        called, seconds = answer
        self._tell_files(session, called, seconds)
        order = sorted(seconds, key=seconds.__getitem__)
        sound = _in_fork(lambda: [number for number in order if self._passes(session, number)])
        if sound is None:
            raise pytest.UsageError(f"{self.room}: the tests, run in the order of their cost, ended their process")
        for number in set(order) - set(sound):
            self.line(f"left out   {session.items[number].nodeid} fails after cheaper tests")
        functions = defaultdict[tuple[str, int], list[FunctionType]](list)
        for found in gc.get_objects():
            if type(found) is FunctionType:
                functions[found.__code__.co_filename, found.__code__.co_firstlineno].append(found)
        known = self._outcomes_before()
        for mutant in self.sample:
            numbers = called.get(mutant.where, set())
            tests, spent = [], 0.0
            for number in (n for n in sound if n in numbers):
                spent += seconds[number]
                if tests and spent > self.budget:
                    break
                tests.append(number)
            outcome = known.get(mutant.name)
            if outcome is None:
                limit = 20 + math.ceil(10 * sum(seconds[n] for n in tests))
                outcome = self._try(session, mutant, functions[mutant.where], tests, limit) if tests else "not tested"
                self._note(mutant, outcome)
            if outcome != "killed":
                self._tell(mutant, outcome, f"{len(tests)} of {len(numbers)} tests")
            self.outcomes[outcome.split(":")[0]] += 1
        return True

    def _tell(self, mutant: Mutant, outcome: str, tests: str) -> None:
        kind, reason = KNOWN.get((mutant.file, mutant.function, mutant.change), ("", ""))
        if kind == "equivalent" and outcome in ("survived", "not tested"):
            self.outcomes[outcome] -= 1
            self.outcomes[kind] += 1
        self.line(f"{kind or outcome:10} {mutant.name} [{mutant.function}; {tests}] {reason}", flush=True)

    def _outcomes_before(self) -> dict[str, str]:
        """Mutant -> outcome, as they are in the file of an earlier run."""
        if self.into is None or not self.into.exists():
            return {}
        rows = [json.loads(line) for line in self.into.read_text().splitlines()]
        return {row["mutant"]: row["outcome"] for row in rows if row["room"] == self.room}

    def _note(self, mutant: Mutant, outcome: str) -> None:
        if self.into is not None:
            with self.into.open("a") as file:
                file.write(json.dumps({"room": self.room, "mutant": mutant.name, "outcome": outcome}) + "\n")

    def _called(self, session: pytest.Session) -> tuple[Called, dict[int, float]]:
        """What each test calls of the room, and how long each that passes takes, in seconds of CPU time."""
        called: Called = {}
        seconds: dict[int, float] = {}
        for number in range(len(session.items)):
            profile, before = Profile(), time.process_time()
            profile.enable()
            passes = self._passes(session, number)
            profile.disable()
            took = time.process_time() - before
            codes = [entry.code for entry in profile.getstats() if isinstance(entry.code, CodeType)]
            functions = {(c.co_filename, c.co_firstlineno) for c in codes if c.co_filename in self.files}
            if passes and functions and took <= self.slowest:
                seconds[number] = took
                for where in functions:
                    called.setdefault(where, set()).add(number)
            elif not passes or functions:
                why = "fails as it is" if not passes else f"takes {took:.0f} s"
                self.line(f"left out   {session.items[number].nodeid} {why}", flush=True)
        return called, seconds

    def _tell_files(self, session: pytest.Session, called: Called, seconds: dict[int, float]) -> None:
        """How many functions of the room each test file calls, and the time of its tests."""
        functions, spent = defaultdict[str, set[tuple[str, int]]](set), Counter[str]()
        file_of = [item.nodeid.split("::")[0] for item in session.items]
        for where, numbers in called.items():
            for number in numbers:
                functions[file_of[number]].add(where)
        for number, its in seconds.items():
            spent[file_of[number]] += its  # type: ignore[assignment]
        for file in dict.fromkeys(file_of):
            own = functions[file] - set().union(*(of for other, of in functions.items() if other != file))
            self.line(
                f"tests      {file}: {len(functions[file])} functions, {len(own)} of them alone, {spent[file]:.1f} s"
            )

    def _passes(self, session: pytest.Session, number: int) -> bool:
        failed, item = session.testsfailed, session.items[number]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return session.testsfailed == failed

    def _try(
        self, session: pytest.Session, mutant: Mutant, functions: list[FunctionType], tests: list[int], limit: int
    ) -> str:
        """The outcome of a mutant that gets so many seconds."""
        child = os.fork()
        if child == 0:
            try:
                session.config.pluginmanager.unregister(name="terminalreporter")
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
                signal.alarm(5 * limit)
                for function in functions:
                    function.__code__ = mutant.code
                os._exit(0 if all(self._passes(session, number) for number in tests) else 1)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code in (0, 1):
            return ("survived", "killed")[code]
        if -code in (signal.SIGALRM, signal.SIGXCPU) or -code in _CRASHES:
            return "killed"
        return f"abnormal: {signal.Signals(-code).name if code < 0 else 'see above'}"


def _in_fork(compute: Any) -> Any:
    """What a function returns in a fork, as threads that tests start would be missed in later ones; None if it ends."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = pickle.dumps(compute())
            with os.fdopen(write, "wb") as out:
                out.write(answer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    os.close(write)
    with os.fdopen(read, "rb") as answered:
        content = answered.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return pickle.loads(content) if ended == 0 else None


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    centre, width = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return (centre - width) / (n + z * z), (centre + width) / (n + z * z)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all, unless given")
    parser.add_argument("--sample", type=int, default=200, help="mutants of each room, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=5.0, help="seconds of the slowest test that is run")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests that a mutant gets")
    parser.add_argument("--goal", type=float, default=0.85, help="share that is to be killed")
    parser.add_argument("--into", type=Path, help="file of outcomes")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="below tests/")
    args = parser.parse_args()
    if unknown := set(args.rooms) - set(ROOMS):
        parser.error(f"there is no room {', '.join(sorted(unknown))}")
    # A busy machine is no fault, and no example of one mutant is to be tried on the next.
    hypothesis.settings.register_profile("mutants", deadline=None, database=None)
    hypothesis.settings.load_profile("mutants")
    missed = abnormal = False
    for room in args.rooms or ROOMS:
        paths = sorted(path for pattern in ROOMS[room] for path in (ROOT / "lthbench").glob(pattern))
        mutants = [mutant for path in paths for mutant in mutants_of(room, path)]
        sample = stratified(mutants, args.sample, args.seed)
        trial = Trial(room, {str(path) for path in paths}, sample, args.slowest, args.budget, args.into)
        files = [str(ROOT / "tests" / test) for test in args.tests or TESTS[room]]
        code = pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--no-summary", *files], plugins=[trial])
        tried = sum(trial.outcomes.values())
        if code not in (0, 1, 5) or tried != len(sample):  # 5: no test ran in the process that was asked
            print(f"{room}: pytest ended with {int(code)} after {tried} of {len(sample)} mutants; nothing is measured")
            return 2
        n = tried - trial.outcomes["equivalent"] - trial.outcomes["abnormal"]
        killed = trial.outcomes["killed"]
        low, high = wilson(killed, n)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(trial.outcomes.items()) if count)
        share = f"{killed / n:.1%} killed ({low:.1%} to {high:.1%})"
        print(f"{room}: {len(mutants):,} mutants, of {n} tried {share}: {counts}")
        missed |= killed / n < args.goal
        abnormal |= trial.outcomes["abnormal"] > 0
    return 2 if abnormal else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
