"""`lthbench plan`: what a suite would do, what it costs, and what a budget buys of it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import JsonOption, again, app, err, fail, given, out, print_json, progress_bar
from lthbench.cli.parameters import Only, with_options
from lthbench.plain import visible
from lthbench.runner.settings import RunOptions
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.subset import WHOLE, Subset
from lthbench.tasks.store import Store

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
        bool, typer.Option("--calibrate", help="First measure --device on the suite's pairs, some seconds each.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="What part of the suite these hours buy: 200gpuh, or 48cpuh of one core.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The device of the budget, by a part of its name.")] = None,
    only_power: Annotated[
        bool, typer.Option("--power", help="Only what its claims can decide: in seconds, whatever the replicates.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would do, what of it is done, how many hours the rest takes, and what its claims can decide."""
    import torch

    from lthbench.suite.budget import parse_budget
    from lthbench.suite.calibration import calibrations
    from lthbench.suite.cost import plan_cost
    from lthbench.suite.devices import NAMED, Measured

    hours = parse_budget(budget) if budget is not None else None
    opened = api.open_suite(source, may_be_new=True)
    suite, loaded, target = opened.path, opened.suite, opened.store
    part.check(loaded)
    if only_power:
        if part != WHOLE or hours is not None:
            fail("--power is told of a whole suite; leave out the options that choose a part of it")
        decided = _decided(make_plan(loaded, Subset(replicates=1)), suite)
        if as_json:
            print_json([asdict(claim) for claim in decided])
        else:
            _print_decided(decided)
        return
    if hours is not None and part != Subset():
        fail(f"--budget chooses the part of the suite itself; leave out {shlex.join(part.options())}")
    if calibrate:
        _calibrate(loaded, part, to_calibrate)
    devices: list[Device] = [*map(Measured, calibrations(torch.__version__)), *NAMED]
    chosen = _chosen(devices, hours[1], on) if hours is not None else None
    planned = api.plan(opened, part)
    if hours is not None and chosen is not None:
        _propose(suite, planned, target, chosen, hours[0], as_json)
        return
    seconds = {d.label: {k: d.seconds(t.spec, planned.work[k]) for k, t in planned.tasks.items()} for d in devices}
    cost = plan_cost(planned, target, seconds)
    # Verdicts are on whole suites.
    decided = _decided(planned, suite) if part == WHOLE else []
    if as_json:
        print_json({"cost": [asdict(row) for row in cost], "claims": [asdict(claim) for claim in decided]})
        return
    _print_cost(cost, str(suite))
    _print_hours([row for row in cost if row.name in loaded.pairs or row.name == "all"], devices)
    if decided:
        _print_decided(decided)


def _decided(planned: Plan, suite: Path) -> list[ClaimPower]:
    if not planned.suite.claims:
        return []
    from lthbench.analysis.claims.power import power
    from lthbench.analysis.claims.spreads import Spreads

    return power(planned, Spreads.known(suite))


def _calibrate(suite: Suite, part: Subset, options: RunOptions) -> None:
    import torch

    from lthbench.bench.throughput import calibrate
    from lthbench.runner.environment import make_deterministic, resolve_device
    from lthbench.suite.calibration import save_calibration

    chosen = torch.device(resolve_device(options.device))
    make_deterministic(options.threads)
    pairs = {name: pair for name, pair in suite.pairs.items() if not part.pairs or name in part.pairs}
    with progress_bar() as progress:
        line = progress.add_task("calibrating", total=len(pairs))
        for name, found in zip(pairs, calibrate(pairs.values(), chosen, options.threads), strict=True):
            path = save_calibration(found)  # after each pair, so that an interruption loses one
            progress.update(line, advance=1, description=visible(f"calibrated {name}"))
    err.print(f"the calibration is in {path}")


def _chosen(devices: list[Device], unit: str, name: str | None) -> Device:
    """The device of a budget: the named one, or the first that was measured."""
    of_unit = [d for d in devices if d.unit == unit]
    if name is not None:
        named = [d for d in of_unit if name.lower() in d.label.lower()]
        if not named:
            fail(f"--on {name}: no device with hours in {unit} is called so; known: {_labels(of_unit)}")
        return named[0]
    measured = [d for d in of_unit if d.is_measured]
    if not measured and unit == "cpuh":
        fail("no processor was measured for this version of torch; run `lthbench plan SUITE --calibrate --device cpu`")
    if not measured:
        fail(
            f"no GPU was measured for this version of torch; run `lthbench plan SUITE --calibrate` on one, "
            f"or name one to calculate with: --on NAME of {_labels(of_unit)}"
        )
    return measured[0]


def _labels(devices: list[Device]) -> str:
    return ", ".join(f"'{d.label}'" for d in devices) or "none"


def _propose(suite: Path, planned: Plan, store: Store, device: Device, hours: float, as_json: bool) -> None:
    from lthbench.suite import budget
    from lthbench.suite.cost import plan_cost

    seconds = {key: device.seconds(task.spec, planned.work[key]) for key, task in planned.tasks.items()}
    if unknown := sorted({planned.cells[key].pair for key, value in seconds.items() if value is None}):
        fail(f"{device.label} was not measured on {', '.join(unknown)}; run `lthbench plan {suite} --calibrate`")
    missing = set(store.missing({key: planned.kept(key) for key in planned.tasks}))
    left = {key: float(s or 0) if key in missing else 0.0 for key, s in seconds.items()}
    proposal = budget.propose(planned, left, hours * 3600 / device.units)
    if proposal.part is None:
        fail(
            f"{hours:g} {device.unit} of {device.label} buy no part of {suite}: one replicate of its cheapest pair "
            f"with two arms up to level 1 takes {_hours(proposal.seconds / 3600 * device.units)}"
        )
    options = proposal.part.options()
    # Planned anew, so that what is told is what these options do.
    bought = make_plan(planned.suite, proposal.part, store.result)
    cost = plan_cost(bought, store, {device.label: seconds})
    if as_json:
        print_json(
            {
                "budget_hours": hours,
                "unit": device.unit,
                "device": device.label,
                "source": device.source,
                "policy": budget.POLICY,
                "part": asdict(proposal.part),
                "command": ["lthbench", "run", str(suite), *options, *given("--store", "--data")],
                "cost": [asdict(row) for row in cost],
            }
        )
        return
    _print_cost(cost, f"{suite}: what {hours:g} {device.unit} buy")
    _print_hours([row for row in cost if row.name in planned.suite.pairs or row.name == "all"], [device])
    for what, names in budget.left_out(planned.suite, proposal.part).items():
        out.print(f"Left out, {what}: {', '.join(names)}.")
    out.print(f"Policy. {budget.POLICY}")
    out.print("\n" + again("run", suite, *options))


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


def _print_hours(cost: list[Cost], devices: list[Device]) -> None:
    table = Table("", title="hours of one device for what is not done yet")
    for device in devices:
        table.add_column(f"{device.label}\n{'measured' if device.is_measured else 'calculated'}", justify="right")
    for row in cost:
        table.add_row(row.name, *(_hours(row.hours[device.label]) for device in devices))
    out.print(table)
    for device in devices:
        out.print(f"{device.label}: {device.source}.")
    if not any(device.is_measured for device in devices):
        out.print("None of them was measured; `--calibrate` measures this machine's.")
    out.print(
        "Measurement, writing and starting tasks are left out; experiments that choose tasks by results (onset, "
        "regulariser) count as far as they are known."
        + (" Hours of a GPU are those of one worker on it." if any(d.unit == "gpuh" for d in devices) else "")
    )


def _print_decided(decided: list[ClaimPower]) -> None:
    """A line for each claim and what of it the pairs have in common; the sources of spreads below, each once."""
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


def _hours(hours: float | None) -> str:
    if hours is None:
        return "not measured"
    if hours < 1:
        return f"{60 * hours:.2g} min" if hours * 60 >= 1 else f"{3600 * hours:.2g} s"
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.3g} h"


def _bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:,.0f} {units[0]}" if count >= 100 else f"{count:.3g} {units[0]}"
