"""What the commands do, as functions with typed options: plan a suite, run it, read its results and verdicts.

suite = load_suite("quick", store="store")
ran = run(suite, Subset(pairs=("lenet-fashion-10k",)))
table, found = results(suite, ran.plan), verdicts(suite)
ticket = load_ticket(suite, "lenet-fashion-10k", "early", replicate=0, level=5)
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lthbench.data.own_sets import know_own_sets
from lthbench.options import Option
from lthbench.plugins import PluginOptions, load_plugins
from lthbench.runner.execution import (
    Execute,
    Local,
    Tell,
    on_slurm,
    on_this_machine,
    require_data,
    require_these_kernels,
)
from lthbench.runner.queue import Outcome
from lthbench.runner.rounds import run_in_rounds
from lthbench.runner.settings import DataFolder, RunOptions, StoreOptions, num_ranks
from lthbench.runner.watcher import Callback, Watcher
from lthbench.suite import load
from lthbench.suite.engine_choice import EngineChoice, with_engine
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.shipped import by_engine, find_suite
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.suite.subset import WHOLE, Subset
from lthbench.tasks.store import Store, StoreError
from lthbench.training.recipe import Engine

if TYPE_CHECKING:
    import pandas

    from lthbench.analysis.claims.power import ClaimPower
    from lthbench.analysis.claims.verdict import Verdict
    from lthbench.analysis.table import ResultRow
    from lthbench.runner.slurm.records import Cluster
    from lthbench.runner.slurm.submission import Submission, Submitted
    from lthbench.tasks.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class Source(StoreOptions, DataFolder, PluginOptions, EngineChoice, load.IncludeOptions):
    """A suite, where its results are, and the plugins that bring what it names."""

    suite: Annotated[
        Path, Option("A suite's file, or the name of one that ships with the package, such as quick.", metavar="SUITE")
    ]


@dataclass(frozen=True)
class OpenSuite:
    """A validated suite, its file, its results' store, references of the loaded plugins, and the engine asked for."""

    path: Path
    suite: Suite
    store: Store
    plugins: tuple[str, ...] = ()
    engine: Engine | None = None


@dataclass(frozen=True)
class Ran:
    """How a run ended: the last plan, the outcome of all rounds, and the seconds it took."""

    plan: Plan
    outcome: Outcome
    seconds: float


def load_suite(
    suite: str | Path,
    store: str | Path = "store",
    *,
    data: str | Path | None = None,
    allow_outside: bool = False,
    plugins: Sequence[str] = (),
    engine: Engine | None = None,
) -> OpenSuite:
    """Read and validate a suite, whose results go to a folder that the first `run` makes; raises as `open_suite`.

    Args:
        suite: a file, or the name of a suite that ships with the package, as `quick`.
        store: the folder of the results.
        data: the folder of the data sets, for suites that name own ones; None is LTHBENCH_DATA.
        allow_outside: let the suite include files, and name claims, that lie outside its folder and ours.
        plugins: files and modules that bring what the suite names, as `my_models.py`.
        engine: `blocked` or `torch`: what trains where it applies, in place of what the recipes name.
    """
    given: dict[str, Any] = {"store": Path(store), "data": Path(data) if data is not None else None, "engine": engine}
    source = Source(suite=Path(suite), **given, allow_outside=allow_outside, plugins=tuple(plugins))
    return open_suite(source, may_be_new=True)


def open_suite(source: Source, *, may_be_new: bool = False, tell: Tell | None = None) -> OpenSuite:
    """Read and validate a suite, and find its store; nothing is made.

    Args:
        may_be_new: a store that does not exist yet counts as one without results.
        tell: as for `Store`, which then sets damaged results aside.

    Raises:
        PluginError: as of `load_plugins`.
        SuiteError: with one line per fault of the suite.
        StoreError: as for `open_store`.
    """
    path = find_suite(source.suite)
    plugins = load_plugins(source.plugins)
    know_own_sets(source.data)
    return OpenSuite(
        path,
        with_engine(load.load_suite(path, allow_outside=source.allow_outside, store=source.store), source.engine),
        open_store(source, may_be_new=may_be_new, tell=tell),
        plugins,
        source.engine,
    )


def open_store(options: StoreOptions, *, may_be_new: bool = False, tell: Tell | None = None) -> Store:
    """The store of some results; arguments are as for `open_suite`.

    Raises:
        StoreError: there is none, it has another layout, or the folder holds something else.
    """
    store = Store(options.store, tell)
    if not (may_be_new and store.is_new()):
        store.check_layout()
    return store


def plan(opened: OpenSuite, part: Subset = WHOLE) -> Plan:
    """The plan of a suite or of a part of it, as far as it follows from the results there are.

    Raises:
        SuiteError: as for `make_plan`.
    """
    return make_plan(opened.suite, part, opened.store.result)


def run(
    opened: OpenSuite,
    part: Subset = WHOLE,
    options: RunOptions = RunOptions(),  # noqa: B008 (immutable)
    where: Local | SlurmOptions = Local(),  # noqa: B008 (immutable)
    *,
    retry_failed: bool = False,
    on_finished: Callable[[str, str], None] = lambda task, status: None,
    watching: Callable[[Plan, list[str]], contextlib.AbstractContextManager[Watcher]] | None = None,
    tell: Tell = print,
) -> Ran | None:
    """Run the missing tasks of a suite, or of a part of it, and those that follow from their results.

    Args:
        where: on this machine, or by jobs of Slurm that are waited for.
        retry_failed: whether tasks that failed before are tried again.
        on_finished: called after each task with its description, as `tiny early #0: train at level 2`, and how it
            ended, `ok`, `diverged`, `refused` or `failed`.
        watching: makes, from a plan and its missing tasks, the watcher of a round's progress; replaces `on_finished`.
        tell: called with notes for the user before the run begins.

    Returns:
        None on all ranks but 0, where torchrun or Slurm started several processes.

    Raises:
        OptionError, DeviceError: this machine cannot do what the options ask.
        DataError: a data set is not there.
        StoreError, SchedulerError: the store cannot be written; Slurm does not take the jobs.
        DeviceLostError: tasks ran in this process, and its GPU failed for good.
    """
    opened = replace(opened, store=Store(opened.store.root, tell))  # one that sets aside what is damaged
    watching = watching or (lambda plan, missing: contextlib.nullcontext(Callback(plan, on_finished)))
    options = replace(options, plugins=opened.plugins)
    first = [plan(opened, part)]  # so that its faults are reported before anything is written
    opened.store.check()
    begun = time.monotonic()
    if num_ranks() > 1:
        from lthbench.runner.process_group import join

        processes = where.processes if isinstance(where, Local) else 1
        if not join(options.settings(opened.store.root.absolute(), processes)):
            return None
        where = Local(workers=0)
    execute: Execute | None = None

    def run_round(plan: Plan, missing: list[str]) -> Outcome:
        nonlocal execute
        if execute is None:
            require_data(plan, options.data)
            if isinstance(where, Local):
                execute = on_this_machine(opened.store, options, where, retry_failed=retry_failed, tell=tell)
            else:
                execute = on_slurm(_submission(opened, part, options, where, retry_failed=retry_failed))
        with watching(plan, missing) as watcher:
            return execute(plan, missing, watcher)

    last, outcome = run_in_rounds(lambda: first.pop() if first else plan(opened, part), opened.store, run_round)
    return Ran(last, outcome, time.monotonic() - begun)


def submit(
    opened: OpenSuite,
    part: Subset,
    options: RunOptions,
    slurm: SlurmOptions,
    *,
    cluster: Cluster = "slurm",
    retry_failed: bool = False,
    tell: Tell = print,
) -> Submitted:
    """Submit the missing tasks of a suite that are in no job yet to a cluster; see `submission.submit`."""
    from lthbench.runner.slurm.scheduler import queued
    from lthbench.runner.slurm.submission import submit

    planned = plan(opened, part)
    opened.store.check()
    require_data(planned, options.data)
    require_these_kernels("cpu" if options.device == "auto" else options.device)
    queue = functools.partial(queued, tell=tell) if cluster == "slurm" else dict
    options = replace(options, plugins=opened.plugins)
    submission = _submission(opened, part, options, slurm, cluster=cluster, retry_failed=retry_failed)
    return submit(planned, submission, queue)


def _submission(opened: OpenSuite, part: Subset, run: RunOptions, slurm: SlurmOptions, **how: Any) -> Submission:
    from lthbench.runner.slurm.submission import Submission

    return Submission(
        suite=opened.path, store=opened.store, engine=opened.engine, part=part, run=run, slurm=slurm, **how
    )


def result_rows(opened: OpenSuite, planned: Plan | None = None) -> list[ResultRow]:
    """The measured numbers of a suite, or of a part of it that was planned."""
    from lthbench.analysis.table import results_table

    return results_table(planned or plan(opened), opened.store)


def results(opened: OpenSuite, planned: Plan | None = None) -> pandas.DataFrame:
    """The measured numbers of a suite, or of a part of it that was planned, one per row.

    Returns:
        The columns of `ResultRow` (pair, experiment, arm, replicate, variant, level, density, step, epoch, share,
        metric, value, key), and `is_selection` for replicates that only chose. Accuracies, errors and barriers are
        fractions, losses nats. One column per metric: `table.pivot_table("value", ["pair", "arm", "variant", "level",
        "replicate"], "metric")`.
    """
    from lthbench.analysis.table import frame

    return frame(result_rows(opened, planned))


def load_ticket(
    opened: OpenSuite, pair: str, arm: str, replicate: int, level: int, *, rewind: int = 0, device: str = "cpu"
) -> Ticket:
    """A ticket of a suite that has run: its network, masks, initial and trained weights.

    Args:
        replicate: from the suite's `first_replicate`, 0 unless it says so.
        level: how often the network was pruned; 0 is the dense network.
        rewind: the iteration whose weights the ticket starts from; 0 is the initialisation.

    Raises:
        SuiteError: the suite has no such pair, arm, replicate or ticket.
        TicketError: the ticket is not trained yet, or its training diverged; the message names task and cure.
    """
    from lthbench.suite.ticket_task import check_planned, ticket_task
    from lthbench.tasks.ticket import read_ticket

    task = ticket_task(opened.suite, pair, arm, replicate, level, rewind)
    if not opened.store.is_done(task.key):
        check_planned(plan(opened), pair, arm, task)
    return read_ticket(opened.store, task, device)


def power(opened: OpenSuite, planned: Plan | None = None) -> list[ClaimPower]:
    """What the claims of a suite can decide with its replicates; none where it names no claims.

    Args:
        planned: the plan of the whole suite; None plans a single replicate, which is enough, and faster.
    """
    if not opened.suite.claims:
        return []
    from lthbench.analysis.claims.power import power
    from lthbench.analysis.claims.spreads import Spreads

    return power(planned or make_plan(opened.suite, Subset(replicates=1)), Spreads.known(opened.path))


def verdicts(opened: OpenSuite, planned: Plan | None = None, *, tell: Tell = print) -> list[Verdict]:
    """The verdicts on the claims of a suite; none where it names no claims.

    The store records that they were seen, since looking again with more replicates is a second look (`claims.looks`).

    Args:
        planned: the plan of the whole suite, where it is known.
        tell: called with the reason where that cannot be recorded.
    """
    if not opened.suite.claims:
        return []
    from lthbench.analysis.claims.judge import level_of, verdicts
    from lthbench.analysis.claims.looks import record_looks

    found = verdicts(planned or plan(opened), opened.store, str(opened.path))
    try:
        record_looks(opened.store, found, level_of(opened.suite))
    except StoreError as error:
        tell(f"cannot record that these verdicts were shown: {error}")
    return found


def report(opened: OpenSuite, planned: Plan | None = None, *, folder: Path | None = None, figures: bool = True) -> Path:
    """Write what a suite found as a page, with tables and figures beside it; return the page.

    Args:
        planned: the plan of the whole suite, where it is known.
        folder: where it is written; None is `report_folder`.
        figures: whether each figure is also written to its own files.
    """
    from lthbench.analysis.report.svg import FORMATS
    from lthbench.analysis.report.write import write_report

    folder = folder or report_folder(opened)
    return write_report(planned or plan(opened), opened.store, folder, opened.path, FORMATS if figures else ())


def report_folder(opened: OpenSuite) -> Path:
    """The default folder of a suite's report, another for each engine."""
    return opened.store.root / "reports" / by_engine(opened.path, opened.suite.other_engine)
