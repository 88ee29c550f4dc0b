"""`lthbench verify`: whether results agree with the golden ones, and if not, where to look first."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lthbench import api
from lthbench.api import OpenSuite, Source
from lthbench.cli.app import JsonOption, again, app, err, fail, given, out, print_json
from lthbench.cli.parameters import with_options
from lthbench.suite.plan import Plan
from lthbench.suite.subset import WHOLE, Subset
from lthbench.tasks.store import Store
from lthbench.training.steps import Steps

if TYPE_CHECKING:
    from lthbench.analysis.golden.files import Comparison, Difference


@app.command()
@with_options
def verify(
    source: Source,
    part: Subset,
    golden: Annotated[
        Path | None, typer.Option(help="Folder of the golden files; default golden/NAME beside the suite.")
    ] = None,
    statistical: Annotated[
        bool, typer.Option("--statistical", help="Compare by the statistical test only, as for another environment.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Record these results as golden; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why the results have changed; recorded with them.")] = None,
    keep_others: Annotated[
        bool,
        typer.Option(
            "--keep-others",
            help="With --update: keep the golden results of other environments, which the same code gave.",
        ),
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare with published numbers instead, for information only.")
    ] = False,
    artefacts: Annotated[
        bool, typer.Option("--artefacts", help="Check every file of the tasks against its digest instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a suite's results with the golden ones; exits with 1 if they differ."""
    from lthbench.analysis.golden.accept import accept
    from lthbench.analysis.golden.compare import compare, decisive_comparison
    from lthbench.analysis.golden.files import golden_folder, read_golden

    if artefacts and (update or reference or statistical):
        fail("--artefacts: reads files and compares with nothing else; leave out the other options")
    if reference and (update or statistical):
        fail("--reference: compares with other papers' numbers, which nothing updates; leave out the other options")
    if reason is not None and not update and not artefacts and not reference:
        fail("--reason: is recorded by --update; give both, or neither")
    if keep_others and not update and not artefacts and not reference:
        fail("--keep-others: belongs to --update; give both, or neither")
    opened = api.open_suite(source)
    suite, store, plan = opened.path, opened.store, api.plan(opened, part)
    folder = golden or golden_folder(suite, opened.suite.other_engine)
    if artefacts:
        _check_artefacts(plan, store, as_json)
    elif reference:
        _print_references(plan, store, folder.parent / "references.yaml", as_json)
    elif update:
        if part != Subset(pairs=part.pairs):
            leave = " ".join(replace(part, pairs=()).options())
            fail(f"--update: records a whole suite, or whole pairs; leave out {leave}")
        path, removed = accept(plan, store, suite, folder, reason or "", keep_others=keep_others)
        out.print(f"recorded: {path}")
        for other in removed:
            out.print(f"removed: results of before in {other}")
    else:
        comparisons = [
            replace(comparison, accept=_accept(suite, store.root, golden, part.pairs))
            for comparison in compare(plan, store, read_golden(folder), whole=part == WHOLE)
            if comparison.kind == "statistical" or not statistical
        ]
        _print_comparisons(comparisons, as_json)
        _exit(opened, len(plan.tasks), decisive_comparison(comparisons), folder, as_json)


def _print_comparisons(comparisons: list[Comparison], as_json: bool) -> None:
    if as_json:
        print_json([asdict(comparison) for comparison in comparisons])
        return
    for comparison in comparisons:
        _print(comparison)


def _exit(opened: OpenSuite, num_tasks: int, decisive: Comparison, folder: Path, as_json: bool) -> None:
    """Exit with 1 where results differ, with 2 where they could not be compared, or not all of them."""
    if decisive.state == "differs":
        if not as_json:
            out.print(f"If the change is meant: {decisive.accept}")
        sys.exit(1)
    if decisive.state == "no golden":
        err.print(f"lthbench: {folder}: no golden results; record these by: {decisive.accept}")
        sys.exit(2)
    if missing := num_tasks - decisive.num_run:
        err.print(f"lthbench: {missing} of {num_tasks} tasks are not run; `{again('run', opened.path)}` runs them")
        sys.exit(2)


def _check_artefacts(plan: Plan, store: Store, as_json: bool) -> None:
    """Read every file of a plan's tasks; exit with 1 if one is damaged."""
    from lthbench.cli.doctor import inspect_with_progress, tell_of

    found = inspect_with_progress(store, list(plan.tasks))
    if as_json:
        faults = {key: [str(fault) for fault in faults] for key, faults in found.faults.items()}
        print_json({"tasks": found.tasks, "faults": faults, "outdated": found.outdated})
    else:
        tell_of(store, found)
        number = len(found.faults) + len(found.outdated)
        state = "as they were written" if found.is_sound else f"but {number} of them are not as they were written"
        out.print(f"artefacts: {found.tasks} of {len(plan.tasks)} tasks have a result; all files read, {state}")
    if not found.is_sound:
        sys.exit(1)


def _print_references(plan: Plan, store: Store, path: Path, as_json: bool) -> None:
    from lthbench.analysis.published import LEVEL, calibrate, read_references

    rows = calibrate(plan, store, read_references(path))
    if as_json:
        print_json([asdict(row) | {"row": row.row.model_dump(mode="json"), "source": vars(row.source)} for row in rows])
        return
    table = Table("what", "source", "published", "ours", "difference", "", title=str(path))
    for found in rows:
        row = found.row
        begun = "" if row.step == Steps() else f" from {row.step}"
        what = f"{row.pair} {row.arm}: {row.variant}{begun}, level {found.level}"
        source = row.source + ("" if found.source.peer_reviewed else " *")
        ours, difference = "", ""
        if found.our_mean is not None:
            ours = _spread(found.our_mean, found.our_deviation, found.our_n)
            difference = f"{found.low:+.2f} to {found.high:+.2f}"
        elif found.low is not None:
            ours = f"above {found.low:.0f}, at most {found.high:.0f} ({found.our_n})"
        state = found.state + (f": {found.reason}" if found.reason else "")
        table.add_row(what, source, _spread(found.mean, found.deviation, found.n), ours, difference, state)
    out.print(table)
    out.print(
        "Accuracies in percent, mean ± standard deviation (runs), with the 95 % interval of ours minus theirs; a row "
        f"differs where Welch's t test says so at {LEVEL:g} over all rows (Holm). Onsets in iterations."
    )
    for name in dict.fromkeys(found.row.source for found in rows):
        of_source = [found for found in rows if found.row.source == name]
        cited = of_source[0].source
        settings = "; ".join(dict.fromkeys(found.row.differs for found in of_source if found.row.differs))
        reviewed = "" if cited.peer_reviewed else " (* not peer reviewed)"
        out.print(f"{name}: {cited.cite}{reviewed}. Not as here: {settings or 'nothing known'}.")


def _spread(mean: float, deviation: float | None, n: int | None) -> str:
    number = f"{mean:g}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"
    return number if n is None else f"{number} ({n})"


def _accept(suite: Path, store: Path, golden: Path | None, pairs: Sequence[str]) -> str:
    words = ["lthbench", "verify", str(suite), "--store", str(store)]
    words += given("--engine")
    words += [word for pair in pairs for word in ("--pair", pair)]
    words += ["--golden", str(golden)] if golden else []
    return shlex.join([*words, "--update", "--reason"]) + " 'WHY'"


def _print(comparison: Comparison) -> None:
    out.print(f"{comparison.kind}: {comparison.state}: {comparison.reason}")
    for path in comparison.files:
        out.print(f"  with {path}")
    for name, recorded, here in comparison.environment:
        out.print(f"  {name}: recorded {recorded!r}, here {here!r}")
    if not comparison.differences:
        return
    first = comparison.differences[0]
    out.print(f"  first: {first.task} (task {first.key})")
    for difference in comparison.differences:
        if difference.key == first.key:
            out.print(f"    {_line(difference)}")
    counts: dict[str, set[str]] = {}
    for difference in comparison.differences:
        counts.setdefault(difference.what, set()).add(difference.key)
    out.print("  in all: " + ", ".join(f"{what} of {len(keys)} tasks" for what, keys in counts.items()))


def _line(difference: Difference) -> str:
    recorded, found = difference.recorded, difference.found
    if difference.what == "task":
        return "is recorded and no longer planned" if found is None else "is planned and not recorded"
    line = f"{difference.what}: recorded {recorded}, found {found}"
    if isinstance(recorded, float) and isinstance(found, float):
        line += f" ({found - recorded:+.3g})"
    if difference.tolerance is not None and difference.p is not None:
        line += f"; tolerance {difference.tolerance:.3g}, p {difference.p:.1g}"
    return line
