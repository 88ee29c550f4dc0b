"""Comparing a suite's results with golden ones: bit for bit in the same environment, by a test in any other."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lthbench.analysis.golden.equivalence import Agreement, Sample, agreement
from lthbench.analysis.golden.files import Comparison, Difference, Golden, Recorded, decisive_differences
from lthbench.analysis.golden.record import (
    chosen_tasks,
    environments_of,
    plugins_of,
    policy_of,
    recorded,
    results_of,
    task_names,
    tasks_of,
)
from lthbench.analysis.stats.paired import holm
from lthbench.registry import short
from lthbench.suite.plan import Plan
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.store import Store

# The rate at which sound results fail the statistical comparison of a whole suite.
LEVEL = 0.01
# Without evaluation losses, which have no scale when normalisation statistics are of a few steps.
TESTED = ("first_epoch_loss", "last_epoch_loss", "test_accuracy", "distance", "test_barrier")

Results = Mapping[str, dict[str, Any]]
Goldens = Mapping[Path, Golden]


def compare(plan: Plan, store: Store, goldens: Goldens, *, whole: bool = True) -> list[Comparison]:
    """Compare the finished tasks of a plan, bit for bit and by the test.

    Args:
        whole: whether the plan is that of the whole suite, so that recorded tasks which it lacks count as missing.
    """
    results = results_of(plan, store)
    return [
        compare_bitwise(plan, results, goldens, whole=whole),
        compare_statistically(plan, results, goldens, whole=whole),
    ]


def decisive_comparison(comparisons: Sequence[Comparison]) -> Comparison:
    """The comparison that decides whether results agree: of the bits where they are recorded; by the test otherwise,
    and where the bits agree but are not recorded for all pairs."""
    return next(
        (c for c in comparisons if c.state == "differs" or (c.state == "agreed" and c.num_compared == c.num_run)),
        comparisons[-1],
    )


def compare_bitwise(plan: Plan, results: Results, goldens: Goldens, *, whole: bool = True) -> Comparison:
    """Compare digests and metrics with those recorded in the same environment, for the pairs that are."""
    if not results:
        return Comparison("bitwise", "not run", "none of the suite's tasks is run", num_tasks=len(plan.tasks))
    if not goldens:
        return Comparison("bitwise", "no golden", "the suite has no golden results", num_tasks=len(plan.tasks))
    environments = environments_of(results)
    if len(environments) > 1:
        differ = decisive_differences(*environments[:2])
        reason = f"the results come from environments that differ in {', '.join(name for name, _, _ in differ)}"
        return Comparison("bitwise", "no golden", reason, num_tasks=len(plan.tasks))
    here = environments[0]
    nearest = min(goldens, key=lambda path: len(decisive_differences(goldens[path].environment, here)))
    if differ := decisive_differences(goldens[nearest].environment, here):
        reason = f"none is recorded in this environment; the nearest differs in {', '.join(n for n, _, _ in differ)}"
        return Comparison("bitwise", "no golden", reason, num_tasks=len(plan.tasks), environment=differ)
    there = goldens[nearest].pairs()
    tasks = tasks_of(plan, there)
    if not tasks:
        reason = f"in this environment only {', '.join(sorted(there))} is recorded"
        return Comparison("bitwise", "no golden", reason, num_tasks=len(plan.tasks))
    if other := _other_plugins(plan, goldens[nearest]):
        return Comparison("bitwise", "no golden", other, num_tasks=len(plan.tasks))
    if (policy := policy_of(tasks.values(), here)) and policy != goldens[nearest].policy:
        reason = "since they were recorded here, lthbench/engine/policy.py chooses other kernels for the blocked engine"
        return Comparison("bitwise", "no golden", reason, num_tasks=len(plan.tasks))
    golden = goldens[nearest].by_key()
    names = task_names(plan)
    differences = []
    for key in (key for key in tasks if key in results):
        found = recorded(key, names[key], results[key])
        differences += list(_every_bit(golden[key], found)) if key in golden else [_unknown(found)]
    # What results choose is not planned before they are there.
    finished = len(results) == len(plan.tasks)
    differences += [d for d in _gone(plan, golden) if finished or not golden[d.key].chosen] if whole else []
    return _conclude("bitwise", plan, results, golden, differences, (nearest,))


def compare_statistically(plan: Plan, results: Results, goldens: Goldens, *, whole: bool = True) -> Comparison:
    """Compare with all recorded environments: exactly what rounding cannot change, and by a test what it can."""
    if not results:
        return Comparison("statistical", "not run", "none of the suite's tasks is run", num_tasks=len(plan.tasks))
    if not goldens:
        return Comparison("statistical", "no golden", "the suite has no golden results", num_tasks=len(plan.tasks))
    others = [_other_plugins(plan, golden) for golden in goldens.values()]
    if all(others):
        return Comparison("statistical", "no golden", others[0] or "", num_tasks=len(plan.tasks))
    goldens = {path: golden for (path, golden), other in zip(goldens.items(), others, strict=True) if not other}
    names = task_names(plan)
    found = {key: recorded(key, names[key], result) for key, result in results.items()}
    known = [golden.by_key() for golden in goldens.values()]
    differences: dict[str, list[Difference]] = defaultdict(list)
    chosen = chosen_tasks(plan)
    for key, task in found.items():
        same = [golden[key] for golden in known if key in golden]
        if same:
            differences[key] += _exactly(plan.tasks[key], same[0], task)
        elif key not in chosen:
            differences[key].append(_unknown(task))
    num_tests = 0
    for quantity, verdict, p in _tested(_quantities(plan, found, known)):
        num_tests += verdict.tolerance is not None
        if p < LEVEL:
            means, now = quantity.sample.recorded.mean(1), quantity.sample.found
            worst = int(np.abs(now - means).argmax())
            key, values = quantity.keys[worst], (float(means[worst]), float(now[worst]))
            differences[key].append(Difference(key, names[key], quantity.metric, *values, verdict.tolerance, p))
    in_order = [difference for key in results for difference in differences[key]]
    everywhere = {key: task for golden in known for key, task in golden.items()}
    in_order += [d for d in _gone(plan, everywhere) if not everywhere[d.key].chosen] if whole else []
    return _conclude("statistical", plan, results, everywhere, in_order, tuple(goldens), num_tests)


def _other_plugins(plan: Plan, golden: Golden) -> str | None:
    """Why a golden file is of other tasks, where plugins were other versions than those that are loaded."""
    here = plugins_of(tasks_of(plan, golden.pairs()).values())
    for name in sorted(here):
        if here[name] != golden.plugins.get(name):
            return (
                f"it was recorded with plugin {name} {short(golden.plugins.get(name, {}))} and here it is "
                f"{short(here[name])}; go back to that version, or record results of this one by --update"
            )
    return None


@dataclass(frozen=True)
class _Quantity:
    """A metric of the same task in several replicates; quantities of one pair and kind have one scale."""

    pair: str
    kind: str
    metric: str
    keys: tuple[str, ...]
    sample: Sample


def _quantities(plan: Plan, found: Mapping[str, Recorded], known: Sequence[Mapping[str, Recorded]]) -> list[_Quantity]:
    """All that is tested, with the values of the environments in which all of its replicates are recorded."""
    replicates: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, role in roles(plan).items():
        for metric in TESTED:
            if key in found and metric in found[key].metrics:
                replicates[role, metric].append(key)
    quantities = []
    for (_, metric), keys in replicates.items():
        sound = [golden for golden in known if all(k in golden and metric in golden[k].metrics for k in keys)]
        if not sound:
            continue
        values = np.array([[golden[key].metrics[metric] for golden in sound] for key in keys])
        cell, kind = plan.cells[keys[0]], plan.tasks[keys[0]].spec.kind
        counts_images = metric.endswith(("accuracy", "barrier"))
        resolution = 1 / cell.data.info.num_test if counts_images else 0.0
        sample = Sample(values, np.array([found[key].metrics[metric] for key in keys]), resolution)
        quantities.append(_Quantity(cell.pair, kind, metric, tuple(keys), sample))
    return quantities


def _tested(quantities: Sequence[_Quantity]) -> Iterator[tuple[_Quantity, Agreement, float]]:
    """Each quantity with the test's outcome and its p after Holm's correction for all of them."""
    scales: dict[tuple[str, str, str], list[_Quantity]] = defaultdict(list)
    for quantity in quantities:
        scales[quantity.pair, quantity.kind, quantity.metric].append(quantity)
    verdicts: list[tuple[_Quantity, Agreement]] = []
    for alike in scales.values():
        verdicts += zip(alike, agreement([q.sample for q in alike], LEVEL / len(quantities)), strict=True)
    for (quantity, verdict), p in zip(verdicts, holm([verdict.p for _, verdict in verdicts]), strict=True):
        yield quantity, verdict, p


def roles(plan: Plan) -> dict[str, str]:
    """Key -> the role of a task, whatever its replicate: a hash of its specification and its inputs', without seeds."""
    found: dict[str, str] = {}
    for key, task in plan.tasks.items():
        content = json.loads(task.canonical)
        content.pop("seed", None)
        text = json.dumps(content, sort_keys=True)
        for needed in task.inputs:
            text = text.replace(needed.key, found[needed.key])
        found[key] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _every_bit(recorded: Recorded, found: Recorded) -> Iterator[Difference]:
    """What differs between a task's results in the same environment: first where it started, then what it made."""
    pairs = [("status", recorded.status, found.status)]
    for kind in ("digests", "metrics"):
        before, now = getattr(recorded, kind), getattr(found, kind)
        pairs += [(what, before[what], now.get(what)) for what in sorted(before, key=lambda w: w != "start")]
    for what, before, now in pairs:
        if before != now:
            yield Difference(found.key, found.task, what, before, now)


def _exactly(task: Task, recorded: Recorded, found: Recorded) -> Iterator[Difference]:
    """What no sound environment changes: how a task ends, how much is pruned, and an initialisation."""
    initial = isinstance(task.spec, TrainSpec) and task.spec.start is None and task.spec.mask is None
    for difference in _every_bit(recorded, found):
        if difference.what in ("status", "density") or (difference.what == "start" and initial):
            yield difference


def _unknown(found: Recorded) -> Difference:
    return Difference(found.key, found.task, "task", None, found.status)


def _gone(plan: Plan, golden: Mapping[str, Recorded]) -> list[Difference]:
    return [Difference(k, t.task, "task", t.status, None) for k, t in golden.items() if k not in plan.tasks]


def _conclude(
    kind: Literal["bitwise", "statistical"],
    plan: Plan,
    results: Results,
    golden: Mapping[str, Recorded],
    differences: list[Difference],
    files: tuple[Path, ...],
    num_tests: int = 0,
) -> Comparison:
    level = LEVEL if kind == "statistical" else None
    how = f"by {num_tests} tests at a family-wise level of {LEVEL:g}" if level else "bit for bit"
    num_compared = sum(key in golden for key in results)
    differing = len({difference.key for difference in differences if difference.key in plan.tasks})
    gone = len({difference.key for difference in differences if difference.key not in plan.tasks})
    number, state = (differing, "differ") if differences else (num_compared, "agree")
    counted = f"{number} of {len(plan.tasks)} tasks {state}"
    counted += f" and {gone} that are recorded are no longer planned" if gone else ""
    return Comparison(
        kind,
        "differs" if differences else "agreed",
        f"{counted}, compared {how}",
        files,
        len(plan.tasks),
        len(results),
        num_compared,
        tuple(differences),
        level=level,
        num_tests=num_tests,
    )
