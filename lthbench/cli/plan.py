"""`lthbench plan`: what a suite would do, and what it costs."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from lthbench.cli.app import (
    DEFAULT_STORE,
    ArmOption,
    JsonOption,
    LevelsOption,
    OnlyOption,
    PairOption,
    ReplicatesOption,
    StoreOption,
    SuiteArgument,
    app,
    out,
    print_json,
)
from lthbench.runner.store import Store
from lthbench.suite.load import load_suite
from lthbench.suite.part import Part
from lthbench.suite.plan import make_plan


@app.command()
def plan(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    only: OnlyOption = None,
    pair: PairOption = None,
    arm: ArmOption = None,
    replicates: ReplicatesOption = None,
    levels: LevelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would do, and what of it is done."""
    from lthbench.suite.cost import plan_cost

    part = Part(tuple(only or ()), tuple(pair or ()), tuple(arm or ()), replicates, levels)
    cost = plan_cost(make_plan(load_suite(suite), part, Store(store).result), Store(store))
    if as_json:
        print_json([asdict(row) for row in cost])
        return
    table = Table("", "tasks", "done", "shared", "trainings", "image passes", "FLOPs", "disk", title=str(suite))
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
        "FLOPs count multiply and add apart. Disk: weights and masks, when all is done."
    )


def _bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:,.0f} {units[0]}" if count >= 100 else f"{count:.3g} {units[0]}"
