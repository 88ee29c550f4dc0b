"""The contents of a report, gathered from a plan and a store: numbers, figures, gaps, recipes, and provenance."""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lthbench.analysis.claims.judge import verdicts
from lthbench.analysis.claims.verdict import Verdict
from lthbench.analysis.figures import Drawing, Measured, draw_figures
from lthbench.analysis.figures.drawing import Grid, short_keys
from lthbench.analysis.golden.files import Comparison
from lthbench.analysis.points import ended_at_chance
from lthbench.analysis.published import PublishedComparison
from lthbench.analysis.quantity import interval_text
from lthbench.analysis.report.abstract import sentences
from lthbench.analysis.report.agreement import golden_comparisons, published
from lthbench.analysis.table import ResultRow, Summary, results_table, summarise
from lthbench.experiments.controls import Controls
from lthbench.experiments.imp import Imp
from lthbench.experiments.stability import Stability
from lthbench.suite.plan import Plan, describe
from lthbench.suite.schema import Pair, Suite
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store


@dataclass(frozen=True)
class Gap:
    """An experiment that is not completely run; and the command that runs it."""

    experiment: str
    done: int
    planned: int
    command: str


@dataclass(frozen=True)
class Section:
    """What is said of one pair."""

    name: str
    model: str
    data: str
    recipes: Grid
    drawings: list[Drawing]
    gaps: list[Gap]
    troubles: Grid


@dataclass(frozen=True)
class Contents:
    """What a report says.

    Attributes:
        last: when the newest result was finished (ISO 8601), or None without any.
        environments: what computed the results, and for how long.
        work: tasks and hours by pair and kind of task.
        found: what was found, in a few sentences.
    """

    suite: Suite
    verdicts: list[Verdict]
    num_tasks: int
    num_done: int
    last: str | None
    rows: list[ResultRow]
    summaries: list[Summary]
    overview: Grid
    golden: list[Comparison]
    published: list[PublishedComparison]
    sections: list[Section]
    environments: Grid
    work: Grid
    found: list[str]

    @property
    def first_figure(self) -> tuple[str, Drawing] | None:
        """The figure beside the sentences, with its pair."""
        return next(((s.name, d) for s in self.sections for d in s.drawings if not d.is_table), None)


class _ReadOnce(Store):
    """A store that reads each result once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self.result = cache(store.result)  # type: ignore[method-assign]


def gather(plan: Plan, store: Store, suite: Path) -> Contents:
    """Gather the contents of a report from a plan.

    Args:
        suite: its path as the user names it, for commands.
    """
    store = _ReadOnce(store)
    rows = results_table(plan, store)
    summaries = summarise(rows)
    sections = []
    for name, pair in plan.suite.pairs.items():
        measured = Measured(
            name,
            pair,
            [row for row in rows if row.pair == name and not row.is_selection],
            [s for s in summaries if s.pair == name],
            lambda key: store.result(key) or {},
        )
        sections.append(
            Section(
                name,
                _described(pair.model),
                _described(pair.data),
                _recipes(pair),
                list(draw_figures(measured)),
                list(_gaps(plan, store, name, f"lthbench run {suite} --store {shlex.quote(str(store.root))}")),
                _troubles(plan, store, name),
            )
        )
    results = {key: result for key in plan.tasks if (result := store.result(key)) is not None}
    judged = verdicts(plan, store, str(suite)) if plan.suite.claims else []
    return Contents(
        plan.suite,
        judged,
        len(plan.tasks),
        len(results),
        max((str(result["finished"]) for result in results.values() if "finished" in result), default=None),
        rows,
        summaries,
        _overview(plan.suite, summaries),
        golden_comparisons(plan, store, suite),
        published(plan, store, suite),
        sections,
        _environments(results),
        _work(plan, results),
        sentences(plan.suite, judged, summaries),
    )


def _overview(suite: Suite, summaries: list[Summary]) -> Grid:
    """For each pair and arm: dense, sparsest ticket, its reinitialisation, barrier at the first spawn, distance."""
    columns = ("pair", "arm", "dense accuracy", "sparsest ticket", "at density", "same mask, reinitialised",
               "first barrier", "relative learning distance", "n")  # fmt: skip
    rows = []
    for name, pair in suite.pairs.items():
        for arm in pair.arms:
            mine = [s for s in summaries if s.pair == name and s.arm == arm]

            def of(kind: type, metric: str, mine: list[Summary] = mine, pair: Pair = pair) -> list[Summary]:
                labels = [label for label, e in pair.experiments.items() if type(e) is kind]
                return [s for s in mine if s.experiment in labels and s.metric == metric]

            at_start = [s for s in of(Imp, "test_accuracy") if not s.step]
            dense = [s for s in at_start if s.level == 0]
            # Of several experiments the first, as in the sentences, since the controls are of its masks.
            tickets = sorted((s for s in at_start if s.level), key=lambda s: -(s.level or 0))[:1]
            level = tickets[0].level if tickets else None
            reinit = [s for s in of(Controls, "test_accuracy") if s.variant == "reinit" and s.level == level]
            barriers = [s for s in of(Stability, "test_barrier") if s.level == 0]
            distances = [s for s in of(Imp, "distance_relative") if s.level == 0 and s.variant == "dense"]
            picked = [found[0] if found else None for found in (dense, tickets, reinit, barriers, distances)]
            if not any(picked):
                continue
            cells = [interval_text(s.metric, s.interval) if s else "-" for s in picked]
            density = f"{100 * tickets[0].density:.3g} %" if tickets and tickets[0].density else "-"
            counts = sorted({s.interval.n for s in picked if s})
            n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            rows.append((name, arm, *cells[:2], density, *cells[2:], n))
    return Grid(columns, rows)


def _described(spec: Any) -> str:
    """A model or data set as its name with what differs from the defaults."""
    content = spec.model_dump(mode="json", exclude_defaults=True)
    name = content.pop("name", spec.name)
    return f"{name} ({', '.join(f'{k} {v}' for k, v in content.items())})" if content else str(name)


def _recipes(pair: Pair) -> Grid:
    """Every key of the arms' recipes, and of the mask search's where they differ."""
    columns: dict[str, dict[str, str]] = {}
    for name, arm in pair.arms.items():
        columns[name] = dict(_flat(arm.recipe.model_dump(mode="json", exclude_defaults=True)))
        if arm.search != arm.recipe:
            columns[f"{name}, mask search"] = dict(_flat(arm.search.model_dump(mode="json", exclude_defaults=True)))
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    return Grid(("key", *columns), [(key, *(c.get(key, "default") for c in columns.values())) for key in keys])


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _gaps(plan: Plan, store: Store, pair: str, command: str) -> Iterator[Gap]:
    planned: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for placed in plan.measurements:
        if placed.cell.pair == pair:
            planned[placed.experiment] += 1
            tasks = (placed.measurement.task, *placed.measurement.others)
            done[placed.experiment] += all(store.result(task.key) is not None for task in tasks)
    for label in plan.suite.pairs[pair].experiments:
        if done[label] < planned[label]:
            which = f"--pair {pair} --only {label}" if len(plan.suite.pairs) > 1 else f"--only {label}"
            yield Gap(label, done[label], planned[label], f"{command} {which}")


def _troubles(plan: Plan, store: Store, pair: str) -> Grid:
    """The tasks of a pair that diverged, were refused or failed at the last attempt, dense networks that ended at
    chance, and networks with empty layers."""
    rows = []
    for key, task in plan.tasks.items():
        cell = plan.cells[key]
        if cell.pair != pair:
            continue
        result = store.result(key)
        what = f"{cell.arm} {cell.replicate_name}: {describe(task)}"
        if result is not None and result["status"] != "ok":
            rows.append((what, str(result["status"]), str(result.get("reason") or ""), short_keys([key])))
        elif ended_at_chance(task, {key: result}.get):
            why = "no better than guessing on its train images: it counts in no verdict, nor does what is made from it"
            rows.append((what, "at chance", why, short_keys([key])))
        elif result is not None and isinstance(task.spec, TrainSpec) and result["metrics"]["empty_layers"]:
            empty = [layer for layer, density in result["layer_density"].items() if density == 0]
            rows.append((what, "empty layers", f"no weight survives in {', '.join(empty)}", short_keys([key])))
        elif result is None and (error := store.failure(key)) is not None:
            rows.append((what, "failed", error.strip().splitlines()[-1], short_keys([key])))
    return Grid(("task", "how it ended", "why", "key"), rows)


def _environments(results: Mapping[str, Mapping[str, Any]]) -> Grid:
    seconds: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)
    for result in results.values():
        environment = tuple((k, str(v)) for k, v in result.get("environment", {}).items())
        seconds[environment].append(float(result.get("seconds", 0)))
    names = list(dict.fromkeys(name for environment in seconds for name, _ in environment))
    rows = [
        (*(dict(environment).get(name, "-") for name in names), f"{len(spent):,}", _hours(spent))
        for environment, spent in seconds.items()
    ]
    return Grid((*names, "tasks", "hours"), rows)


def _work(plan: Plan, results: Mapping[str, Mapping[str, Any]]) -> Grid:
    planned: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, task in plan.tasks.items():
        line = (plan.cells[key].pair, task.spec.kind)
        planned[line] += 1
        if key in results:
            seconds[line].append(float(results[key].get("seconds", 0)))
    rows = [
        (pair, kind, f"{planned[pair, kind]:,}", f"{len(seconds[pair, kind]):,}", _hours(seconds[pair, kind]))
        for pair, kind in sorted(planned)
    ]
    return Grid(("pair", "kind of task", "planned", "done", "hours"), rows)


def _hours(seconds: list[float]) -> str:
    return f"{math.fsum(seconds) / 3600:.3g}"
