"""How `lthbench bench engine` prints what it measured: times by density, the dense line, and where they cross."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from rich.table import Table

from lthbench.cli.app import out
from lthbench.machine import processor_name

if TYPE_CHECKING:
    from lthbench.bench.engine_speed import EnginePoint


def print_points(works: Sequence[Sequence[EnginePoint]], threads: int) -> None:
    """Print a table with one row per network or layer, and work; `works` are of one each, densities descending."""
    from lthbench.bench.engine_speed import crossover

    densities = [point.density for point in max(works, key=len)]
    heads = [f"{density:g}" for density in densities]
    table = Table("", "work", "batch", "torch, ms", *heads, "faster under", title="blocked engine, ms (ratio)")
    for column in table.columns[2:]:
        column.justify = "right"
    for points in works:
        by_density = {point.density: point for point in points}
        cells = [_cell(by_density[density]) if density in by_density else "" for density in densities]
        first, below = points[0], crossover(points)
        where = "never" if below is None else "always" if below == 1 else f"{below:.2f}"
        table.add_row(first.network, first.work, str(first.batch), f"{first.torch_ms:.3g}", *cells, where)
    out.print(table)
    out.print(
        f"{measured_on(threads)}: medians, interleaved, on images of noise. torch: the dense masked computation, "
        "channels last, whatever the density. Ratio: torch's time by that of the blocked engine at a density."
    )


def measured_on(threads: int) -> str:
    """Processor, instruction set, threads and torch, in words."""
    counted = f"{threads} {'thread' if threads == 1 else 'threads'}"
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, {counted}, torch {torch.__version__}"


def _cell(point: EnginePoint) -> str:
    if point.ratio is None:
        return "-"
    return f"{point.blocked_ms:.3g} ({point.ratio:.2f})"
