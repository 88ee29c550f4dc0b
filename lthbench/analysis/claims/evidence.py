"""`Evidence`: the points of one pair, as claims select them, one value per replicate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lthbench.analysis.points import MeasuredPoint
from lthbench.experiments.experiment import best
from lthbench.suite.claim_tests import Levels, Selection, variant_pattern
from lthbench.suite.claims import Choice
from lthbench.suite.schema import Pair

THRESHOLD = 0.02
# Arm -> variant -> points.
_Points = defaultdict[str, defaultdict[str, list[MeasuredPoint]]]
ONSET_BY = "validation_barrier"
# The prefix of an arm's name, which may also be the name of a class.
EXACTLY = "="


class NotPlanned(LookupError):
    """The suite measures nothing of what a test needs; the message names it."""


@dataclass
class Lacking:
    """Why a replicate has no value: tasks not done yet, a training that diverged, or a dense network at chance."""

    missing: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, point: MeasuredPoint) -> None:
        if point.status == "missing":
            self.missing.add(point.replicate)
        else:
            what = f"{point.arm} {point.variant}" + (f" at level {point.level}" if point.level else "")
            what = f"the dense network of {what} is at chance" if point.status == "at chance" else f"{what} diverged"
            self.failed.setdefault(point.replicate, what)


@dataclass(frozen=True)
class Classes:
    """The arms that count as early- and late-stable, and by which rule."""

    early: tuple[str, ...]
    late: tuple[str, ...]
    rule: str

    def __str__(self) -> str:
        kinds = {"early": self.early, "late": self.late}
        return "; ".join(f"{kind}: {', '.join(names) or 'none'}" for kind, names in kinds.items()) + f" ({self.rule})"


@dataclass(frozen=True)
class OnsetInterval:
    """The interval in which an onset lies, as shares of training: above `low`, at or below `high`.

    Attributes:
        low: the last unstable point; -1 where none was measured.
        high: the first stable one; 1 if there is none, since children spawned at the end are one network.
        is_monotone: whether all points measured after the first stable one are stable. Where they are not, the onset
            lies somewhere between the last unstable point before the first stable one and the first stable point after
            the last unstable one.
    """

    low: float
    high: float
    is_monotone: bool = True


class Evidence:
    """The measurements of one pair. Selections are of the tested replicates, unless they are for a choice.

    Attributes:
        replicates: the numbers of those that are tested.
        experiments: names of those that selections read; None is all.
        classes: in force for selections.
        chosen: the variant that the claim chose.
        lacking, keys: the replicates without a value, and the tasks, that selections have met since `fresh`.
        undefined: tasks left out since then because they lack a number -> their description and the metric.
    """

    def __init__(self, name: str, pair: Pair, replicates: Collection[int], points: Iterable[MeasuredPoint]) -> None:
        self.name, self.pair, self.replicates = name, pair, replicates
        self._points: _Points = defaultdict(lambda: defaultdict(list))
        self._choosing: _Points = defaultdict(lambda: defaultdict(list))
        for point in points:
            (self._choosing if point.is_selection else self._points)[point.arm][point.variant].append(point)
        self.classes = stated_classes(pair)
        self.chosen: str | None = None
        self.experiments: frozenset[str] | None = None
        self.fresh()

    @property
    def planned(self) -> int:
        """How many replicates are planned."""
        return len(self.replicates)

    def fresh(self) -> None:
        self.lacking, self.keys = Lacking(), dict[str, None]()
        self.undefined: dict[frozenset[str], tuple[str, str]] = {}

    def leave_out(self, keys: frozenset[str], name: str, metric: str, replicates: Iterable[int]) -> None:
        """Record that some tasks lack a further number: not yet, if anything is still to be done, or for good."""
        if self.is_unfinished():
            self.lacking.missing.update(replicates)
        else:
            self.undefined.setdefault(keys, (name, metric))

    def left_out(self) -> str:
        """What was left out because it lacks a number, in words; empty if nothing was."""
        names: dict[str, dict[str, None]] = defaultdict(dict)
        for name, metric in self.undefined.values():
            names[metric.replace("_", " ")][name] = None
        return "; ".join(f"{len(those)} left out without {what}: {', '.join(those)}" for what, those in names.items())

    def arms(self, arm: str) -> tuple[str, ...]:
        """The arms that a selection's arm stands for."""
        if arm == "*":
            return tuple(self.pair.arms)
        if arm.startswith(EXACTLY):
            return (arm.removeprefix(EXACTLY),)
        return {"early": self.classes.early, "late": self.classes.late}.get(arm, (arm,))

    def select(self, selection: Selection, *, choosing: bool = False) -> list[tuple[MeasuredPoint, dict[str, str]]]:
        """The points of a selection, with what the names in its variant stand for.

        Args:
            choosing: select from the selection replicates, to choose something.

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
            raise NoArm(f"no arm is {selection.arm}-stable, {self.classes.rule}")
        if not found:
            rewound = " rewound to a later step" if selection.rewound else ""
            rewound += f" at level {selection.level}" if selection.level else ""
            raise NotPlanned(f"no '{variant}' of {selection.arm}{rewound}")
        return found

    def is_unfinished(self) -> bool:
        """Whether a task of the experiments that selections read is not done."""
        return any(
            point.status == "missing" and (self.experiments is None or point.experiment in self.experiments)
            for variants in (*self._points.values(), *self._choosing.values())
            for there in variants.values()
            for point in there
        )

    def levels(self, name: Levels, selections: Iterable[Selection]) -> list[int | None]:
        """The levels of a set at which all selections are measured; one with level 0 alone counts at every level.

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

        Replicates that are missing or failed are recorded in `lacking`, the tasks used in `keys`.
        """
        metric = selection.metric or metric
        found = self.select(selection)
        pruned = any(point.level for point, _ in found)
        numbers: dict[int, list[float]] = defaultdict(list)
        gone = set()
        for point, _ in found:
            if pruned and level is not None and point.level != level:
                continue
            if point.status != "ok":
                self.lacking.add(point)
                gone.add(point.replicate)
            elif metric in point.numbers:
                numbers[point.replicate].append(point.numbers[metric] * scale_of(metric))
                self.keys[point.key] = None
        return {r: math.fsum(v) / len(v) for r, v in numbers.items() if r not in gone}

    def onsets(self, selection: Selection, threshold: float, *, choosing: bool = False) -> dict[int, OnsetInterval]:
        """Replicate -> the interval of the onset of a selection of barriers; for several arms the ends are averaged.

        Stability is decided on validation images; a barrier that was refused (divergence) is unstable. A network at
        chance is neither: its replicate has failed.

        Raises:
            NotPlanned: the selection has none, or no validation barriers.
        """
        barriers: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        gone = set()
        for point, _ in self.select(selection.model_copy(update={"rewound": None, "level": 0}), choosing=choosing):
            if point.status in ("missing", "at chance"):
                self.lacking.add(point)
                gone.add(point.replicate)
                continue
            if point.status == "ok" and ONSET_BY not in point.numbers:
                raise NotPlanned(f"no {ONSET_BY} of '{point.variant}'; give the data validation images")
            self.keys[point.key] = None
            barriers[point.arm, point.replicate][point.share or 0.0].append(point.numbers.get(ONSET_BY, math.inf))
        found: dict[int, list[OnsetInterval]] = defaultdict(list)
        for (_, replicate), points in sorted(barriers.items()):
            if replicate not in gone:
                found[replicate].append(onset_interval({at: sum(b) / len(b) for at, b in points.items()}, threshold))
        return {replicate: mean_onset(own) for replicate, own in sorted(found.items())}

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
            # One that fails somewhere is no candidate.
            means[names["chosen"]].append(point.numbers[choice.by] if point.status == "ok" else -math.inf)
        self.chosen = best(means)

    def measured_classes(self) -> Classes:
        """The classes of the arms by their measured onsets; as the suite says where these are not all measured.

        The late arms are the reference. An early arm is early-stable if in most replicates its onset lies before that
        of every late arm, and their intervals do not overlap. The replicates are those for selection; if a suite has
        none, the tested ones, which is reported.
        """
        stated = stated_classes(self.pair)
        choosing = any("barrier" in variants for variants in self._choosing.values())
        try:
            onsets = {
                arm: self.onsets(Selection(arm=EXACTLY + arm, variant="barrier"), THRESHOLD, choosing=choosing)
                for arm in (*stated.early, *stated.late)
            }
        except NotPlanned:
            return replace(stated, rule=f"{stated.rule}; onsets are not measured")
        if self.lacking.missing or not stated.late:
            return replace(stated, rule=f"{stated.rule}; onsets are not all measured")
        replicates = set.intersection(*(set(onsets[arm]) for arm in stated.late))
        standard = {r: min(onsets[arm][r].low for arm in stated.late) for r in replicates}
        early = []
        for arm in stated.early:
            before = [onsets[arm][r].high <= standard[r] for r in standard if r in onsets[arm]]
            if 2 * sum(before) > len(standard):
                early.append(arm)
        whose = "selection replicates" if choosing else "the tested replicates, for want of selection replicates"
        return Classes(tuple(early), stated.late, f"by measured onsets of {whose}")


class NoArm(Exception):
    """A class of arms that a test needs is empty."""


class NoSelection(Exception):
    """A choice would be made on the tested replicates: the best of several looks better by chance alone."""

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(
            f"it must be chosen among {', '.join(candidates)}, and no replicates are there to choose by that are not "
            "tested; give the suite `selection_replicates: 2`, or a single candidate"
        )


class Unfinished(Exception):
    """Something must be run before a test is possible; the message names it."""


def stated_classes(pair: Pair) -> Classes:
    """The classes that the suite gives its arms."""
    arms: dict[str | None, list[str]] = defaultdict(list)
    for name, arm in pair.arms.items():
        arms[arm.stability_class].append(name)
    return Classes(tuple(arms["early"]), tuple(arms["late"]), "by the suite's `class`")


def scale_of(metric: str) -> float:
    """Fractions are shown as percentage points."""
    return 100.0 if unit_of(metric) == "pp" else 1.0


def unit_of(metric: str) -> str:
    """The unit of differences of a metric."""
    return "pp" if metric.endswith(("accuracy", "barrier")) and "loss" not in metric else ""


def onset_interval(barriers: Mapping[float, float], threshold: float) -> OnsetInterval:
    """The interval of the onset, from the barriers at some points of training."""
    stable = {at for at, barrier in barriers.items() if barrier < threshold}
    unstable = barriers.keys() - stable
    first, last = min(stable, default=1.0), max(unstable, default=-1.0)
    return OnsetInterval(
        low=max((at for at in unstable if at < first), default=-1.0),
        high=min((at for at in stable if at > last), default=1.0),
        is_monotone=last < first,
    )


def mean_onset(onsets: Sequence[OnsetInterval]) -> OnsetInterval:
    """The interval of the mean of some onsets."""
    low = -1.0
    if any(onset.low >= 0 for onset in onsets):
        low = sum(max(onset.low, 0.0) for onset in onsets) / len(onsets)
    high = sum(onset.high for onset in onsets) / len(onsets)
    return OnsetInterval(low, high, all(onset.is_monotone for onset in onsets))
