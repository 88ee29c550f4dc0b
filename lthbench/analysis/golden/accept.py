"""Accepting a store's results as golden: all of a suite or of some pairs, from one environment, with the reason."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import lthbench
from lthbench.analysis.golden.compare import compare_bitwise, compare_statistically
from lthbench.analysis.golden.files import (
    Comparison,
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
    """Record the results of a whole suite, or of some of its pairs, as golden, with the reason.

    What was recorded of the suite's other pairs stays. Recordings of the pairs that disagree with these results are
    removed, unless `keep_others` says that the same code gave them: then all of them together show how far environments
    differ. So are recordings of pairs that the suite no longer has.
    If the same results are recorded already, nothing changes.

    Args:
        plan: of all that is to be recorded.

    Returns:
        The file that has them, and those from which others were removed.

    Raises:
        GoldenError: there is no reason, a task is missing, the results come from several environments, or this one's
            file has other pairs by other code.
    """
    if not reason.strip():
        raise GoldenError("golden results are recorded with a reason only; give --reason TEXT")
    results = results_of(plan, store)
    if missing := len(plan.tasks) - len(results):
        raise GoldenError(f"{missing} of {len(plan.tasks)} tasks are not run; run `lthbench run {suite}` first")
    environments = environments_of(results)
    if len(environments) > 1:
        differ = ", ".join(name for name, _, _ in decisive_differences(*environments[:2]))
        raise GoldenError(
            f"the results come from environments that differ in {differ}; record the pairs of each by --pair, or run "
            "all in one, in a new store"
        )
    (environment,) = environments
    before = read_golden(folder)
    path = golden_file(folder, environment)
    others = {p: golden for p, golden in before.items() if p != path}
    pairs, planned = {plan.cells[key].pair for key in plan.tasks}, set(plan.suite.pairs)
    alike = {p: own for p, golden in others.items() if (own := golden.of(pairs)).tasks}
    stale = _differing(plan, compare_statistically(plan, results, alike))
    if path in before and (known := before[path].pairs() & pairs):
        bits = compare_bitwise(plan, results, {path: before[path].of(pairs)})
        if bits.state == "agreed" and known == pairs and all(golden.pairs() <= planned for golden in before.values()):
            return path, []
        # Bits say of these pairs whether other code gave what is recorded; by the test, of the others.
        stale = (stale - known) | _differing(plan, bits)
    names, chosen = task_names(plan), chosen_tasks(plan)
    golden = Golden(
        suite=suite.name,
        environment=decisive(environment),
        plugins=plugins_of(plan.tasks.values()),
        policy=policy_of(plan.tasks.values(), environment),
        history=[Entry(date=date.today().isoformat(), lthbench=lthbench.__version__, reason=reason.strip())],
        tasks=[recorded(key, names[key], result, chosen=key in chosen) for key, result in results.items()],
    )
    write_golden(path, _with_other_pairs(golden, before.get(path), path, planned))
    changed = []
    for other, recorded_there in sorted(others.items()):
        rest = recorded_there.of((recorded_there.pairs() & planned) - (set() if keep_others else stale))
        if len(rest.tasks) < len(recorded_there.tasks):
            changed.append(other)
            write_golden(other, rest) if rest.tasks else other.unlink()
    return path, changed


def _differing(plan: Plan, comparison: Comparison) -> set[str]:
    """The pairs of which a comparison found differences."""
    tasks = {difference.key: difference.task.split()[0] for difference in comparison.differences}
    return {plan.cells[key].pair if key in plan.tasks else pair for key, pair in tasks.items()}


def _with_other_pairs(golden: Golden, before: Golden | None, path: Path, planned: set[str]) -> Golden:
    """New results with what the environment's file has of other pairs, and its history.

    Raises:
        GoldenError: those were recorded by other code than these.
    """
    if before is None:
        return golden
    rest = before.of((before.pairs() & planned) - golden.pairs()).tasks
    plugins, policy = golden.plugins, golden.policy
    if rest:
        if any(before.plugins.get(name, own) != own for name, own in plugins.items()) or (
            policy and before.policy not in ("", policy)
        ):
            kept = ", ".join(sorted({task.pair for task in rest}))
            raise GoldenError(
                f"{path}: {kept} is recorded there with other plugins or kernels; record all pairs together"
            )
        plugins, policy = before.plugins | plugins, policy or before.policy
    return golden.model_copy(
        update={
            "plugins": plugins, "policy": policy, "history": [*before.history, *golden.history],
            "tasks": [*golden.tasks, *rest],
        }
    )  # fmt: skip
