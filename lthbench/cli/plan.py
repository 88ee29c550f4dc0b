"""`lthbench plan`: what a suite would do, what it costs, and what a budget buys of it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lthbench import api
from lthbench.api import OpenSuite, Source
from lthbench.cli import hours as hours_of
from lthbench.cli.app import JsonOption, again, app, fail, given, out, print_json
from lthbench.cli.parameters import Only, with_options
from lthbench.runner.settings import RunOptions
from lthbench.suite.schema import Suite
from lthbench.suite.subset import WHOLE, Subset

if TYPE_CHECKING:
    from lthbench.analysis.claims.power import ClaimPower
    from lthbench.suite.cost import Cost
    from lthbench.suite.devices import Device

_STYLE = {
    "yes": "green",
    "spread unknown": "yellow",
    "large effects": "yellow",
    "not measured": "dim",
    "reported only": "dim",
}


@app.command()
@with_options
def plan(
    source: Source,
    part: Subset,
    to_calibrate: Annotated[RunOptions, Only("device", "threads")],
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First time --device on the suite's pairs, a few seconds each.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Time this machine, 5 seconds in all, where its rates are not known yet.",
            envvar="LTHBENCH_MEASURE",
        ),
    ] = True,
    budget: Annotated[
        str | None, typer.Option(help="Which part of the suite fits into these hours: 200gpuh, or 48cpuh of one core.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The device that the budget is for, by part of its name.")] = None,
    only_power: Annotated[
        bool,
        typer.Option("--power", help="Only which claims the suite can decide; takes seconds, however many replicates."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would run, what is done, the hours that remain, and which claims it can decide."""
    from lthbench.suite.budget import parse_budget
    from lthbench.suite.cost import plan_cost
    from lthbench.suite.devices import Measured, choose_device, devices_of, seconds_on
    from lthbench.suite.this_machine import time_here

    hours = parse_budget(budget) if budget is not None else None
    opened = api.open_suite(source, may_be_new=True)
    part.check(opened.suite)
    if only_power:
        if part != WHOLE or hours is not None:
            fail("--power is for a whole suite; leave out the options that choose a part of it")
        _print_power(api.power(opened), as_json)
        return
    if hours is not None and part != WHOLE:
        fail(f"--budget chooses the part of the suite itself; leave out {shlex.join(part.options())}")
    pairs = {name: pair for name, pair in opened.suite.pairs.items() if not part.pairs or name in part.pairs}
    if calibrate:
        hours_of.calibrate(pairs, to_calibrate)
    label, found = hours_of.rates_here(pairs, to_calibrate, measure=measure)
    devices = devices_of(found)
    if hours is not None:
        _propose(opened, choose_device(devices, hours[1], on), hours[0], as_json)
        return
    planned = api.plan(opened, part)
    seconds = {device.label: seconds_on(device, planned) for device in devices}
    cost = plan_cost(planned, opened.store, seconds)
    mine = next((device for device in devices if isinstance(device, Measured) and device.label == label), None)
    missing = opened.store.missing({key: planned.kept(key) for key in planned.tasks})
    here = time_here(mine, planned, missing, seconds[mine.label], pairs) if mine else None
    # Verdicts are on whole suites.
    decided = api.power(opened, planned) if part == WHOLE else []
    if as_json:
        facts = {"cost": [asdict(row) for row in cost], **hours_of.hours_facts(here, devices)}
        print_json({**facts, "claims": [asdict(claim) for claim in decided]})
        return
    if here is not None:
        hours_of.print_here(here, cost, devices)
    _print_cost(cost, str(opened.path))
    hours_of.print_hours(_of_pairs(cost, opened.suite), devices)
    if decided:
        _print_power(decided)


def _of_pairs(cost: list[Cost], suite: Suite) -> list[Cost]:
    return [row for row in cost if row.name in suite.pairs or row.name == "all"]


def _propose(opened: OpenSuite, device: Device, hours: float, as_json: bool) -> None:
    from lthbench.cli.budget import budget_facts, propose_for_claims

    if opened.suite.claims:
        propose_for_claims(opened, device, hours, as_json)
        return
    from lthbench.suite import budget

    bought = budget.buy(api.plan(opened), opened.store, device, hours, str(opened.path))
    options = bought.part.options()
    if as_json:
        print_json(
            {
                **budget_facts(hours, device, budget.POLICY),
                "part": asdict(bought.part),
                "command": ["lthbench", "run", str(opened.path), *options, *given("--store", "--data", "--plugin")],
                "cost": [asdict(row) for row in bought.cost],
            }
        )
        return
    _print_cost(bought.cost, f"{opened.path}: what {hours:g} {device.unit} buy")
    hours_of.print_hours(_of_pairs(bought.cost, opened.suite), [device])
    for what, names in budget.left_out(opened.suite, bought.part).items():
        out.print(f"Left out, {what}: {', '.join(names)}.")
    out.print(f"Policy. {budget.POLICY}")
    out.print("\n" + again("run", opened.path, *options))


def _print_cost(cost: list[Cost], title: str) -> None:
    table = Table("", "tasks", "done", "shared", "trainings", "image passes", "FLOPs", "disk", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in cost:
        table.add_row(
            row.name, f"{row.tasks:,}", f"{row.done:,}", f"{row.shared:,}", f"{row.trainings:,}",
            f"{row.image_passes:.3g}", f"{row.flops:.3g}", _bytes(row.disk_bytes),
            end_section=row.is_last_of_section,
        )  # fmt: skip
    out.print(table)
    out.print(
        "shared: tasks that several experiments need. An image pass is one forward and backward pass of one image; "
        "FLOPs count multiply and add apart. Disk: weights and masks when all is done; a pruned weight "
        "takes a bit."
    )


def _print_power(decided: list[ClaimPower], as_json: bool = False) -> None:
    """A line for each claim and group of pairs with the same finding; below, each source of spreads once."""
    if as_json:
        print_json([asdict(claim) for claim in decided])
        return
    if not decided:
        out.print("The suite names no claims; write `claims: [claims]` in it for the paper's.")
        return
    table = Table("claim", "pairs", "n", "decides", "finds", "why", title="what its claims can decide")
    lines: dict[tuple[str, ...], list[str]] = {}
    sources: dict[str, int] = {}
    for one in decided:
        part = one.parts[one.weakest] if one.weakest is not None else None
        decides: str = one.decides
        finds = why = ""
        if one.decides == "no":
            decides = "only against" if one.can_contradict else "nothing"
        if part is not None and part.smallest is not None:
            finds = f"{part.smallest:.2g} {part.unit}" + (f" of {part.matters:g}" if part.matters else "")
            if part.spread.value is not None:
                finds += f" [{sources.setdefault(part.spread.source, len(sources) + 1)}]"
        if part is not None and one.decides != "yes":
            why = part.reason if one.decides in ("no", "not measured") else part.what
        lines.setdefault((one.claim, str(one.n), decides, finds, why), []).append(one.pair)
    for (claim, n, decides, finds, why), pairs in lines.items():
        about = len([one for one in decided if one.claim == claim])
        named = f"all {about}" if len(pairs) == about > 1 else ", ".join(pairs)
        table.add_row(claim, named, n, Text(decides, _STYLE.get(decides, "red")), finds, why)
    out.print(table)
    for source, number in sources.items():
        out.print(f"[{number}] spread {source}")
    out.print(
        "finds: the smallest effect of the claim's weakest test that is found with a chance of 80 %, beyond the test's "
        "bound, of what would matter; at the level that Holm's adjustment over pairs leaves the first of them. "
        "large effects: only larger ones than would matter. only against: it can be contradicted, not supported. "
        "nothing: no outcome decides it."
    )


def _bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:,.0f} {units[0]}" if count >= 100 else f"{count:.3g} {units[0]}"
