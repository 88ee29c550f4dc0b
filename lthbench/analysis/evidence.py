"""`Evidence`: the points of one pair, as claims select them, a value a replicate."""

from __future__ import annotations

import fnmatch
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lthbench.analysis.points import Point
from lthbench.experiments.experiment import best
from lthbench.suite.claim_tests import Levels, Selection, variant_pattern
from lthbench.suite.claims import Choice
from lthbench.suite.schema import Pair

Classes = Mapping[str, tuple[str, ...]]
THRESHOLD = 0.02
# Arm -> variant -> points.
_Points = defaultdict[str, defaultdict[str, list[Point]]]
# Before the name of an arm, which may also be that of a class.
EXACTLY = "="


class NotPlanned(LookupError):
    """The suite measures nothing of what a test needs; the message names it."""


@dataclass
class Lacking:
    """Why a replicate has no value: tasks not done yet, or a training that diverged."""

    missing: set[int] = field(default_factory=set)
    diverged: dict[int, str] = field(default_factory=dict)

    def add(self, point: Point) -> None:
        if point.status == "missing":
            self.missing.add(point.replicate)
        else:
            why = f"{point.arm} {point.variant}" + (f" at level {point.level}" if point.level else "")
            self.diverged.setdefault(point.replicate, why)


class Evidence:
    """What was measured of one pair. Selections are of the replicates that are tested, unless it is chosen by them.

    Attributes:
        planned: how many replicates.
        experiments: names of those that selections read; None is all.
        classes: `early`, `late` -> arms, in force for selections.
        chosen: what the claim's choice fell on.
        lacking, keys: what selections met since `fresh`.
    """

    def __init__(self, name: str, pair: Pair, planned: int, points: Iterable[Point]) -> None:
        self.name, self.pair, self.planned = name, pair, planned
        self._points: _Points = defaultdict(lambda: defaultdict(list))
        self._choosing: _Points = defaultdict(lambda: defaultdict(list))
        for point in points:
            (self._choosing if point.is_selection else self._points)[point.arm][point.variant].append(point)
        self.classes: Classes = named_classes(pair)
        self.chosen: str | None = None
        self.experiments: frozenset[str] | None = None
        self.fresh()

    def fresh(self) -> None:
        self.lacking, self.keys = Lacking(), dict[str, None]()

    def arms(self, arm: str) -> tuple[str, ...]:
        """The arms that a selection's arm stands for."""
        if arm == "*":
            return tuple(self.pair.arms)
        if arm.startswith(EXACTLY):
            return (arm.removeprefix(EXACTLY),)
        return self.classes.get(arm, (arm,))

    def select(self, selection: Selection, *, choosing: bool = False) -> list[tuple[Point, dict[str, str]]]:
        """The points of a selection, with what the names in its variant stand for.

        Args:
            choosing: those of selection replicates, by which something is chosen.

        Raises:
            NotPlanned: there are none.
        """
        variant = selection.variant.replace("{chosen}", self.chosen or "{chosen}")
        pattern = variant_pattern(variant)
        found = [
            (point, match.groupdict())
            for arm in self.arms(selection.arm)
            for variant_there, there in (self._choosing if choosing else self._points).get(arm, {}).items()
            if (match := pattern.fullmatch(variant_there))
            for point in there
            if selection.rewound in (None, bool(point.step))
            and selection.level in (None, point.level or 0)
            and (self.experiments is None or point.experiment in self.experiments)
        ]
        if not self.arms(selection.arm):
            raise NoArm(f"no arm is {selection.arm}-stable, as onsets were measured")
        if not found:
            rewound = " rewound to a later step" if selection.rewound else ""
            rewound += f" at level {selection.level}" if selection.level else ""
            raise NotPlanned(f"no '{variant}' of {selection.arm}{rewound}")
        return found

    def is_unfinished(self) -> bool:
        """Whether something of the experiments that selections read is not done."""
        return any(
            point.status == "missing" and (self.experiments is None or point.experiment in self.experiments)
            for variants in (*self._points.values(), *self._choosing.values())
            for there in variants.values()
            for point in there
        )

    def levels(self, name: Levels, selections: Iterable[Selection]) -> list[int | None]:
        """The levels of a set at which all selections are measured; what has level 0 only stands for every level.

        Raises:
            NotPlanned: there is no such level.
        """
        names = [name] if isinstance(name, str) else name
        wanted = [level for one in names for level in self.pair.claim_levels.get(one, ())]
        common: set[int | None] | None = None
        for selection in selections:
            per_arm: dict[str, set[int | None]] = defaultdict(set)
            for point, _ in self.select(selection):
                per_arm[point.arm].add(point.level)
            for own in per_arm.values():
                if own - {0, None}:
                    common = own if common is None else common & own
        if common is None:
            return [None]
        levels = [level for level in wanted if level in common]
        if not levels:
            shown = f"levels {', '.join(map(str, wanted))}" if wanted else f"claim_levels '{' and '.join(names)}'"
            raise NotPlanned(f"not all that is compared at any of the {shown}")
        return list(dict.fromkeys(levels))

    def values(self, selection: Selection, metric: str, level: int | None) -> dict[int, float]:
        """Replicate -> the mean of a selection at a level, in units (accuracies and barriers in percent).

        What is missing or diverged is noted in `lacking`, what was used in `keys`.
        """
        metric = selection.metric or metric
        found = self.select(selection)
        pruned = any(point.level for point, _ in found)
        numbers: dict[int, list[float]] = defaultdict(list)
        for point, _ in found:
            if pruned and level is not None and point.level != level:
                continue
            if point.status != "ok":
                self.lacking.add(point)
            elif metric in point.numbers:
                numbers[point.replicate].append(point.numbers[metric] * scale_of(metric))
                self.keys[point.key] = None
        gone = self.lacking.missing | set(self.lacking.diverged)
        return {r: math.fsum(v) / len(v) for r, v in numbers.items() if r not in gone}

    def onsets(
        self, selection: Selection, threshold: float, *, choosing: bool = False
    ) -> dict[int, tuple[float, float]]:
        """Replicate -> the interval (last unstable step, first stable step] of a selection of barriers.

        Open ends are -1 and infinity; a line that was refused (divergence) is unstable. Of several arms the ends
        are averaged.
        """
        barriers: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for point, _ in self.select(selection.model_copy(update={"rewound": None, "level": 0}), choosing=choosing):
            if point.status == "missing":
                self.lacking.add(point)
            else:
                self.keys[point.key] = None
                barrier = point.numbers.get("test_barrier", math.inf)
                barriers[point.arm, point.replicate][point.step or 0].append(barrier)
        ends: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for (_, replicate), steps in barriers.items():
            if replicate not in self.lacking.missing:
                ends[replicate].append(_onset({s: sum(b) / len(b) for s, b in steps.items()}, threshold))
        return {r: (sum(e[0] for e in v) / len(v), sum(e[1] for e in v) / len(v)) for r, v in sorted(ends.items())}

    def choose(self, choice: Choice | None) -> None:
        """Set `chosen` to the variant with the best mean over the selection replicates, or to the only one there is.

        Raises:
            NoSelection: there are several, and no replicates to choose by.
            Unfinished: a candidate is not done.
        """
        self.chosen = None
        if choice is None:
            return
        candidates = dict.fromkeys(names["chosen"] for point, names in self.select(choice.among) if point.level)
        if len(candidates) == 1:
            (self.chosen,) = candidates
            return
        try:
            found = self.select(choice.among, choosing=True)
        except NotPlanned:
            raise NoSelection(list(candidates)) from None
        means: dict[str, list[float]] = defaultdict(list)
        for point, names in found:
            if not point.level:
                continue
            if point.status == "missing":
                raise Unfinished(f"'{point.variant}' of all selection replicates")
            if point.status == "ok" and choice.by not in point.numbers:
                raise NotPlanned(f"no {choice.by} of '{point.variant}', to choose by")
            # One that diverges somewhere is no candidate.
            means[names["chosen"]].append(point.numbers.get(choice.by, -math.inf))
        self.chosen = best(means)

    def measured_classes(self) -> tuple[Classes, str]:
        """The classes of the arms by their measured onsets, and by which rule they were taken.

        The arm named `late` is the standard. A candidate, whose name begins with `early`, is early-stable where in
        most replicates its onset lies clearly, that is with no overlap of intervals, before the standard's.
        """
        named = named_classes(self.pair)
        try:
            onsets = {
                arm: self.onsets(Selection(arm=EXACTLY + arm, variant="barrier"), THRESHOLD)
                for arm in (*named["early"], *named["late"])
            }
        except NotPlanned:
            return named, "by name; onsets are not measured"
        if self.lacking.missing or not named["late"]:
            return named, "by name; onsets are not all measured"
        standard = onsets[named["late"][0]]
        early = []
        for arm in named["early"]:
            before = [onsets[arm][r][1] <= standard[r][0] for r in standard if r in onsets[arm]]
            if 2 * sum(before) > len(standard):
                early.append(arm)
        return {"early": tuple(early), "late": named["late"]}, "by measured onset"


class NoArm(Exception):
    """A class of arms that a test needs is empty."""


class NoSelection(Exception):
    """A choice would be by the replicates that are tested: the best of several is the better for chance alone."""

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(
            f"it must be chosen among {', '.join(candidates)}, and no replicates are there to choose by that are not "
            "tested; give the suite `selection_replicates: 2`, or a single candidate"
        )


class Unfinished(Exception):
    """Something must be done before a test can begin; the message names it."""


def named_classes(pair: Pair) -> Classes:
    """`early`: arms whose names begin so; `late`: the arm of that name, or the first that begins so."""
    late = sorted(fnmatch.filter(pair.arms, "late*"), key=lambda name: name != "late")
    return {"early": tuple(fnmatch.filter(pair.arms, "early*")), "late": tuple(late[:1])}


def scale_of(metric: str) -> float:
    """Fractions are shown as percentage points."""
    return 100.0 if unit_of(metric) == "pp" else 1.0


def unit_of(metric: str) -> str:
    """The unit of differences of a metric."""
    return "pp" if metric.endswith(("accuracy", "barrier")) and "loss" not in metric else ""


def _onset(barriers: Mapping[int, float], threshold: float) -> tuple[float, float]:
    stable = [step for step, barrier in barriers.items() if barrier < threshold]
    first = min(stable) if stable else math.inf
    unstable: Sequence[float] = [step for step in barriers if step < first]
    return float(max(unstable, default=-1)), float(first)
