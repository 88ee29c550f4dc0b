"""`lthbench data`: list, check, download, prepare, add."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from lthbench.cli.app import JsonOption, data_app, out, print_json, progress_bar
from lthbench.cli.parameters import Only, with_options
from lthbench.runner.settings import MAX_PROCESSES, RunOptions

DataFolder = Annotated[RunOptions, Only("data")]


@data_app.command("list")
@with_options
def data_list(where: DataFolder, as_json: JsonOption = False) -> None:
    """List the data sets, and whether each is there."""
    from lthbench.data.commands import list_data

    _print_data(list_data(where.data), as_json)


@data_app.command("check")
@with_options
def data_check(
    where: DataFolder,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all that are there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read data sets in full and verify counts, shapes and checksums; exits with 1 where one is not whole."""
    from lthbench.data.commands import check_data

    _print_checked(check_data(where.data, names or None), as_json)


@data_app.command("download")
@with_options
def data_download(
    where: DataFolder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `lthbench data list` names them.")],
    as_json: JsonOption = False,
) -> None:
    """Fetch data sets into the data folder, then check them."""
    from lthbench.data.commands import download_data

    _print_checked([download_data(name, where.data) for name in names], as_json)


@data_app.command("prepare")
@with_options
def data_prepare(
    where: DataFolder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Data sets that are folders of images.")],
    classes: Annotated[Path | None, typer.Option(help="A file of one class per line: another ImageNet-100.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Threads; default: 1 per core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode and resize folders of images into arrays, once; a killed preparation goes on where it was."""
    from lthbench.data.commands import prepare_data

    rows = []
    with progress_bar() as progress:
        for name in names:
            line = progress.add_task(name)

            def show(done: int, total: int, line: Any = line) -> None:
                progress.update(line, completed=done, total=total)

            rows.append(prepare_data(name, where.data, class_list=classes, workers=workers, on_progress=show))
    _print_checked(rows, as_json)


@data_app.command("add")
@with_options
def data_add(
    where: DataFolder,
    name: Annotated[str, typer.Argument(help="By which suites will name it.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Images in one folder per class, below train and test (or val), or in one split to divide."),
    ] = None,
    arrays: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IMAGES LABELS", help="Two .npy files: uint8 [N, H, W] or of 1 or 3 channels; [N]."),
    ] = None,
    test_arrays: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="IMAGES LABELS", help="Likewise, of the test split.")
    ] = None,
    torchvision: Annotated[
        str | None, typer.Option(help="A set whose files are in --data: svhn, kmnist, emnist, stl10 or food101.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=4, max=1024, help="Resize a folder's images: pixels of the shorter edge.")
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Store a folder's images grey.")] = False,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Of each class, where no test split is given.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="By which that share is drawn.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Threads; default: 1 per core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a data set of your own, once, so that suites can name it; a killed preparation goes on where it was."""
    from lthbench.data.commands import add_data
    from lthbench.data.own_sources import Division, Wanted

    wanted = Wanted(folder, arrays, test_arrays, torchvision, size, grey, Division(test_share, seed))
    with progress_bar() as progress:
        line = progress.add_task(name)
        show = lambda done, total: progress.update(line, completed=done, total=total)  # noqa: E731
        row = add_data(name, where.data, wanted, workers=workers, on_progress=show)
    _print_checked([row], as_json)
    if not as_json:
        from lthbench.data.datasets import DATASETS

        info = DATASETS[name]
        out.print(f"mean {info.mean}, deviation {info.std}, content {info.digest}; from {info.origin}")
        out.print(f"A suite names it by `data: {{name: {name}}}`, and is run with --data {where.data or 'DIR'}.")


def _print_checked(rows: list[Any], as_json: bool) -> None:
    """Print data sets that were read in full; exit with 1 where one is not whole."""
    _print_data(rows, as_json)
    if any(row.problem for row in rows):
        sys.exit(1)


def _print_data(rows: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    from lthbench.data.folder import told

    table = Table("data set", "there", "images", "licence", Column("folder", overflow="fold"))
    for row in rows:
        table.add_row(row.name, "yes" if row.present else "no", row.images, row.licence, row.path or "")
    out.print(table)
    for row in rows:
        if row.skipped:
            out.print(f"{row.name}: its preparation skipped {told(row.skipped)}")
        if row.problem:
            out.print(row.problem)
