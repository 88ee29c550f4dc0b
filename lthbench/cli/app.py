"""What all commands share: the application, its options, where it prints, how it fails."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from lthbench.cli.fit import fitted
from lthbench.plain import PlainConsole


class _Commands(TyperGroup):
    """All commands; a broken pipe is an error like others (PlainConsole.on_broken_pipe)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OSError("Broken pipe") from error


app = typer.Typer(
    cls=_Commands,
    help="Lottery tickets and their distance from initialisation: run suites, read verdicts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets: list, check, download, prepare, add your own.", no_args_is_help=True)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


def _print_version(wanted: bool) -> None:
    """Print the versions that results depend on, and which kernels are compiled from which sources; then exit."""
    if not wanted:
        return
    import platform

    import torch

    from lthbench import __version__
    from lthbench.ops._library import build_info, built_from

    state, built = build_info(), built_from()
    parts = [f"{part} {built.get(part) or state[part]}" for part in ("cpu", "cuda")]
    out.print(f"lthbench {__version__}, Python {platform.python_version()}, torch {torch.__version__}")
    out.print(f"kernels: {', '.join(parts)}; used: {state['selected']}")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and kernels.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command."""


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Try failed tasks again.")]


class _FittingConsole(PlainConsole):
    """A console that prints tables so that they fit, and breaks lines between words where it is a terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(fitted(one, self) if isinstance(one, Table) else one for one in objects), **options)


# Without a terminal rich would assume 80 columns; tables in files and pipes are wider.
out = _FittingConsole(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120)
err = _FittingConsole(stderr=True, soft_wrap=not sys.stderr.isatty())


def fail(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # if stderr cannot be written
        for line in message.splitlines():
            err.print(f"lthbench: {line}")
    sys.exit(2)


def progress_bar(*, transient: bool = False) -> Progress:
    """A bar on stderr, whose descriptions are plain text."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err, transient=transient)


def again(command: str, suite: Path, *words: str) -> str:
    """A command to propose, with the folders given to this one, so that it refers to the same ones."""
    options = ("--store", "--data", "--plugin", "--engine") if command != "cancel" else ("--store",)
    outside = ["--allow-outside"] if "--allow-outside" in sys.argv and command != "cancel" else []
    return shlex.join(["lthbench", command, str(suite), *words, *given(*options), *outside])


def given(*options: str) -> list[str]:
    """Those of some options that are given on this command line, with their values."""
    found, words = [], sys.argv[1:]
    for position, word in enumerate(words):
        name, equals, _ = word.partition("=")
        if name in options:
            found += [word] if equals else words[position : position + 2]
    return found


def print_json(value: Any) -> None:
    """Print JSON, with null for numbers that are not finite, since JSON has none."""
    sys.stdout.write(json.dumps(_finite(value), indent=1, default=str, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
