"""`lthbench status`: how far a suite is."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from lthbench.cli.app import DEFAULT_STORE, JsonOption, StoreOption, SuiteArgument, app, out, print_json
from lthbench.runner.store import Store
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan


@app.command()
def status(suite: SuiteArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show how far a suite is: tasks done, missing, failed, diverged, by pair and arm."""
    from lthbench.runner.status import suite_status

    rows = suite_status(make_plan(load_suite(suite), result_of=Store(store).result), Store(store))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = Table("pair", "arm", "tasks", "done", "diverged", "refused", "failed", title=str(suite))
    for row in rows:
        counts = (row.tasks, row.done, row.diverged, row.refused, len(row.failures))
        table.add_row(row.pair, row.arm, *(f"{c:,}" for c in counts))
    out.print(table)
    for row in rows:
        for key, error in row.failures.items():
            out.print(f"failed: {key} in {Store(store).folder(key)}: {error.strip().splitlines()[-1]}", markup=False)
