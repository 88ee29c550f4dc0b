"""`lthbench run`: the missing tasks of a suite, on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lthbench import api
from lthbench.analysis.points import ended_at_chance
from lthbench.api import OpenSuite, Ran, Source
from lthbench.cli.app import JsonOption, RetryOption, again, app, err, out, print_json
from lthbench.cli.export import tensorboard_exporter
from lthbench.cli.growing import Growing
from lthbench.cli.headlines import print_headlines
from lthbench.cli.parameters import with_options
from lthbench.cli.submit import Profile, slurm_options
from lthbench.cli.verdicts import print_short_verdicts, tell_what_computed
from lthbench.runner.execution import Local
from lthbench.runner.queue import last_line
from lthbench.runner.settings import RunOptions
from lthbench.suite.plan import Plan
from lthbench.suite.subset import WHOLE, Subset
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store

if TYPE_CHECKING:
    from lthbench.runner.progress import RunProgress


class Executor(str, Enum):
    """Where tasks run: in worker processes, in this process, or in jobs of a cluster."""

    local = "local"
    debug = "debug"
    slurm = "slurm"


@app.command()
@with_options
def run(
    source: Source,
    part: Subset,
    options: RunOptions,
    here: Local,
    slurm: Profile,
    executor: Annotated[
        Executor, typer.Option(help="local: worker processes; debug: this one; slurm: jobs, as by submit, and wait.")
    ] = Executor.local,
    retry_failed: RetryOption = False,
    as_json: JsonOption = False,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report at the end.", envvar="LTHBENCH_REPORT")
    ] = True,
    tensorboard: Annotated[
        Path | None, typer.Option(help="At the end, write the trainings' TensorBoard event files into this folder.")
    ] = None,
) -> None:
    """Run a suite's missing tasks, then show its results. Running a finished suite again trains nothing."""
    export = tensorboard_exporter() if tensorboard is not None else None
    opened = api.open_suite(source, may_be_new=True, tell=err.print)
    where = slurm_options(opened.suite, slurm) if executor is Executor.slurm else here
    if executor is Executor.debug:
        where = replace(here, workers=0)
    rounds = _Rounds(opened, err if as_json or err.is_terminal else out, with_report)
    try:
        ran = api.run(opened, part, options, where, retry_failed=retry_failed, watching=rounds.watch, tell=err.print)
    except KeyboardInterrupt:
        if not rounds.begun:
            raise
        jobs = f"; jobs that are queued stay: `{again('cancel', opened.path)}` cancels them"
        err.print(
            f"interrupted; nothing finished is lost: `{shlex.join(['lthbench', *sys.argv[1:]])}` goes on from here"
            + (jobs if executor is Executor.slurm else "")
        )
        sys.exit(130)
    finally:
        rounds.growing.end()
    if ran is None:
        return
    if export is not None and tensorboard is not None:
        export(ran.plan, opened.store, tensorboard)
    all_diverged = _tell_troubles(ran.plan, opened.store, err if as_json else out)
    if as_json:
        print_json([asdict(row) for row in api.result_rows(opened, ran.plan)])
    else:
        _print_results(opened, ran, part, with_report)
    _exit(opened, ran, {reason for progress in rounds.begun for reason in progress.reasons}, all_diverged)


class _Rounds:
    """What is shown while a run goes on: each round's progress, the first tickets, and the growing report."""

    def __init__(self, opened: OpenSuite, console: Console, with_report: bool) -> None:
        from lthbench.runner.pace import Pace

        self.opened, self.with_report, self.pace = opened, with_report, Pace()
        self.begun: list[RunProgress] = []
        self.growing = Growing(
            (lambda: api.report(opened, figures=False)) if with_report else None,
            lambda plan, pair: print_headlines(
                opened.suite, api.result_rows(opened, plan), [pair], console, so_far=True
            ),
        )

    def watch(self, plan: Plan, missing: list[str]) -> RunProgress:
        """The watcher of a round that begins now."""
        from lthbench.runner.progress import LiveProgress, PlainProgress

        if not self.begun and self.with_report:
            from lthbench.analysis.report.write import PAGE

            err.print(f"The report grows while this runs: {api.report_folder(self.opened) / PAGE}")
        self.growing.begin(plan, missing)
        kind, number = LiveProgress if err.is_terminal else PlainProgress, len(self.begun) + 1
        if number > 1:
            err.print(f"Part {number}: {len(missing):,} more tasks, which follow from the results so far.")
        self.begun.append(kind(plan, missing, err, self.pace, self.growing.done, number))
        return self.begun[-1]


def _print_results(opened: OpenSuite, ran: Ran, part: Subset, with_report: bool) -> None:
    """Results of the part that was run; verdicts on the whole suite, and its report."""
    whole = cache(lambda: ran.plan if part == WHOLE else api.plan(opened))  # a minute for the whole paper
    if opened.suite.claims:
        print_short_verdicts(api.verdicts(opened, whole(), tell=err.print), again("verdicts", opened.path))
    print_headlines(opened.suite, api.result_rows(opened, ran.plan))
    tell_what_computed(ran.plan, opened.store, out)
    outcome = ran.outcome
    # Divergence removes tasks from the plan, some of which may have run by then.
    before = len(ran.plan.tasks.keys() - set(outcome.ran)) - len(outcome.failed) - len(outcome.blocked)
    out.print(
        f"{len(ran.plan.tasks)} tasks: {len(set(outcome.ran))} run now in {ran.seconds:.0f} s, {before} done before. "
        f"Results: {opened.store.root.absolute()}; `{again('results', opened.path)}` shows them all, "
        f"`{again('results', opened.path, '--csv')}` prints every number."
    )
    if with_report:
        try:
            page = api.report(opened, whole())
        except Exception as error:  # it fails nothing
            err.print(f"no report: {type(error).__name__}: {error}; `{again('report', opened.path)}` tries again")
        else:
            out.print(f"Report: {page}")


def _exit(opened: OpenSuite, ran: Ran, told: set[str], all_diverged: bool) -> None:
    """Print failures, except for reasons printed before; exit with 1 if not everything is done."""
    outcome, suite = ran.outcome, opened.path
    if outcome.failed:
        for reason, keys in _by_reason(outcome.failed).items():
            if reason not in told:
                more = f" (and {len(keys) - 1} more tasks)" if len(keys) > 1 else ""
                err.print(f"failed: {keys[0]} in {opened.store.folder(keys[0])}{more}: {reason}")
        err.print(
            f"{len(outcome.failed)} tasks failed, {len(outcome.blocked)} wait on them; "
            f"`{again('status', suite)}` shows where, `{again('run', suite, '--retry-failed')}` tries them again"
        )
        sys.exit(1)
    if outcome.blocked:
        err.print(
            f"{len(outcome.blocked)} tasks are unfinished since their jobs ended early; "
            f"`{again('status', suite)}` shows why"
        )
    if outcome.blocked or all_diverged:
        sys.exit(1)


def _by_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Why tasks failed -> their keys."""
    reasons: dict[str, list[str]] = {}
    for key, error in failed.items():
        reasons.setdefault(last_line(error), []).append(key)
    return reasons


def _tell_troubles(plan: Plan, store: Store, console: Console) -> bool:
    """Print how many trainings diverged, dense networks learned nothing, and networks have empty layers; return whether
    all diverged."""
    results = {key: result for key in plan.tasks if (result := store.result(key)) is not None}
    trainings = [result for key, result in results.items() if isinstance(plan.tasks[key].spec, TrainSpec)]
    statuses = [result["status"] for result in trainings]
    refused = sum(result["status"] == "refused" for result in results.values())
    diverged = statuses.count("diverged")
    all_diverged = 0 < diverged == len(statuses) - statuses.count("refused")
    if all_diverged:
        err.print(f"every training diverged ({diverged:,}): nothing was measured; lower the learning rates")
    elif diverged:
        console.print(
            f"{diverged:,} of {len(statuses):,} trainings diverged; {refused:,} tasks that need them were refused"
        )
    if idle := [task for task in plan.tasks.values() if ended_at_chance(task, results.get)]:
        whose = sorted({f"{cell.pair} {cell.arm}" for cell in (plan.cells[task.key] for task in idle)})
        console.print(
            f"{len(idle):,} dense networks of {', '.join(whose)} ended at chance: their recipes learn nothing, and no "
            "verdict counts them or what was made from them"
        )
    empty = sum(result["metrics"].get("empty_layers", 0) > 0 for result in trainings)
    if empty:
        console.print(
            f"{empty:,} of {len(statuses):,} trainings are of a network with empty layers, of which pruning left no "
            "weight; what is undefined of these is in no mean"
        )
    return all_diverged
