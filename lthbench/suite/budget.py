"""What part of a suite a budget buys: its price, and what is bought where no claims say what matters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from lthbench.experiments import Experiment
from lthbench.experiments.cell import is_selection
from lthbench.experiments.controls import Controls
from lthbench.experiments.imp import Imp
from lthbench.experiments.stability import Stability
from lthbench.options import OptionError
from lthbench.suite.cost import Cost, in_words, plan_cost
from lthbench.suite.devices import Device, Unit, seconds_on
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.store import Store

REPLICATES = 3
POLICY = (
    "The replicate is the unit of statistics: a part has whole replicates, three where it can. If the whole suite fits "
    "with three or more of its replicates, as many as fit are taken. Else three replicates are built up from what "
    "matters most, each step as far as it fits: pairs, cheapest first, with two arms (the first of class late and the "
    "first other one), tickets, controls and stability, up to half of the levels; then all levels; all arms; the other "
    "experiments, cheapest first; more replicates."
)
_CORE: tuple[type[Experiment], ...] = (Imp, Controls, Stability)


@dataclass(frozen=True)
class Need:
    """The cell and experiment of a measurement, which decide whether a part has it."""

    pair: str
    arm: str
    replicate: int
    experiment: str


@dataclass(frozen=True)
class Proposal:
    """The part that a budget buys, and how long it takes; None where not even one ticket of one pair fits."""

    part: Subset | None
    seconds: float


def parse_budget(text: str) -> tuple[float, Unit]:
    """Read `200gpuh` or `48cpuh`: hours, and of what.

    Raises:
        SuiteError: it is written otherwise.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gpuh|cpuh)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise SuiteError(
            f"--budget {text}: is not a budget; give hours of GPUs or of processor cores: 200gpuh or 48cpuh"
        )
    return float(match[1]), "gpuh" if match[2] == "gpuh" else "cpuh"


class Prices:
    """The cost of parts of a plan, without planning each of them."""

    def __init__(self, plan: Plan, seconds: Mapping[str, float]) -> None:
        self._suite = plan.suite
        needs: dict[str, dict[Need, int]] = defaultdict(dict)  # key -> who needs it, from which level on

        def note(key: str, need: Need, level: int) -> None:
            needs[key][need] = min(level, needs[key].get(need, level))

        for placed in plan.measurements:
            cell, level = placed.cell, placed.measurement.level
            need = Need(cell.pair, cell.arm, cell.replicate, placed.experiment)
            for task in (placed.measurement.task, *placed.measurement.others):
                note(task.key, need, -1 if level is None else level)
        self.max_level = max((level for of in needs.values() for level in of.values()), default=0)
        # Tasks that the same measurements need are bought together.
        self._groups: dict[frozenset[tuple[Need, int]], float] = defaultdict(float)
        for key in reversed(plan.tasks):
            for need, level in needs[key].items():
                for task in plan.tasks[key].inputs:
                    note(task.key, need, level)
            self._groups[frozenset(needs[key].items())] += seconds[key]

    def of(self, *parts: Subset) -> float:
        """The seconds that some parts take together."""
        tested = [(part, self._suite.tested(part.replicates)) for part in parts]
        return sum(
            seconds
            for needs, seconds in self._groups.items()
            if any(_has(*part, need, level) for need, level in needs for part in tested)
        )

    def by_experiments(self, part: Subset) -> dict[frozenset[str], float]:
        """The seconds of a part's tasks, by the experiments any of which needs them."""
        tested = self._suite.tested(part.replicates)
        found: dict[frozenset[str], float] = defaultdict(float)
        for needs, seconds in self._groups.items():
            if labels := {need.experiment for need, level in needs if _has(part, tested, need, level)}:
                found[frozenset(labels)] += seconds
        return found


def _has(part: Subset, tested: range, need: Need, level: int) -> bool:
    return (
        (not part.pairs or need.pair in part.pairs)
        and (not part.arms or need.arm in part.arms)
        and (not part.experiments or need.experiment in part.experiments)
        and (is_selection(need.replicate) or need.replicate in tested)
        and (part.levels is None or level <= part.levels)
    )


def propose(plan: Plan, seconds: Mapping[str, float], budget: float) -> Proposal:
    """The part of a planned suite that `POLICY` buys.

    Args:
        plan: of the whole suite.
        seconds: key -> how long the task takes; 0 for one that is done.
        budget: in seconds.
    """
    suite, prices = plan.suite, Prices(plan, seconds)

    def fits(part: Subset) -> bool:
        return prices.of(part) <= budget

    least = min(REPLICATES, suite.replicates)
    for count in range(suite.replicates, least - 1, -1):
        if fits(part := Subset(replicates=count)):
            return Proposal(_tidy(plan, prices, part), prices.of(part))

    part, by_price = _smallest(plan, prices, least)
    for name in by_price:
        # What cannot have three replicates has fewer levels first, then fewer replicates; the first pair alone.
        shrunk = [part] if part.pairs else list(_shrunk(part))
        for smaller in shrunk:
            pairs = (*smaller.pairs, name)
            if fits(bought := replace(smaller, pairs=pairs, arms=_two_arms(plan, pairs))):
                part = bought
                break
        if not part.pairs:
            return Proposal(None, prices.of(bought))
    for level in range(prices.max_level, part.levels or 0, -1):
        if fits(bought := replace(part, levels=level)):
            part = bought
            break
    if fits(bought := replace(part, arms=())):
        part = bought
    others = {label for name in part.pairs for label in suite.pairs[name].experiments} - set(part.experiments)
    added = {label: prices.of(replace(part, experiments=(*part.experiments, label))) for label in others}
    for label in sorted(others, key=lambda label: (added[label], label)):
        if fits(bought := replace(part, experiments=(*part.experiments, label))):
            part = bought
    for count in range(suite.replicates, part.replicates or 0, -1):
        if fits(bought := replace(part, replicates=count)):
            part = bought
            break
    return Proposal(_tidy(plan, prices, part), prices.of(part))


@dataclass(frozen=True)
class Bought:
    """What hours of a device buy of a suite.

    Attributes:
        plan: of the part, made from its options, so that it is what they run.
        cost: of that plan, on the device.
    """

    part: Subset
    plan: Plan
    cost: list[Cost]


def buy(plan: Plan, store: Store, device: Device, hours: float, suite: str) -> Bought:
    """The part of a suite, of which some tasks may be done, that so many hours of a device buy.

    Args:
        plan: of the whole suite.
        suite: its name in messages.

    Raises:
        OptionError: the device was not measured on all of its pairs, or the hours buy no part of it.
    """
    left = seconds_left(plan, store, device, suite)
    proposal = propose(plan, left, hours * 3600 / device.units)
    if proposal.part is None:
        raise OptionError(
            f"{hours:g} {device.unit} of {device.label} buy no part of {suite}: one replicate of its cheapest pair "
            f"with two arms up to level 1 takes {in_words(proposal.seconds / 3600 * device.units)}"
        )
    bought = make_plan(plan.suite, proposal.part, store.result)
    return Bought(proposal.part, bought, plan_cost(bought, store, {device.label: seconds_on(device, bought)}))


def seconds_left(plan: Plan, store: Store, device: Device, suite: str) -> dict[str, float]:
    """Key -> the seconds of a device that the task takes; 0 for one that is done.

    Args:
        suite: its name in messages.

    Raises:
        OptionError: the device was not measured on all pairs.
    """
    seconds = seconds_on(device, plan)
    if unknown := sorted({plan.cells[key].pair for key, value in seconds.items() if value is None}):
        raise OptionError(
            f"{device.label} was not measured on {', '.join(unknown)}; run `lthbench plan {suite} --calibrate`"
        )
    missing = set(store.missing({key: plan.kept(key) for key in plan.tasks}))
    return {key: float(s or 0) if key in missing else 0.0 for key, s in seconds.items()}


def left_out(suite: Suite, part: Subset) -> dict[str, list[str]]:
    """What a part leaves out, by pairs, arms, experiments, replicates and levels."""
    pairs = {name: pair for name, pair in suite.pairs.items() if not part.pairs or name in part.pairs}
    arms = {name for pair in pairs.values() for name in pair.arms}
    labels = {label for pair in pairs.values() for label in pair.experiments}
    replicates = part.replicates or suite.replicates
    found = {
        "pairs": [name for name in suite.pairs if name not in pairs],
        "arms": sorted(arms - set(part.arms)) if part.arms else [],
        "experiments": sorted(labels - set(part.experiments)) if part.experiments else [],
        "replicates": [str(n) for n in suite.tested()[replicates:]],
        "levels": [f"above {part.levels}"] if part.levels is not None else [],
    }
    return {what: names for what, names in found.items() if names}


def _smallest(plan: Plan, prices: Prices, replicates: int) -> tuple[Subset, list[str]]:
    """What is bought of each pair first, and the pairs by its price."""
    labels = {label: e for pair in plan.suite.pairs.values() for label, e in pair.experiments.items()}
    core = tuple(sorted(label for label, e in labels.items() if isinstance(e, _CORE)))
    if not core:
        core = (min(labels, key=lambda label: (prices.of(Subset(experiments=(label,))), label)),)
    part = Subset(core, replicates=replicates, levels=-(-prices.max_level // 2))

    def price(name: str) -> float:
        return prices.of(replace(part, pairs=(name,), arms=_two_arms(plan, (name,))))

    priced = {name: price(name) for name in plan.suite.pairs}
    return part, sorted((name for name in priced if priced[name] > 0), key=lambda name: priced[name])


def _shrunk(part: Subset) -> Iterator[Subset]:
    """The part, then with fewer and fewer levels, then likewise with fewer replicates."""
    for count in range(part.replicates or 1, 0, -1):
        level = part.levels or 0
        while True:
            yield replace(part, replicates=count, levels=level)
            if level <= 1:
                break
            level //= 2


def _two_arms(plan: Plan, pairs: Iterable[str]) -> tuple[str, ...]:
    """The first arm of class late and the first other one of each pair; the first two where none is of it."""
    chosen: dict[str, None] = {}
    for name in pairs:
        arms = plan.suite.pairs[name].arms
        first = [arm for arm in arms if arms[arm].stability_class == "late"][:1] or list(arms)[:1]
        chosen |= dict.fromkeys([*first, *[arm for arm in arms if arm not in first][:1]])
    return tuple(chosen)


def _tidy(plan: Plan, prices: Prices, part: Subset) -> Subset:
    """The part without options that select everything."""
    suite = plan.suite
    names = part.pairs or tuple(suite.pairs)
    labels = {label for name in names for label in suite.pairs[name].experiments}
    arms = {arm for name in names for arm in suite.pairs[name].arms}
    return Subset(
        experiments=() if labels <= set(part.experiments) else part.experiments,
        pairs=() if set(suite.pairs) <= set(part.pairs) else part.pairs,
        arms=() if arms <= set(part.arms) else part.arms,
        replicates=None if part.replicates == suite.replicates else part.replicates,
        levels=None if part.levels is not None and part.levels >= prices.max_level else part.levels,
    )
