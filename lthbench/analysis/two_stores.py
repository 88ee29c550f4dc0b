"""Two stores side by side: do they hold the same results, bit for bit and by a test, and which task differs first?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lthbench.analysis.golden.compare import compare_statistically
from lthbench.analysis.golden.files import Comparison, Difference, Golden, decisive_differences
from lthbench.analysis.golden.record import environments_of, recorded, task_names
from lthbench.documents import DocumentError
from lthbench.registry import PluginError
from lthbench.runner.inspection import keys_of
from lthbench.suite.plan import Plan, describe
from lthbench.tasks.result import read_spec
from lthbench.tasks.spec import Task, parse_spec
from lthbench.tasks.store import Store

Results = Mapping[str, dict[str, Any]]

# What may differ between two equal computations: when and where they ran, and which steps were kept for others.
_OF_THE_RUN = {"seconds", "finished", "environment", "inputs", "artefacts", "digest", "kept", "reason"}


@dataclass(frozen=True)
class TwoStores:
    """How the results of two stores, A and B, compare.

    Attributes:
        num_common: tasks that both have done.
        only_a, only_b: those that one has done.
        differences: what is not bit for bit the same of tasks that both have done (`recorded` in A, `found` in B),
            those first that others need: the first one is where to look.
        environment: what decides bits and differs between the stores: (name, in A, in B).
        statistical: the comparison by the test of `lthbench verify`; None without a suite.
    """

    num_common: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]
    environment: tuple[tuple[str, Any, Any], ...]
    statistical: Comparison | None

    @property
    def differ(self) -> bool:
        """Whether the results differ: by the bits in one environment, else by the test, where it could test any."""
        if self.environment and self.statistical is not None and self.statistical.num_tests:
            return self.statistical.state == "differs"
        return bool(self.differences)


def compare_stores(a: Store, b: Store, plan: Plan | None = None) -> TwoStores:
    """Compare what two stores have done.

    Args:
        plan: of a suite, whose tasks alone are compared; None compares all.

    Raises:
        StoreError: a result is not what was written.
    """
    found_a, found_b = (_results(store, plan) for store in (a, b))
    common = [key for key in _inputs_first(found_a) if key in found_b]
    names = task_names(plan) if plan is not None else {key: _name(a, key) for key in common}
    differences = [
        Difference(key, names[key], *different) for key in common for different in _bits(found_a[key], found_b[key])
    ]
    in_a, in_b = ({key: found[key] for key in common} for found in (found_a, found_b))
    environments = [environments_of(found) for found in (in_a, in_b)]
    environment = {
        name: (name, before, now)
        for of_a in environments[0]
        for of_b in environments[1]
        for name, before, now in decisive_differences(of_a, of_b)
    }
    statistical = None
    if plan is not None and common:
        tasks = [recorded(key, names[key], result) for key, result in in_a.items()]
        golden = Golden(suite=str(a.root), environment=environments[0][0], history=[], tasks=tasks)
        statistical = compare_statistically(plan, in_b, {a.root: golden}, whole=False)
    return TwoStores(
        len(common),
        tuple(key for key in found_a if key not in found_b),
        tuple(key for key in found_b if key not in found_a),
        tuple(differences),
        tuple(environment.values()),
        statistical,
    )


def _results(store: Store, plan: Plan | None) -> dict[str, dict[str, Any]]:
    keys = keys_of(store) if plan is None else plan.tasks
    found = {key: store.result(key) for key in store.done(dict.fromkeys(keys, ()))}
    return {key: result for key, result in found.items() if result is not None}


def _inputs_first(results: Results) -> list[str]:
    """The keys, those of tasks after those that they read."""
    order: dict[str, None] = {}
    for key in results:
        pending = [key]
        while pending:
            last = pending[-1]
            missing = [other for other in results[last]["inputs"] if other in results and other not in order]
            if missing:
                pending += missing
            else:
                order.setdefault(pending.pop())
    return list(order)


def _bits(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two results of a task: how it ended, where it started, what it made, then its numbers."""
    flat_a, flat_b = (dict(_flat(result)) for result in (a, b))
    first = ("status", "digests.start", "digests.weights", "digests.mask")
    for name in dict.fromkeys((*first, *flat_a, *flat_b)):
        # As texts, in which a NaN equals itself.
        if json.dumps(flat_a.get(name)) != json.dumps(flat_b.get(name)):
            yield name.removeprefix("digests.").removeprefix("metrics."), flat_a.get(name), flat_b.get(name)
    for name in sorted(a["artefacts"].keys() & b["artefacts"].keys()):
        if a["artefacts"][name]["sha256"] != b["artefacts"][name]["sha256"]:
            yield name, a["artefacts"][name]["sha256"][:16], b["artefacts"][name]["sha256"][:16]


def _flat(result: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in result.items():
        if name in ("digests", "metrics"):
            yield from ((f"{name}.{below}", v[:16] if isinstance(v, str) else v) for below, v in value.items())
        elif name not in _OF_THE_RUN:
            yield name, value if isinstance(value, str | int | float | None) else json.dumps(value, sort_keys=True)


def _name(store: Store, key: str) -> str:
    try:
        return describe(Task(parse_spec(read_spec(store.folder(key), key))))
    except (DocumentError, OSError, ValueError, PluginError):  # bits are compared without the plugin that made them
        return "task"
