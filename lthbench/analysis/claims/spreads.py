"""The spread over replicates of what claims compare, as far as it is known before a suite is run, and its source.

For recorded pairs it comes from the golden results. For others, differences in accuracy of fully trained networks are
assumed to vary as in the literature; dimensionless quantities as on the recorded pairs.
"""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from scipy import special

import lthbench
from lthbench.analysis.claims.evidence import Evidence
from lthbench.analysis.claims.judge import part_of
from lthbench.analysis.golden.files import Recorded, golden_folder, read_golden
from lthbench.analysis.golden.record import task_names
from lthbench.analysis.points import MeasuredPoint
from lthbench.suite.claim_tests import Contrast, Test
from lthbench.suite.claims import Claim
from lthbench.suite.kept import digest_of, kept
from lthbench.suite.load import load_suite
from lthbench.suite.plan import PlannedMeasurement, kinds_of, make_plan
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.shipped import shipped_suites
from lthbench.suite.subset import Subset

# Standard deviation of the difference of two arms' accuracies, in percentage points.
ASSUMED = 0.3
ASSUMED_FROM = (
    "assumed, as in the literature: .1 to .35 points per arm, ResNet-20 on CIFAR-10, Renda et al. 2020 "
    "(arXiv 2003.02389), released data"
)
# Kinds of experiments whose networks are trained as in that literature.
_FULLY_TRAINED = {"imp", "lr-rewinding", "controls", "crossed-masks", "aimp", "regulariser"}
# Metrics whose spread on one pair says something about that on another.
_COMPARABLE = ("accuracy", "barrier", "relative", "angle", "search_distance")
_ALPHA = 0.05
# Stands for the experiment of recorded tasks that results chose, since their names do not say it.
_CHOSEN = "?"
_NAME = re.compile(r"(\S+) (\S+) (\d+): (.+?)(?: of level (\d+))?(?: from step (\d+))?")


@dataclass(frozen=True)
class Spread:
    """A standard deviation over replicates, None if nothing is known of it, and its source."""

    value: float | None
    source: str


UNKNOWN = Spread(None, "nothing is recorded of it")


@dataclass(frozen=True, eq=False)
class RecordedPair:
    """A pair of a suite with golden results, and its evidence from them."""

    suite: Path
    pair: Pair
    evidence: Evidence

    @property
    def label(self) -> str:
        return f"{self.evidence.name} of {self.suite.name}, {self.evidence.planned} replicates"


@dataclass(frozen=True)
class Spreads:
    """What is known of spreads: from the golden results of some suites. Tests of these take seconds, so what they gave
    on shipped ones is kept in files."""

    files: tuple[Path, ...]

    @classmethod
    def known(cls, suite: Path) -> Spreads:
        """From the golden results of a suite and of the shipped tour, which has every experiment."""
        files = dict.fromkeys(file.resolve() for file in (suite, shipped_suites() / "tour.yaml"))
        return cls(tuple(file for file in files if golden_folder(file).is_dir()))

    @cached_property
    def recorded(self) -> tuple[RecordedPair, ...]:
        """The pairs with golden results.

        Raises:
            SuiteError: golden results, or the suite that they are of, cannot be read.
        """
        return tuple(pair for file in self.files for pair in recorded_pairs(file))

    def of(self, test: Test, claim: Claim) -> Callable[[str, Pair], Spread]:
        """The spread on a pair of what a claim's test compares, in the effect's unit; raises as `recorded`."""

        @cache
        def found() -> list[_Known]:  # only of a test that the suite measures
            if any(file.parent != shipped_suites().resolve() for file in self.files):
                return self._found(test, claim)  # what such a suite includes is not known here
            names = [file.name for file in self.files]
            known = [*names, *_versions(), test.model_dump_json(), claim.model_dump_json()]
            return kept(
                "spreads", known, lambda: self._found(test, claim), lambda rows: [_Known(**row) for row in rows]
            )

        return lambda name, pair: _spread_on(name, pair, test, claim, found())

    def _found(self, test: Test, claim: Claim) -> list[_Known]:
        return [
            _Known(r.evidence.name, _networks(r.pair), r.label, spread)
            for r in self.recorded
            if (spread := _recorded_spread(test, claim, r)) is not None
        ]


@dataclass(frozen=True)
class _Known:
    """The spread on a recorded pair of what a test compares."""

    pair: str
    networks: str
    label: str
    spread: float


def _networks(pair: Pair) -> str:
    """What of a pair its spreads depend on, beside its name."""
    return pair.model.model_dump_json() + pair.data.model_dump_json()


@cache
def _versions() -> list[str]:
    """What the spreads of shipped suites depend on: this package, its suites and results, and the tests' libraries."""
    sources, suites = sorted(Path(lthbench.__file__).parent.rglob("*.py")), shipped_suites()
    data = [file for kind in ("yaml", "json") for file in sorted(suites.rglob(f"*.{kind}"))]
    return [digest_of([*sources, *data]), *map(importlib.metadata.version, ("numpy", "scipy", "statsmodels"))]


def _spread_on(name: str, pair: Pair, test: Test, claim: Claim, found: Sequence[_Known]) -> Spread:
    for known in found:
        if (known.pair, known.networks) == (name, _networks(pair)):
            return Spread(known.spread, f"recorded: {known.label}")
    if isinstance(test, Contrast):
        metric = test.plus[0].metric or test.metric
        if metric.endswith("accuracy") and set(claim.experiments) <= _FULLY_TRAINED:
            shares = [1 / len(side) for side in (test.plus, test.minus) if side]
            return Spread(ASSUMED * abs(test.times) * math.sqrt(sum(shares) / 2), ASSUMED_FROM)
        if not metric.endswith(_COMPARABLE):
            found = ()
    if not found:
        return UNKNOWN
    pooled = math.sqrt(sum(known.spread**2 for known in found) / len(found))
    return Spread(pooled, f"recorded elsewhere: {'; '.join(known.label for known in found)}")


def _recorded_spread(test: Test, claim: Claim, recorded: RecordedPair) -> float | None:
    """The standard deviation over the replicates of a recorded pair, from the interval that the test itself gives."""
    evidence, kinds = recorded.evidence, kinds_of(recorded.pair)
    evidence.experiments = frozenset([_CHOSEN, *(label for kind in claim.experiments for label in kinds.get(kind, ()))])
    part, _ = part_of(test, claim, evidence, {}, {}, _ALPHA)
    effect = part.effect
    if effect is None or effect.low is None or effect.high is None or part.of != "replicates" or part.n < 2:
        return None
    half_width = (effect.high - effect.low) / 2
    spread = half_width * math.sqrt(part.n) / float(special.stdtrit(part.n - 1, 1 - _ALPHA))
    return spread if 0 < spread < math.inf else None


def recorded_pairs(suite_file: Path) -> Iterator[RecordedPair]:
    """The pairs of a suite whose results are recorded, if it has claims and more than one replicate."""
    recorded: dict[str, list[Recorded]] = {}  # by pair, of the first environment that has it
    for golden in read_golden(golden_folder(suite_file)).values():
        recorded |= {pair: golden.of({pair}).tasks for pair in golden.pairs() - recorded.keys()}
    if not recorded:
        return
    suite = load_suite(suite_file)
    if suite.replicates < 2 or not suite.claims:
        return
    points = list(_recorded_points(suite, {task.task: task for tasks in recorded.values() for task in tasks}))
    for name, pair in suite.pairs.items():
        evidence = Evidence(name, pair, suite.tested(), [point for point in points if point.pair == name])
        yield RecordedPair(suite_file, pair, evidence)


def _recorded_points(suite: Suite, tasks: Mapping[str, Recorded]) -> Iterator[MeasuredPoint]:
    """The recorded measurements of every tested replicate, found by the tasks' descriptions, which outlive keys."""
    plan = make_plan(suite, Subset(replicates=1))
    words = task_names(plan)
    known = set()
    for placed in plan.measurements:
        if placed.cell.is_selection:
            continue
        names = [words[task.key] for task in (placed.measurement.task, *placed.measurement.others)]
        for replicate in suite.tested():
            here = [_of_replicate(name, replicate) for name in names]
            known.add(here[0])
            if all(name in tasks for name in here):
                yield _recorded_point(placed, replicate, [tasks[name] for name in here])
    # What results choose, as in a bisection, is not planned here, but its description is recorded.
    for name in tasks.keys() - known:
        if match := _NAME.fullmatch(name):
            pair, arm, number, variant, level, step = match.groups()
            task = tasks[name]
            yield MeasuredPoint(
                pair, _CHOSEN, arm, int(number), variant, int(level) if level else None, task.metrics.get("density"),
                int(step or 0), "ok" if task.status == "ok" else "diverged", task.metrics, task.key,
            )  # fmt: skip


def _of_replicate(name: str, replicate: int) -> str:
    """A task's description, for another replicate."""
    head, _, what = name.partition(": ")
    return f"{head.rpartition(' ')[0]} {replicate}: {what}"


def _recorded_point(placed: PlannedMeasurement, replicate: int, tasks: Iterable[Recorded]) -> MeasuredPoint:
    measurement, cell = placed.measurement, placed.cell
    results: list[dict[str, Any]] = [{"status": task.status, "metrics": task.metrics} for task in tasks]
    return MeasuredPoint(
        cell.pair, placed.experiment, cell.arm, replicate, measurement.variant, measurement.level,
        results[0]["metrics"].get("density"), measurement.step, "ok" if results[0]["status"] == "ok" else "diverged",
        measurement.numbers(results), measurement.task.key,
    )  # fmt: skip
