"""Accepting a store's results as golden: all of a suite, from one environment, with the reason."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import lthbench
from lthbench.analysis.golden.compare import compare_bitwise, compare_statistically
from lthbench.analysis.golden.files import (
    Entry,
    Golden,
    GoldenError,
    decisive,
    decisive_differences,
    golden_file,
    read_golden,
    write_golden,
)
from lthbench.analysis.golden.record import (
    chosen_tasks,
    environments_of,
    plugins_of,
    policy_of,
    recorded,
    results_of,
    task_names,
)
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store


def accept(
    plan: Plan, store: Store, suite: Path, folder: Path, reason: str, *, keep_others: bool = False
) -> tuple[Path, list[Path]]:
    """Record the results of a whole suite as golden, with the reason.

    Recordings that disagree with these results are removed, unless `keep_others` says that the same code gave them:
    then all of them together show how far environments differ. If the same results are recorded already, nothing
    changes.

    Returns:
        The file that has them, and those that were removed.

    Raises:
        GoldenError: there is no reason, a task is missing, or the results come from several environments.
    """
    if not reason.strip():
        raise GoldenError("golden results are recorded with a reason only; give --reason TEXT")
    results = results_of(plan, store)
    if missing := len(plan.tasks) - len(results):
        raise GoldenError(f"{missing} of {len(plan.tasks)} tasks are not run; run `lthbench run {suite}` first")
    environments = environments_of(results)
    if len(environments) > 1:
        differ = ", ".join(name for name, _, _ in decisive_differences(*environments[:2]))
        raise GoldenError(f"the results come from environments that differ in {differ}; run all in one, in a new store")
    (environment,) = environments
    before = read_golden(folder)
    path = golden_file(folder, environment)
    others = {p: golden for p, golden in before.items() if p != path}
    if path in before:
        state = compare_bitwise(plan, results, {path: before[path]}).state
        if state == "agreed":
            return path, []
        stale = state == "differs"
    else:
        stale = bool(others) and compare_statistically(plan, results, others).state == "differs"
    names, chosen = task_names(plan), chosen_tasks(plan)
    entry = Entry(date=date.today().isoformat(), lthbench=lthbench.__version__, reason=reason.strip())
    golden = Golden(
        suite=suite.name,
        environment=decisive(environment),
        plugins=plugins_of(plan),
        policy=policy_of(plan, environment),
        history=[*(before[path].history if path in before else []), entry],
        tasks=[recorded(key, names[key], result, chosen=key in chosen) for key, result in results.items()],
    )
    write_golden(path, golden)
    removed = sorted(others) if stale and not keep_others else []
    for other in removed:
        other.unlink()
    return path, removed
