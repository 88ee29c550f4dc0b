"""`lthbench export`: a suite's trainings for TensorBoard or MLflow, during a run or after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import app, fail, out
from lthbench.cli.parameters import with_options
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store

export_app = typer.Typer(help="Export a suite's trainings to experiment trackers.", no_args_is_help=True)
app.add_typer(export_app, name="export")


@export_app.command()
@with_options
def tensorboard(
    source: Source, folder: Annotated[Path, typer.Option("--out", help="Folder for the event files.")]
) -> None:
    """Write TensorBoard event files of what is done; running it again adds what is new."""
    new = tensorboard_exporter()(*_plan(source), folder)
    out.print(f"{new:,} new trainings in {folder}: tensorboard --logdir {folder}")


@export_app.command()
@with_options
def mlflow(
    source: Source,
    where: Annotated[str, typer.Option("--out", help="Folder, or the URI of a tracking server or data base.")],
) -> None:
    """Log what is done to MLflow, one run per training; running it again adds what is new."""
    try:
        from lthbench.analysis.export.mlflow import MlflowException, export_mlflow
    except ModuleNotFoundError as error:
        _missing(error, "mlflow")
    except RuntimeError as error:  # of pathlib, in MLflow's own files
        fail(f"MLflow does not load: {error} Set HOME to a folder")
    uri = where if ":" in where else Path(where).absolute().as_uri()
    planned = _plan(source)
    try:
        new = export_mlflow(*planned, uri)
    except MlflowException as error:
        fail(f"--out {where}: MLflow does not take it: {' '.join(str(error).split())}")
    how = "MLFLOW_ALLOW_FILE_STORE=true mlflow ui" if uri.startswith("file:") else "mlflow ui"
    out.print(f"{new:,} new runs in {where}: {how} --backend-store-uri {uri}")


def tensorboard_exporter() -> Callable[[Plan, Store, Path], int]:
    """The function that writes event files of a plan's trainings; exits if TensorBoard is not installed."""
    try:
        from lthbench.analysis.export.tensorboard import export_tensorboard
    except ModuleNotFoundError as error:
        _missing(error, "tensorboard")
    return export_tensorboard


def _plan(source: Source) -> tuple[Plan, Store]:
    opened = api.open_suite(source)
    return api.plan(opened), opened.store


def _missing(error: ModuleNotFoundError, extra: str) -> NoReturn:
    fail(f"{error.name} is not installed; pip install 'lthbench[{extra}]' brings it")
