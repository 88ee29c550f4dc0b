"""`Lane`: the tasks of one pair, arm and replicate that must follow each other; what one job of a cluster runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from lthbench.experiments import EXPERIMENTS
from lthbench.suite.plan import Plan


@dataclass(frozen=True)
class LaneOwner:
    """The owner of a task: the first experiment that needs it, in the first cell with that experiment."""

    pair: str
    arm: str
    replicate: int
    experiment: str

    def __str__(self) -> str:
        return f"{self.pair}/{self.arm}/{self.replicate}/{self.experiment}"


@dataclass(frozen=True)
class Lane:
    """Some tasks of one owner, in an order in which they can run.

    Attributes:
        part: number of the lane among those of its owner.
        keys: each after those of its inputs that are in the lane.
        after: positions, in the list of lanes, of those that have other inputs; they are smaller than the lane's own.
    """

    home: LaneOwner
    part: int
    keys: tuple[str, ...]
    after: frozenset[int]

    def __str__(self) -> str:
        return f"{self.home}/{self.part}"


def owners(plan: Plan) -> dict[str, LaneOwner]:
    """Key -> owner of every task, in an order in which no owner needs a later one.

    Experiments, in the order in which EXPERIMENTS has them, go before cells: the masks that one arm takes from another
    belong to the other's search, if there is one.
    """
    order = {experiment: position for position, experiment in enumerate(EXPERIMENTS.values())}
    position = {
        (name, label): order[type(experiment)]
        for name, pair in plan.suite.pairs.items()
        for label, experiment in pair.experiments.items()
    }
    found: dict[str, LaneOwner] = {}
    for placed in sorted(plan.measurements, key=lambda placed: position[placed.cell.pair, placed.experiment]):
        cell = placed.cell
        home = LaneOwner(cell.pair, cell.arm, cell.replicate, placed.experiment)
        pending = [placed.measurement.task, *placed.measurement.others]
        while pending:
            task = pending.pop()
            if task.key not in found:
                found[task.key] = home
                pending += task.inputs
    return found


def make_lanes(plan: Plan, keys: Collection[str] | None = None) -> list[Lane]:
    """Lay the tasks of a plan, or some of them, out in lanes; every task is in one lane.

    Tasks of one owner that depend on each other, directly or through others of that owner, share a lane. Those that do
    not, and wait for the same lanes, share one as long as it costs no more than the longest chain of tasks that goes
    through their cell, so that small tasks make few jobs and large ones many.
    """
    wanted = plan.tasks.keys() if keys is None else set(keys)
    owner_of = owners(plan)
    members: dict[LaneOwner, list[str]] = {home: [] for home in dict.fromkeys(owner_of.values())}
    longest: dict[tuple[str, str, int], float] = defaultdict(float)
    for key in plan.tasks:
        home = owner_of[key]
        cell = home.pair, home.arm, home.replicate
        longest[cell] = max(longest[cell], plan.depth[key])
        if key in wanted:
            members[home].append(key)
    lanes: list[Lane] = []
    lane_of: dict[str, int] = {}
    for home, own in members.items():
        packs: dict[frozenset[int], list[list[str]]] = {}
        cost: dict[frozenset[int], float] = defaultdict(float)
        for group in _connected(plan, own):
            after = frozenset(lane_of[t.key] for key in group for t in plan.tasks[key].inputs if t.key in lane_of)
            expense = sum(plan.cost[key] for key in group)
            packed = packs.setdefault(after, [])
            if not packed or cost[after] + expense > longest[home.pair, home.arm, home.replicate]:
                packed.append([])
                cost[after] = 0.0
            packed[-1] += group
            cost[after] += expense
        contents = [(after, pack) for after, packed in packs.items() for pack in packed]
        for part, (after, pack) in enumerate(contents):
            lane_of |= dict.fromkeys(pack, len(lanes))
            lanes.append(Lane(home, part, tuple(pack), after))
    return lanes


def waves(lanes: Iterable[Lane]) -> Iterator[tuple[frozenset[int], list[int]]]:
    """Lanes that wait for the same others, by position, each group after all that it waits for."""
    depth: list[int] = []
    groups: dict[tuple[int, frozenset[int]], list[int]] = {}
    for position, lane in enumerate(lanes):
        depth.append(1 + max((depth[other] for other in lane.after), default=-1))
        groups.setdefault((depth[position], lane.after), []).append(position)
    for (_, after), positions in sorted(groups.items(), key=lambda item: (item[0][0], item[1][0])):
        yield after, positions


def _connected(plan: Plan, keys: list[str]) -> Iterator[list[str]]:
    """The keys in groups that no input leads out of or into, in the order in which they are given."""
    root = {key: key for key in keys}

    def find(key: str) -> str:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for key in keys:
        for task in plan.tasks[key].inputs:
            if task.key in root:
                root[find(key)] = find(task.key)
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(find(key), []).append(key)
    yield from groups.values()
