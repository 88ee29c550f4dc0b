"""What all commands share: the application, its options, where it prints, how it fails."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from lthbench.plain import PlainConsole
from lthbench.runner.store import Store
from lthbench.suite.shipped import find_suite

if TYPE_CHECKING:
    from lthbench.suite.plan import Plan


class _Commands(TyperGroup):
    """All commands; a pipe that nobody reads is an error like others (PlainConsole.on_broken_pipe)."""

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
data_app = typer.Typer(help="The data sets: list, check, download.", no_args_is_help=True)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


def _print_version(wanted: bool) -> None:
    """Print the versions that results depend on, and what is compiled, from which sources; then end."""
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
    """What stands before a command."""


MAX_PROCESSES = 1024  # of threads, too: more is a slip, and would take a machine down
SuiteArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SUITE",
        help="A suite's file, or the name of one that ships with the package, such as quick.",
        callback=find_suite,
    ),
]
StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the results.", envvar="LTHBENCH_STORE")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data sets.", envvar="LTHBENCH_DATA")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only this experiment (may be repeated).")]
PairOption = Annotated[list[str] | None, typer.Option("--pair", help="Only this pair (may be repeated).")]
ArmOption = Annotated[list[str] | None, typer.Option("--arm", help="Only this arm (may be repeated).")]
ReplicatesOption = Annotated[int | None, typer.Option("--replicates", min=1, help="Only the first so many.")]
LevelsOption = Annotated[int | None, typer.Option("--levels", min=0, help="Measure nothing above this pruning level.")]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=1, max=MAX_PROCESSES, help="CPU threads a process; other counts, other bits.")
]
StallOption = Annotated[
    float,
    typer.Option(
        "--stall-timeout",
        min=0,
        help="Seconds without progress after which a worker is ended and its task tried once more; 0 only tells.",
    ),
]
GraphsOption = Annotated[
    bool, typer.Option("--graphs/--no-graphs", help="On a GPU, launch recorded training steps; the same bits, faster.")
]
OutsideOption = Annotated[
    bool,
    typer.Option(
        "--allow-outside", help="Let the suite include files, and name claims, that lie outside its folder and ours."
    ),
]
DEFAULT_STORE = Path("store")

# Into a file or a pipe tables are wider than the 80 columns that would be taken for want of a terminal.
out = PlainConsole(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = PlainConsole(stderr=True, soft_wrap=True)


def fail(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # of an error output that takes nothing
        for line in message.splitlines():
            err.print(f"lthbench: {line}")
    sys.exit(2)


def open_store(root: Path, *, may_be_new: bool = False, tell: Callable[[str], None] | None = None) -> Store:
    """The store that a command reads; nothing is made.

    Args:
        may_be_new: where a store is still to be made, it is taken for one without results.
        tell: as of `Store`; for commands that run what is missing.

    Raises:
        StoreError: there is none, or one of another layout, or something else is in the folder.
    """
    store = Store(root, tell)
    if not (may_be_new and store.is_new()):
        store.check_layout()
    return store


def progress_bar(*, transient: bool = False) -> Progress:
    """A bar on stderr, whose descriptions are plain text."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err, transient=transient)


def again(command: str, suite: Path, *words: str) -> str:
    """A command to propose: with the folders that this one was told of, so that it means the same."""
    options = ("--store", "--data") if command in ("run", "submit") else ("--store",)
    outside = ["--allow-outside"] if "--allow-outside" in sys.argv else []
    return shlex.join(["lthbench", command, str(suite), *words, *given(*options), *outside])


def given(*options: str) -> list[str]:
    """Those of some options that stand on this command line, with their values."""
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


def chosen_device(name: str) -> str:
    """The device that --device names, or the end of this command with what this machine has."""
    import torch

    from lthbench.runner.environment import DeviceError, device_here

    if name == "auto":
        try:
            return device_here(name)
        except DeviceError as error:
            fail(str(error))
    try:
        chosen = torch.device(name)
    except RuntimeError:
        fail(f"--device {name}: is no device; give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        fail(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; give --device cpu")
    if chosen.type not in ("cpu", "cuda"):
        fail(f"--device {name}: only cpu and cuda are supported")
    return str(chosen)


def check_data(plan: Plan, data: Path | None) -> None:
    """Read the data sets of a plan, so that one that is missing is told of before anything is trained or queued."""
    from lthbench.data.load import load
    from lthbench.tasks.spec import MaskSpec

    # Of the tasks, not of the suite's pairs: a part needs less, a transfer more.
    for spec in {task.spec.data for task in plan.tasks.values() if not isinstance(task.spec, MaskSpec)}:
        load(spec, data)
