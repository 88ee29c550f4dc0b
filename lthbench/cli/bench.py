"""`lthbench bench`: how fast this installation is."""

from __future__ import annotations

from typing import Annotated

import typer

from lthbench.cli.app import JsonOption, bench_app, out, print_json


@bench_app.command("kernels")
def bench_kernels(
    threads: Annotated[list[int] | None, typer.Option(min=1, help="CPU threads (may be repeated).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each candidate.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Time the kernels against their baselines, interleaved, beside the machine's limits."""
    from lthbench.ops.bench import table
    from lthbench.runner.bench import kernel_rows

    found = []
    for rows in kernel_rows(tuple(threads or (1, 2)), rounds):
        found += rows
        if not as_json:
            out.print(table(rows) + "\n", markup=False)
    if as_json:
        print_json([row._asdict() for row in found])
