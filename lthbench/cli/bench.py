"""`lthbench bench`: how fast this installation is."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from lthbench.api import Source
from lthbench.cli.app import JsonOption, bench_app, err, fail, out, print_json, progress_bar
from lthbench.cli.parameters import Only, with_options
from lthbench.data.own_sets import know_own_sets
from lthbench.plain import visible
from lthbench.plugins import load_plugins
from lthbench.runner.settings import MAX_PROCESSES, RunOptions
from lthbench.suite.load import load_suite
from lthbench.suite.shipped import find_suite
from lthbench.suite.subset import Subset

if TYPE_CHECKING:
    from lthbench.bench.training import Throughput


@bench_app.command("kernels")
def bench_kernels(
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=MAX_PROCESSES, help="CPU threads (may be repeated).")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each candidate.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Time the kernels against their baselines, interleaved, beside the machine's limits."""
    from lthbench.bench.kernels import kernel_rows
    from lthbench.bench.timing import table

    found = []
    for rows in kernel_rows(tuple(threads or (1, 2)), rounds):
        found += rows
        if not as_json:
            out.print(table(rows) + "\n")
    if as_json:
        print_json([row._asdict() for row in found])


@bench_app.command("engine")
def bench_engine(
    model: Annotated[
        list[str] | None, typer.Option(help="Only this network (may be repeated), of those that are timed.")
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_PROCESSES, help="CPU threads per process; results differ bitwise with their number."
        ),
    ] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each candidate.")] = 5,
    layers: Annotated[bool, typer.Option("--layers", help="Time kinds of convolutions too.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw it, too: a file that ends in .png, .svg or .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time training and evaluation against density: the blocked engine beside torch's, dense and channels last."""
    from lthbench.bench.engine_speed import DENSITIES, NETWORKS, layer_points, network_points
    from lthbench.bench.timing import threads as with_threads
    from lthbench.cli.engine_table import measured_on, print_points
    from lthbench.names import nearest

    if figure and figure.suffix not in (".png", ".svg", ".pdf"):
        fail(f"--figure {figure}: ends in none of .png, .svg and .pdf")
    for name in model or ():
        if name not in NETWORKS:
            fail(f"--model {name}: is not timed{nearest(name, NETWORKS)}; known: {', '.join(NETWORKS)}")
    found = []
    with with_threads(threads):
        works = [points for name in model or NETWORKS for points in network_points(name, DENSITIES, rounds)]
        works += list(layer_points(DENSITIES, rounds)) if layers else []
    found = [point for points in works for point in points]
    if as_json:
        print_json([asdict(point) | {"ratio": point.ratio} for point in found])
    else:
        print_points(works, threads)
    if figure:
        from lthbench.bench.density_figure import draw_densities

        draw_densities(works, measured_on(threads), figure)


@bench_app.command("training")
@with_options
def bench_training(
    source: Annotated[Source, Only("suite", "allow_outside", "plugins", "data")],
    part: Annotated[Subset, Only("pairs", "arms")],
    options: Annotated[RunOptions, Only("data", "device", "threads", "graphs")],
    curve: Annotated[int | None, typer.Option(min=10, help="Also train so many steps on the pair's images.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    precision: Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help="Instead of the recipe's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time training steps of every pair, as a share of the device's matrix products; with --curve, learn for a while.

    An arm is timed on images of noise; a curve is trained on the pair's own and judged by its validation split.
    """
    import torch

    from lthbench.bench.throughput import TrainingBench, matmul_rate
    from lthbench.bench.training import arm_throughput, check_curves, training_curve
    from lthbench.runner.device import resolve_device
    from lthbench.runner.environment import make_deterministic

    suite = find_suite(source.suite)
    load_plugins(source.plugins)
    know_own_sets(source.data)
    loaded, device = load_suite(suite, allow_outside=source.allow_outside), torch.device(resolve_device(options.device))
    part = replace(part, replicates=1)
    part.check(loaded)
    make_deterministic(options.threads)
    cells = [cell for cell in loaded.cells(count=1) if part.has_cell(cell) and not cell.is_selection]
    if curve:
        check_curves(cells, options.data)
    changes = {"batch_size": batch_size, "precision": precision}
    rows: list[Throughput] = []
    peaks: dict[str, float] = {}
    with progress_bar(transient=True) as progress:
        line = progress.add_task("", total=len(cells))
        for cell in cells:
            progress.update(line, description=visible(f"{cell.pair} {cell.arm}"))
            recipe = cell.recipe.model_copy(update={k: v for k, v in changes.items() if v is not None})
            if recipe.precision not in peaks:
                peaks[recipe.precision] = matmul_rate(recipe.precision, device)
            bench = TrainingBench(device, options.graphs, partial(_tell, f"{cell.pair} {cell.arm}"))
            row = arm_throughput(cell, recipe, peaks[recipe.precision], bench)
            if curve:
                steps = progress.add_task("  steps", total=curve)
                report = partial(_show, progress, steps)
                row = replace(row, curve=training_curve(cell, recipe, curve, options.data, bench, report=report))
                progress.remove_task(steps)
            rows.append(row)
            progress.advance(line)
    if as_json:
        print_json([asdict(row) | {"share_of_matmul": row.share_of_matmul} for row in rows])
        return
    _print_throughput(rows, peaks, str(suite))
    _print_curves(rows)


def _tell(arm: str, text: str) -> None:
    err.print(visible(f"{arm}: {text}"))


def _show(progress: Progress, line: TaskID, done: int) -> None:
    progress.update(line, completed=done)


def _print_throughput(rows: list[Throughput], peaks: dict[str, float], title: str) -> None:
    table = Table("pair", "arm", "precision", "batch", "images/s", "MFLOP an image", "of matmul", title=title)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.pair, row.arm, row.precision, str(row.batch), _count(row.images_per_second),
            _count(row.flops_per_image / 1e6), f"{row.share_of_matmul:.1%}",
        )  # fmt: skip
    out.print(table)
    measured = ", ".join(f"{name} {_count(rate / 1e9)} GFLOP/s" for name, rate in peaks.items())
    out.print(
        f"{rows[0].device}, {rows[0].threads} threads. Training steps on images of noise; FLOPs of forward and "
        f"backward pass. Matrix products: {measured}."
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _print_curves(rows: list[Throughput]) -> None:
    table = Table("pair", "arm", "steps", "batch", "training loss", "held out", "chance", "images")
    for row in rows:
        if (c := row.curve) is not None:
            table.add_row(
                row.pair, row.arm, str(c.steps), str(c.batch_size), " ".join(f"{loss:.2f}" for loss in c.losses),
                f"{c.accuracy_before:.1%} -> {c.accuracy:.1%}", f"{1 / c.num_classes:.1%}", f"{c.num_held_out:,}",
            )  # fmt: skip
    if table.row_count:
        out.print(table)
        out.print("The loss is the mean of each tenth of the steps; held out: accuracy on validation images.")
