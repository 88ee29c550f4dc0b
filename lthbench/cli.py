"""The command line: plan, run, status, results, data, doctor."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from lthbench.data.error import DataError
from lthbench.runner.settings import Settings
from lthbench.runner.store import Store, StoreError
from lthbench.suite.load import load_suite
from lthbench.suite.located import SuiteError
from lthbench.suite.plan import Plan, make_plan

app = typer.Typer(
    help="Lottery tickets and their distance from initialisation: run suites, read verdicts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets: list, check, download.", no_args_is_help=True)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

SuiteArgument = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite, such as suites/quick.yaml.")]
StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the results.", envvar="LTHBENCH_STORE")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data sets.", envvar="LTHBENCH_DATA")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only this experiment (may be repeated).")]
DEFAULT_STORE = Path("store")

# Into a file or a pipe tables are wider than the 80 columns that would be taken for want of a terminal.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; faults of suites, stores and data sets exit with 2, failed tasks with 1."""
    try:
        app()
    except (SuiteError, StoreError, DataError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        err.print(f"lthbench: {line}", markup=False)
    sys.exit(2)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


@app.command()
def plan(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a suite would do, and what of it is done."""
    from lthbench.suite.cost import plan_cost

    cost = plan_cost(make_plan(load_suite(suite), tuple(only or ()), Store(store).result), Store(store))
    if as_json:
        _print_json([asdict(row) for row in cost])
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


@app.command()
def run(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    data: DataOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes; 0 runs in this one. Default: a core each, or one a GPU."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a worker; other counts give other bits.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds between checkpoints within a training; changes no result.")
    ] = 60.0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Train on compiled models: faster after a minute; other bits.")
    ] = False,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run what is missing of a suite, then show its results. Running a finished suite again trains nothing."""
    from lthbench.runner.local import Outcome, run_plan

    loaded, wanted = load_suite(suite), tuple(only or ())
    target = Store(store)
    plan = make_plan(loaded, wanted, target.result)
    target.check()
    begun = time.monotonic()
    ran: set[str] = set()
    outcome = Outcome()
    settings = count = None
    while missing := [key for key in plan.tasks if not target.is_done(key, plan.kept(key))]:
        from lthbench.runner.progress import LiveProgress, PlainProgress

        if settings is None:
            chosen = _device(device)
            _check_data(plan, data)
            count = 1 if chosen.startswith("cuda") else len(os.sched_getaffinity(0))
            settings = Settings(store.absolute(), data, chosen, threads, checkpoint_every, compiled)
        assert count is not None
        try:
            with (LiveProgress if err.is_terminal else PlainProgress)(plan, missing, err) as watcher:
                outcome = run_plan(plan, settings, count if workers is None else workers, watcher)
        except KeyboardInterrupt:
            err.print(f"interrupted; nothing finished is lost: `lthbench run {suite}` goes on from here")
            sys.exit(130)
        ran.update(outcome.ran)
        if outcome.failed:
            break
        # What was learnt may have made more tasks known.
        plan = make_plan(loaded, wanted, target.result)
    seconds = time.monotonic() - begun
    if as_json:
        _print_results(plan, target, "json")
    else:
        _print_summary(plan, target)
        before = len(plan.tasks) - len(ran) - len(outcome.failed) - len(outcome.blocked)
        out.print(
            f"{len(plan.tasks)} tasks: {len(ran)} run now in {seconds:.0f} s, {before} done before. "
            f"Results: {store.absolute()}; "
            f"`lthbench results {suite} --csv` prints every number."
        )
    if outcome.failed:
        for key, error in outcome.failed.items():
            err.print(f"failed: {key} in {target.folder(key)}: {error.strip().splitlines()[-1]}", markup=False)
        err.print(
            f"{len(outcome.failed)} tasks failed, {len(outcome.blocked)} wait on them; running again tries them again"
        )
        sys.exit(1)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        _fail(f"--device {name}: is no device; give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        _fail(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; give --device cpu")
    if chosen.type not in ("cpu", "cuda"):
        _fail(f"--device {name}: only cpu and cuda are supported")
    return str(chosen)


def _check_data(plan: Plan, data: Path | None) -> None:
    from lthbench.data.load import load

    for spec in {pair.data for pair in plan.suite.pairs.values()}:
        load(spec, data)


@app.command()
def status(suite: SuiteArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show how far a suite is: tasks done, missing, failed, diverged, by pair and arm."""
    from lthbench.runner.status import suite_status

    rows = suite_status(make_plan(load_suite(suite), (), Store(store).result), Store(store))
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    table = Table("pair", "arm", "tasks", "done", "diverged", "refused", "failed", title=str(suite))
    for row in rows:
        counts = (row.tasks, row.done, row.diverged, row.refused, len(row.failures))
        table.add_row(row.pair, row.arm, *(f"{c:,}" for c in counts))
    out.print(table)
    for row in rows:
        for key, error in row.failures.items():
            out.print(f"failed: {key} in {Store(store).folder(key)}: {error.strip().splitlines()[-1]}", markup=False)


@app.command()
def results(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the measured numbers: a summary, or one row a number with --json or --csv."""
    plan = make_plan(load_suite(suite), (), Store(store).result)
    if as_json or as_csv:
        _print_results(plan, Store(store), "json" if as_json else "csv")
    else:
        _print_summary(plan, Store(store))


def _print_results(plan: Plan, store: Store, form: str) -> None:
    from lthbench.analysis.table import Row, results_table

    rows = [asdict(row) for row in results_table(plan, store)]
    if form == "json":
        _print_json(rows)
    else:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(Row.__annotations__))
        writer.writeheader()
        writer.writerows(rows)


def _print_summary(plan: Plan, store: Store) -> None:
    from lthbench.analysis.table import results_table, summarise

    summaries = summarise(results_table(plan, store))
    for pair_name, pair in plan.suite.pairs.items():
        for label, experiment in pair.experiments.items():
            shown = experiment.shown
            lines: dict[tuple[Any, ...], dict[str, str]] = {}
            for s in summaries:
                if s.pair == pair_name and s.experiment == label and s.metric in shown:
                    line = lines.setdefault((s.arm, s.variant, s.level, s.step), {})
                    line["density"] = "" if s.density is None else f"{s.density:.4f}"
                    line[s.metric] = _number(s.metric, s.interval.mean, s.interval.half_width)
                    line["n"] = str(s.interval.n)
            if not lines:
                continue
            titles = [name.replace("_", " ") for name in shown]  # words, which can be wrapped
            table = Table("arm", "what", "level", "step", "density", *titles, "n", title=f"{pair_name}: {label}")
            arm_before = None
            for (arm, variant, level, step), line in lines.items():
                if arm_before not in (None, arm):
                    table.add_section()
                arm_before = arm
                cells = [line.get(name, "") for name in ("density", *shown, "n")]
                table.add_row(
                    arm,
                    variant,
                    "" if level is None else str(level),
                    "" if step is None else str(step),
                    *cells,
                )
            out.print(table)
    out.print("Mean over n replicates, with the half width of its 95 % interval (Student's t).")


def _number(metric: str, mean: float, half_width: float | None) -> str:
    percent = metric.endswith(("accuracy", "barrier")) and "loss" not in metric
    scale, digits, unit = (100, 2, " %") if percent else (1, 3, "")
    width = "" if half_width is None else f" ± {half_width * scale:.{digits}f}"
    return f"{mean * scale:.{digits}f}{width}{unit}"


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
        _print_json([row._asdict() for row in found])


@data_app.command("list")
def data_list(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the data sets, and whether each is there."""
    from lthbench.data.commands import list_data

    _print_data(list_data(data), as_json)


@data_app.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all that are there.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read data sets in full and verify counts, shapes and checksums; exits with 1 where one is not whole."""
    from lthbench.data.commands import check_data

    _print_checked(check_data(data, names or None), as_json)


@data_app.command("download")
def data_download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `lthbench data list` names them.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch data sets into the data folder, then check them."""
    from lthbench.data.commands import download_data

    _print_checked([download_data(name, data) for name in names], as_json)


@data_app.command("prepare")
def data_prepare(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Data sets that are folders of images.")],
    data: DataOption = None,
    classes: Annotated[Path | None, typer.Option(help="A file of one class a line: another ImageNet-100.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode and resize folders of images into arrays, once; a killed preparation goes on where it was."""
    from rich.progress import Progress

    from lthbench.data.commands import prepare_data

    rows = []
    with Progress(console=err) as progress:
        for name in names:
            line = progress.add_task(name)

            def show(done: int, total: int, line: Any = line) -> None:
                progress.update(line, completed=done, total=total)

            rows.append(prepare_data(name, data, class_list=classes, workers=workers, on_progress=show))
    _print_checked(rows, as_json)


def _print_checked(rows: list[Any], as_json: bool) -> None:
    """Print data sets that were read in full; exit with 1 where one is not whole."""
    _print_data(rows, as_json)
    if any(row.problem for row in rows):
        sys.exit(1)


def _print_data(rows: list[Any], as_json: bool) -> None:
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    table = Table("data set", "there", "images", "licence", "folder")
    for row in rows:
        table.add_row(row.name, "yes" if row.present else "no", row.images, row.licence, row.path or "")
    out.print(table)
    for row in rows:
        if row.problem:
            out.print(row.problem, markup=False)


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what this installation has: versions, devices, kernels, data sets, store; exits with 1 on a problem."""
    from lthbench.runner.doctor import examine

    findings = examine(store, data)
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "", "", show_header=False)
        for finding in findings:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}[finding.level]
            table.add_row(mark, finding.what, finding.text)
        out.print(table)
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
