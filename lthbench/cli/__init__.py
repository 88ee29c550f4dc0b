"""The command line, one file per command; `app` has what they share."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import TextIO

from lthbench.cli import (
    bench,
    compare,
    data,
    doctor,
    export,
    gc,
    plan,
    report,
    results,
    run,
    schema,
    status,
    submit,
    ticket,
    verdicts,
    verify,
    watch,
)
from lthbench.cli.app import app, err, fail
from lthbench.data.error import DataError
from lthbench.options import OptionError
from lthbench.registry import PluginError
from lthbench.runner.device import DeviceError, DeviceLostError
from lthbench.runner.slurm.scheduler import SchedulerError
from lthbench.suite.calibration import CalibrationError
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.store import StoreError, TicketError

__all__ = [
    "bench",
    "compare",
    "data",
    "doctor",
    "export",
    "gc",
    "main",
    "plan",
    "report",
    "results",
    "run",
    "schema",
    "status",
    "submit",
    "ticket",
    "verdicts",
    "verify",
    "watch",
]


# Errors that users can fix; the messages say how.
_TOLD = (
    SuiteError, StoreError, SchedulerError, DataError, CalibrationError, DeviceError, DeviceLostError, OptionError,
    TicketError, PluginError,
)  # fmt: skip


def main() -> None:
    """Run the command line; faults of suites, stores, data sets and the system exit with 2, failed tasks with 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the terminal has fewer characters than names do
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _in_one_line
                app()
        finally:
            sys.stdout.flush()  # later failures could not be reported
    except _TOLD as error:
        fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")
    finally:
        _leave_what_cannot_be_written()


def _leave_what_cannot_be_written() -> None:
    """Leave nothing that Python would write at exit to a broken pipe or a full disk."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


def _in_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of lthbench in the form of its errors, and others as Python does."""
    if category.__module__.partition(".")[0] == "lthbench":
        err.print(f"lthbench: {message}")
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))
