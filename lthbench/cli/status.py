"""`lthbench status`: how far a suite is."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from rich.table import Table

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import (
    JsonOption,
    again,
    app,
    err,
    out,
    print_json,
)
from lthbench.cli.parameters import with_options

_SHOWN = 20
_PATIENCE = 5.0  # seconds for which Slurm is asked again: without it, most of what is shown is known


@app.command()
@with_options
def status(source: Source, as_json: JsonOption = False) -> None:
    """Show a suite's progress: tasks done, missing, failed, diverged or with empty layers; and its jobs."""
    from lthbench.runner.pace import in_words
    from lthbench.runner.slurm.records import read_records
    from lthbench.runner.slurm.scheduler import SchedulerError, queued
    from lthbench.runner.status import suite_status

    opened = api.open_suite(source)
    suite, target, plan = opened.path, opened.store, api.plan(opened)
    queue, problem = None, ""
    if any(record.cluster == "slurm" for record in read_records(target)):
        try:
            queue = queued(_PATIENCE, err.print)
        except SchedulerError as error:
            problem = str(error)
    found = suite_status(plan, target, suite, queue)
    if as_json:
        print_json(asdict(found) | {"stalls": {key: stall.model_dump() for key, stall in found.stalls.items()}})
        return
    table = Table("pair", "arm", "tasks", "done", "diverged", "refused", "empty layers", "failed", title=str(suite))
    for row in found.arms:
        counts = (row.tasks, row.done, row.diverged, row.refused, row.collapsed, len(row.failures))
        table.add_row(row.pair, row.arm, *(f"{c:,}" for c in counts))
    out.print(table)
    if any(row.collapsed for row in found.arms):
        out.print("Of networks with empty layers a layer or more has no survivor; what is measured of such is missing.")
    if problem:
        out.print(f"of jobs nothing is known: {problem}")
    if found.jobs:
        states = Counter(job.state for job in found.jobs)
        out.print("jobs: " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    running = [job for job in found.jobs if job.state == "running"]
    for job in running[:_SHOWN]:
        out.print(f"running: {job.job} {job.lane}: {job.done} of {job.tasks} tasks, {job.left} left of its limit")
    if found.seconds_left:
        out.print(
            f"{100 * found.part:.0f} % of the work that is known so far is done; {in_words(found.seconds_left)} left "
            f"with {max(1, len(running))} at once, by what tasks have taken so far"
        )
    for key, stall in list(found.stalls.items())[:_SHOWN]:
        out.print(f"stalled: {key} ({plan.label(key)}): {stall}")
    failures = [failure for row in found.arms for failure in row.failures.items()]
    for key, reason in failures[:_SHOWN]:
        out.print(f"failed: {key} in {target.folder(key)}: {reason.strip().splitlines()[-1]}")
    over = [job for job in found.jobs if job.state in ("failed", "ended")]
    for job in over[:_SHOWN]:
        out.print(f"{job.state}: {job.job} {job.lane}, {job.done} of {job.tasks} tasks done; log: {job.log or 'none'}")
        for line in job.last_lines.splitlines():
            out.print(f"    {line}")
    more = max(0, len(failures) - _SHOWN) + max(0, len(over) - _SHOWN)
    more += max(0, len(running) - _SHOWN) + max(0, len(found.stalls) - _SHOWN)
    if more:
        out.print(f"and {more} more: --json has them all")
    if failures or any(job.state == "failed" for job in over):
        out.print(f"`{again('run', suite, '--retry-failed')}` tries failed tasks again")
    if any(job.state == "ended" for job in over):
        out.print(f"`{again('submit', suite)}` goes on with what jobs that ended have left")
