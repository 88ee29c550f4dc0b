"""Mutation testing: `ci/mutants.py [ROOM...] --sample N --seed N`: which small faults in the code do the tests see?

A mutant is a function with one change: another comparison, operator or number, a condition turned round, a statement
left out. A room's tests run once in this process, which notes what functions of the room each calls; those
that fail, or take longer than `--slowest`, are named and left out. Then each mutant of a random sample, stratified by
module, is tried in a fork by the tests that call its function, cheapest first, to the first that fails, for `--budget`
seconds at most. So torch is imported once, and a mutant takes as long as one test. In the end the tests that failed
are run without a mutant once more. Code that runs when modules are imported is not changed.

Killed is what a test fails for, what does not end in ten times its time, and what ends the process by a fault of
memory or arithmetic. Whatever else ends a fork is printed as `abnormal`, counts for neither side, and lets this script
end with 2. Every mutant that no test sees is printed; of those in `KNOWN`, equivalent ones do not count. With
`--into FILE` all is kept there that was found of tests and mutants: a run that was stopped goes on where it was, and
another seed is tried at once. Take another file when code or tests change.

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
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from cProfile import Profile
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the code that is changed, not what is installed
ROOMS = {
    "statistics": tuple(
        f"analysis/{name}.py"
        for name in (
            "statistics",
            "intervals",
            "mixed",
            "paired",
            "ranks",
            "rates",
            "decide",
            "over_pairs",
            "agreement",
        )
    ),
    "power": ("analysis/claims/power.py",),
    "pruning and update": (
        "ops/pruning.py",
        "ops/reference.py",
        "ops/masked_optimizer.py",
        "ops/optimizers.py",
        "ops/masks.py",
    ),
    "tasks": ("tasks/*.py",),
    # Not recorded.py, which runs on a GPU, or in other processes on the stand-in for one.
    "training": ("training/[!r]*.py", "training/distributed.py", "training/recipe.py"),
}
TESTS = {
    "statistics": tuple(
        f"unit/test_{name}.py" for name in ("agreement", "claim_statistics", "decide", "rates", "statistics")
    ),
    "power": ("unit/test_power.py",),
    "pruning and update": tuple(f"kernels/test_{name}.py" for name in ("threshold", "masked_update", "contracts")),
    "tasks": (
        *(f"unit/test_{name}.py" for name in ("documents", "spec", "task_files", "tasks")),
        "integration/test_checkpoint_taken_up.py",
    ),
    "training": (
        *(f"unit/test_{name}.py" for name in ("distance", "linear", "passes", "probe", "recipe", "steps", "streams")),
        *(f"unit/test_{name}.py" for name in ("tasks", "tracking", "two_ranks", "sync_batchnorm")),
        *(f"integration/test_{name}.py" for name in ("batch_parts", "usual_training")),
    ),
}
# File, function and change of mutants that survive, as (kind, reason): "equivalent" ones compute the same, "accepted"
# ones nothing that a test should hold fast; these count as survivors.
KNOWN = {
    ("analysis/golden/equivalence.py", "_prior", "1000000.0  ->  1000001.0"): (
        "accepted", "so many degrees of freedom are as good as infinitely many",
    ),
    ("analysis/stats/mixed_models.py", "_columns", "v == level  ->  v != level"): (
        "equivalent", "with an intercept the columns span the same space",
    ),
    ("analysis/claims/power.py", "_smallest", "1 / math.sqrt(n)  ->  1 * math.sqrt(n)"): (
        "equivalent", "where the search for it begins",
    ),
    ("analysis/claims/power.py", "_of_trend", "smallest_p > alpha  ->  smallest_p >= alpha"): (
        "equivalent", "no p of orders is a level exactly",
    ),
    ("ops/masks.py", "pack_mask", "if kernels_available(mask.device):  ->  if not kernels_available(mask.device):"): (
        "equivalent", "kernels and plain PyTorch give the same bits",
    ),
    (
        "ops/masks.py", "unpack_mask",
        "if kernels_available(words.device):  ->  if not kernels_available(words.device):",
    ): ("equivalent", "kernels and plain PyTorch give the same bits"),
    ("ops/reference.py", "sgd_step", "True  ->  False"): ("equivalent", "foreach has the bits of the loop"),
    ("ops/masked_optimizer.py", "_step_group", "break  ->  continue"): (
        "equivalent", "without a cache the second turn of the loop does nothing",
    ),
    ("ops/masked_optimizer.py", "_new_cache", "self._caches.pop(index, None)  ->  pass"): (
        "equivalent", "a cache of other tensors is only asked in vain",
    ),
    (
        "ops/optimizers.py", "_start",
        "p.grad is not None or self.state.get(p)  ->  p.grad is not None and self.state.get(p)",
    ): ("accepted", "the reference makes the first step, and with it the state"),
    (
        "tasks/header.py", "read_note",
        "(size := int.from_bytes(head, 'little')) > _LARGEST  ->  (size := int.from_bytes(head, 'little')) >= _LARGEST",
    ): ("accepted", "a header of exactly 100 MiB"),
    ("tasks/result.py", "_is_time", "return text  ->  return None"): (
        "equivalent", "results are read as the text that was checked",
    ),
    (
        "tasks/train.py", "_fit",
        "context.ranks.assert_identical('the iteration to go on from', str(trainer.progress.step), context.device)"
        "  ->  pass",
    ): ("accepted", "of several processes, whose tests run in others than this"),
    ("tasks/train.py", "_fit", "if context.ranks.size > 1:  ->  if not context.ranks.size > 1:"): (
        "accepted", "of several processes, whose tests run in others than this",
    ),
    ("training/batches.py", "at", "self.ranks.size > 1  ->  self.ranks.size >= 1"): (
        "equivalent", "one rank's own places are all of them",
    ),
    ("training/loop.py", "__init__", "count_batches_on_host(model)  ->  pass"): (
        "equivalent", "where all is on the host; on a GPU, in other processes",
    ),
    (
        "training/distributed.py", "wrap",
        "warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')  ->  pass",
    ): ("accepted", "a warning that changes nothing"),
    ("training/distributed.py", "wrap", "True  ->  False"): ("accepted", "gradients are copied more often"),
    ("training/distributed.py", "wrap", "False  ->  True"): ("accepted", "equal things are sent once more"),
    ("training/loop.py", "__init__", "convert_sync_batchnorm(model, ranks)  ->  pass"): (
        "accepted", "of several processes, whose tests run in others than this",
    ),
    ("training/loop.py", "_tried", "p.grad is not None  ->  p.grad is None"): (
        "accepted", "of a GPU, in other processes",
    ),
    ("training/loop.py", "__init__", "False  ->  True"): ("accepted", "how a model is compiled, which takes a minute"),
    ("training/loop.py", "__init__", "1  ->  2"): ("accepted", "how a model is compiled, which takes a minute"),
    ("training/loop.py", "one_step", "True  ->  False"): ("accepted", "gradients of 0 are as good as none"),
    ("training/loop.py", "_tried", "self.optimizer.step()  ->  pass"): ("accepted", "of a GPU, in other processes"),
    **{
        ("training/steps.py", "__get_pydantic_core_schema__", change): (
            "accepted", "made when the module is imported, before a mutant is there",
        )
        for change in (
            "if isinstance(value, str):  ->  if not isinstance(value, str):",
            "if isinstance(value, Steps):  ->  if not isinstance(value, Steps):",
        )
    },
    ("training/loop.py", "_squared_distances", "2  ->  3"): ("accepted", "of a GPU, in other processes"),
    ("training/probe.py", "fit_probe", "1  ->  2"): (
        "equivalent", "without a validation split a second penalty is no better than the first",
    ),
    ("training/recipe.py", "faults", "0  ->  1"): ("equivalent", "it is read once a milestone has replaced it"),
    ("training/loop.py", "one_step", "0  ->  1"): ("accepted", "of a GPU, in other processes"),
    **{
        (file, function, "raise NotImplementedError  ->  pass"): ("equivalent", "every class that is used has its own")
        for file, function in (
            ("ops/pruning.py", "__call__"), ("ops/masked_optimizer.py", "_cached_step"),
            ("ops/masked_optimizer.py", "_reference_step"),
        )
    },
}  # fmt: skip

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
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
        cells = _find(compile(tree, str(path), "exec"), line, function.name).co_freevars
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
                if code.co_freevars != cells:  # the only super() is left out: no such code fits the function
                    continue
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
        tests = {item.nodeid: item for item in session.items}
        rows = [] if self.into is None or not self.into.exists() else self.into.read_text().splitlines()
        before = [row for row in map(json.loads, rows) if row["room"] == self.room]
        noted = {row["test"]: row for row in before if "test" in row and row["test"] in tests}
        found = _in_fork(lambda: [self._called(session, item) for name, item in tests.items() if name not in noted])
        if found is None:
            raise pytest.UsageError(f"{self.room}: the tests, run as they are, ended their process")
        for row in found:
            noted[row["test"]] = row
        self._tell_tests(noted)
        usable = [row for row in noted.values() if not row["why"]]
        usable.sort(key=lambda row: row["seconds"])  # type: ignore[no-any-return]
        functions = defaultdict[tuple[str, int], list[FunctionType]](list)
        for thing in gc.get_objects():
            if type(thing) is FunctionType:
                functions[thing.__code__.co_filename, thing.__code__.co_firstlineno].append(thing)
        tried = {row["mutant"]: row for row in before if "mutant" in row}
        for mutant in self.sample:
            own = [row for row in usable if list(mutant.where) in row["calls"]]
            affordable, spent = list[str](), 0.0
            for row in own:
                spent += row["seconds"]
                if affordable and spent > self.budget:
                    break
                affordable.append(row["test"])
            if mutant.name not in tried:
                limit = 20 + math.ceil(10 * sum(noted[name]["seconds"] for name in affordable))
                those = [tests[name] for name in affordable]
                outcome, by = self._try(session, mutant, functions[mutant.where], those, limit)
                tried[mutant.name] = {"mutant": mutant.name, "outcome": outcome, "by": by}
                self._note(tried[mutant.name])
            if tried[mutant.name]["outcome"] != "killed":
                self._tell(mutant, tried[mutant.name]["outcome"], f"{len(affordable)} of {len(own)} tests")
        # Whether the tests that killed pass without a mutant, in the order in which they were run.
        killers = {row["by"] for mutant in self.sample if (row := tried[mutant.name])["by"]}
        order = [tests[row["test"]] for row in usable if row["test"] in killers]
        failing = _in_fork(lambda: [item.nodeid for item in order if not self._passes(session, item)])
        if failing is None:
            raise pytest.UsageError(f"{self.room}: the tests that killed end their process without a mutant")
        for mutant in self.sample:
            row = tried[mutant.name]
            if row["by"] in failing:
                self._tell(mutant, "abnormal", f"{row['by']} fails without it")
            outcome = "abnormal" if row["by"] in failing else row["outcome"].split(":")[0]
            known, _ = KNOWN.get((mutant.file, mutant.function, mutant.change), ("", ""))
            self.outcomes[known if known == "equivalent" and outcome in ("survived", "not tested") else outcome] += 1
        return True

    def _called(self, session: pytest.Session, item: pytest.Item) -> dict[str, Any]:
        """What a test calls of the room, in how many seconds of CPU time, and why it is left out."""
        profile, in_threads, before = Profile(), set[CodeType](), time.process_time()
        threading.setprofile(lambda frame, event, argument: in_threads.add(frame.f_code))
        profile.enable()
        passes = self._passes(session, item)
        profile.disable()
        threading.setprofile(None)  # type: ignore[arg-type]
        seconds = time.process_time() - before
        codes = in_threads | {entry.code for entry in profile.getstats() if isinstance(entry.code, CodeType)}
        calls = sorted({(code.co_filename, code.co_firstlineno) for code in codes if code.co_filename in self.files})
        why = "fails as it is" if not passes else f"takes {seconds:.0f} s" if seconds > self.slowest else ""
        row = {"test": item.nodeid, "seconds": seconds, "why": why, "calls": [list(call) for call in calls]}
        self._note(row)
        return row

    def _tell_tests(self, noted: dict[str, dict[str, Any]]) -> None:
        """What is left out, and how many functions of the room each test file calls in what time."""
        calls, spent = defaultdict[str, set[tuple[str, int]]](set), defaultdict[str, float](float)
        for name, row in noted.items():
            file = name.split("::")[0]
            if row["why"] and (row["calls"] or row["why"] == "fails as it is"):
                self.line(f"left out   {name} {row['why']}")
            calls[file] |= {tuple(call) for call in row["calls"] if not row["why"]}
            spent[file] += row["seconds"]
        for file, its in calls.items():
            own = its - set().union(*(others for other, others in calls.items() if other != file))
            self.line(
                f"tests      {file}: {len(its)} functions, {len(own)} in no other, {spent[file]:.1f} s", flush=True
            )

    def _tell(self, mutant: Mutant, outcome: str, tests: str) -> None:
        kind, reason = KNOWN.get((mutant.file, mutant.function, mutant.change), ("", ""))
        self.line(f"{kind or outcome:10} {mutant.name} [{mutant.function}; {tests}] {reason}", flush=True)

    def _note(self, row: dict[str, Any]) -> None:
        if self.into is not None:
            with self.into.open("a") as file:
                file.write(json.dumps({"room": self.room, **row}) + "\n")

    def _passes(self, session: pytest.Session, item: pytest.Item) -> bool:
        failed = session.testsfailed
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return session.testsfailed == failed

    def _try(
        self,
        session: pytest.Session,
        mutant: Mutant,
        functions: list[FunctionType],
        tests: list[pytest.Item],
        limit: int,
    ) -> tuple[str, str]:
        """The outcome of a mutant that gets so many seconds, and the test that failed."""
        if not tests:
            return "not tested", ""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                session.config.pluginmanager.unregister(name="terminalreporter")
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
                signal.alarm(10 * limit)
                for function in functions:
                    function.__code__ = mutant.code
                for item in tests:
                    if not self._passes(session, item):
                        os.write(write, item.nodeid.encode())
                        os._exit(1)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            by = answer.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code in (0, 1):
            return ("survived", "killed")[code], by
        if -code in (signal.SIGALRM, signal.SIGXCPU) or -code in _CRASHES:
            return "killed", by
        return f"abnormal: {signal.Signals(-code).name if code < 0 else 'see above'}", by


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
