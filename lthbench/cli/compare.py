"""`lthbench compare`: two stores, or two arms or pairs of one."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from lthbench import api
from lthbench.api import OpenSuite, Source
from lthbench.cli.app import JsonOption, app, err, fail, out, print_json
from lthbench.cli.own import Own
from lthbench.cli.parameters import with_options
from lthbench.names import unknown
from lthbench.runner.settings import StoreOptions

if TYPE_CHECKING:
    from lthbench.analysis.quantity import Quantity
    from lthbench.analysis.side_by_side import SideBySide
    from lthbench.analysis.two_stores import TwoStores

Two = tuple[str, str]


@app.command()
@with_options
def compare(
    own: Own,
    stores: Annotated[list[Path], typer.Argument(metavar="STORE_A [STORE_B]", help="Two stores, or one.")],
    suite: Annotated[
        Path | None, typer.Option(help="Compare the results that this suite needs, also by the statistical test.")
    ] = None,
    arms: Annotated[
        Two | None, typer.Option(metavar="A B", help="Compare two arms of one store; needs --suite.")
    ] = None,
    pairs: Annotated[
        Two | None, typer.Option(metavar="P Q", help="Compare two pairs of one store; needs --suite.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="With --arms or --pairs: this metric instead of those of summaries (repeatable)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the results of two stores, or of two arms or two pairs of one.

    Two stores: bit for bit, with --suite by the test of `verify` too; the first task that differs is shown. Exits with
    1 where they differ: by bits in equal environments (and without --suite), else by the test; with 2 where they agree
    and one has done more than the other.

    \b
    lthbench compare STORE_A STORE_B --suite quick
    lthbench compare STORE --suite quick --arms early late

    Two arms or pairs: the mean of A, of B, and of A minus B over replicates, with its 95 % interval (Student's t of the
    differences by replicate, each for itself).
    """
    own.know()
    if len(stores) == 2:
        if arms or pairs or metric:
            fail("--arms, --pairs, --metric: compare within one store; give one store, or leave them out")
        source = Source(suite=suite, store=stores[0], **vars(own)) if suite else None
        _compare_stores(stores[0], stores[1], source, as_json)
        return
    if len(stores) != 1 or suite is None or (arms is None) == (pairs is None):
        fail("compare: give two stores, or one with --suite and either --arms A B or --pairs P Q")
    opened = api.open_suite(Source(suite=suite, store=stores[0], **vars(own)))
    _compare_within(opened, arms, pairs, metric or [], as_json)


def _compare_stores(a: Path, b: Path, source: Source | None, as_json: bool) -> None:
    from lthbench.analysis.two_stores import compare_stores

    first, second = (api.open_store(StoreOptions(store=store)) for store in (a, b))
    plan = api.plan(api.open_suite(source)) if source is not None else None
    found = compare_stores(first, second, plan)
    alone = [(a, found.only_a), (b, found.only_b)]
    if as_json:
        print_json(asdict(found) | {"differ": found.differ})
    else:
        _print_stores(found, a, b, plan is not None)
    if found.differ:
        sys.exit(1)
    if not found.num_common:
        err.print(f"lthbench: {a} and {b} have no task in common that both have done; nothing was compared")
        sys.exit(2)
    if any(keys for _, keys in alone):
        told = " and ".join(f"{len(keys):,} in {store}" for store, keys in alone if keys)
        err.print(f"lthbench: done in one store alone: {told}; `lthbench run` makes them in the other")
        sys.exit(2)


def _print_stores(found: TwoStores, a: Path, b: Path, by_test: bool) -> None:
    differing = {difference.key for difference in found.differences}
    out.print(f"bitwise: {found.num_common - len(differing):,} of {found.num_common:,} tasks that both have done agree")
    for name, before, now in found.environment:
        out.print(f"  {name}: A {before!r}, B {now!r}")
    if found.differences:
        first = found.differences[0]
        out.print(f"  first: {first.task} (task {first.key})")
        out.print(f"    A: {a / 'tasks' / first.key[:2] / first.key}")
        out.print(f"    B: {b / 'tasks' / first.key[:2] / first.key}")
        for difference in found.differences:
            if difference.key == first.key:
                out.print(f"    {difference.what}: A {_short(difference.recorded)}, B {_short(difference.found)}")
    if found.statistical is not None:
        out.print(f"statistical: {found.statistical.state}: {found.statistical.reason}")
        for difference in found.statistical.differences[:1]:
            values = f"A {_short(difference.recorded)}, B {_short(difference.found)}"
            tested = "" if difference.p is None else f"; p {difference.p:.1g}"
            out.print(f"  first: {difference.task}: {difference.what}: {values}{tested}")
    if found.environment and found.statistical is not None and not found.statistical.num_tests:
        out.print("The test can say nothing of single replicates; the bits decide.")
    if found.environment and not by_test:
        out.print(
            "What decides bits differs between the stores, so that bits may: --suite SUITE compares by a test as well."
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _compare_within(opened: OpenSuite, arms: Two | None, pairs: Two | None, metrics: list[str], as_json: bool) -> None:
    from lthbench.analysis.side_by_side import arms_side_by_side, pairs_side_by_side

    suite, (a, b) = opened.suite, arms or pairs or ("", "")
    kind = "arm" if arms else "pair"
    known = suite.pairs if pairs else {name: None for pair in suite.pairs.values() for name in pair.arms}
    for name in (a, b):
        if name not in known:
            fail(f"--{kind}s: {unknown(kind, name, known)}")
    rows = api.result_rows(opened)
    if not rows:
        fail(f"{opened.store.root}: has no results of {opened.path}; `lthbench run` makes them")
    found = (arms_side_by_side if arms else pairs_side_by_side)(rows, a, b)
    measured = dict.fromkeys(each.metric for each in found)
    for name in metrics:
        if name not in measured:
            fail(f"--metric: {unknown('metric that both have', name, measured)}")
    shown = {label: e.shown for pair in suite.pairs.values() for label, e in pair.experiments.items()}
    found = [each for each in found if each.metric in (metrics or shown[each.experiment])]
    if not found:
        fail(f"--{kind}s {shlex.join((a, b))}: no replicate has both of them measured at one point")
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        _print_side_by_side(found, a, b)


def _print_side_by_side(found: list[SideBySide], a: str, b: str) -> None:
    from lthbench.analysis.quantity import quantity

    of = lambda each: (each.where, each.experiment)  # noqa: E731
    order = {point: i for i, point in enumerate(dict.fromkeys(map(of, found)))}
    for (where, experiment), group in groupby(sorted(found, key=lambda each: order[of(each)]), key=of):
        table = Table(
            Column("what", overflow="fold"), "level", "density", "metric", a, b, f"{a} - {b}", "95 %", "n",
            title=f"{where}: {experiment}",
        )  # fmt: skip
        for each in sorted(group, key=lambda each: -1 if each.level is None else each.level):
            q = quantity(each.metric)
            interval = (
                "" if each.low is None or each.high is None else f"{_signed(q, each.low)} to {_signed(q, each.high)}"
            )
            at = f" at {100 * each.share:.3g} %" if each.share else ""
            table.add_row(
                each.variant + at,
                "" if each.level is None else str(each.level),
                " / ".join(dict.fromkeys(f"{d:.4f}" for d in each.density if d is not None)),
                q.label + (f", {q.unit}" if q.unit else ""),
                q.number(each.mean_a),
                q.number(each.mean_b),
                _signed(q, each.effect),
                interval,
                str(each.n),
            )
        out.print(table)
    out.print(
        f"Means over n replicates, and of {a} minus {b} by replicate, with the 95 % interval of each by itself "
        "(Student's t; none where they do not vary, or n is 1). Percentages after a variant are of training."
    )


def _signed(q: Quantity, value: float) -> str:
    number = q.number(value)
    return number if number.startswith("-") else f"+{number}"
