"""Lanes: every task in one of them, none waiting for itself, inputs first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lthbench.experiments import Cell, Measurement
from lthbench.runner.slurm.lanes import make_lanes, owners, waves
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, PlannedMeasurement, make_plan
from lthbench.suite.subset import Subset
from lthbench.tasks.spec import MaskSpec, Task, Weights
from lthbench.tasks.store import Store


def check(plan: Plan, keys: set[str] | None = None) -> None:
    """The laws that any layout of lanes obeys."""
    lanes = make_lanes(plan, keys)
    laid_out = [key for lane in lanes for key in lane.keys]
    assert sorted(laid_out) == sorted(plan.tasks if keys is None else keys), "each task is in exactly one lane"
    where = {key: position for position, lane in enumerate(lanes) for key in lane.keys}
    owner_of = owners(plan)
    for position, lane in enumerate(lanes):
        needed = set()
        for index, key in enumerate(lane.keys):
            assert owner_of[key] == lane.home
            for task in plan.tasks[key].inputs:
                if where.get(task.key) == position:
                    assert task.key in lane.keys[:index], "inputs of a lane's own come first"
                elif task.key in where:
                    needed.add(where[task.key])
        assert lane.after == needed
        assert all(other < position for other in needed), "no lane waits, however indirectly, for itself"
    sent: set[int] = set()
    for after, positions in waves(lanes):
        assert after <= sent, "what an array waits for is submitted before it"
        assert all(lanes[p].after == after for p in positions)
        sent |= set(positions)
    assert sent == set(range(len(lanes)))


@st.composite
def plans(draw: st.DrawFn, empty: Plan, cells: list[Cell]) -> Plan:
    """A plan whose tasks need any earlier ones, of any cell and experiment."""
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 25))):
        inputs = draw(st.lists(st.sampled_from(tasks), max_size=2, unique=True)) if tasks else []
        names = dict(zip(("network", "prior"), inputs, strict=False))
        spec = MaskSpec(
            level=number + 1,
            network=Weights(task=names["network"].key) if "network" in names else None,
            prior=names["prior"].key if "prior" in names else None,
        )
        tasks.append(Task(spec, tuple(inputs)))
    plan = Plan(empty.suite)
    for cell in cells:
        for label in plan.suite.pairs[cell.pair].experiments:
            for task in draw(st.lists(st.sampled_from(tasks), max_size=4)):
                plan.measurements.append(PlannedMeasurement(cell, label, Measurement(task, "any")))
                plan.add(task, label, cell)
    return plan


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.data())
def test_lanes_are_a_graph_without_cycles_whatever_needs_what(
    tiny_run: tuple[Plan, Store], data: st.DataObject
) -> None:
    empty = replace(tiny_run[0], measurements=[])
    plan = data.draw(plans(empty, list(empty.suite.cells())))
    check(plan)
    if plan.tasks:
        check(plan, data.draw(st.sets(st.sampled_from(list(plan.tasks)))))


def test_lanes_of_every_shipped_suite_obey_the_laws() -> None:
    for path in (Path(__file__).parents[2] / "suites").glob("*.yaml"):
        if path.name != "paper.yaml":  # which is made of the others
            check(make_plan(load_suite(path), Subset(replicates=2)))


def test_masks_that_arms_take_from_each_other_belong_to_the_lane_of_the_search_that_finds_them(
    tiny_suite: Path,
) -> None:
    tiny_suite.write_text(
        tiny_suite.read_text().replace("    experiments:\n", "    experiments:\n      crossed-masks: {levels: [2]}\n")
    )
    plan = make_plan(load_suite(tiny_suite))
    check(plan)
    owner_of = owners(plan)
    for cell in plan.suite.cells():
        assert str(owner_of[cell.ticket(2).key]) == f"tiny/{cell.arm}/0/imp"
    crossed = [lane for lane in make_lanes(plan) if lane.home.experiment == "crossed-masks"]
    assert len(crossed) == 2 and all(len(lane.keys) == 1 for lane in crossed)


def test_small_tasks_that_wait_for_the_same_share_a_lane_and_long_chains_do_not() -> None:
    plan = make_plan(load_suite(Path(__file__).parents[2] / "suites" / "resnet20-cifar10.yaml"), Subset(replicates=2))
    for lane in make_lanes(plan):
        cell = (lane.home.pair, lane.home.arm, lane.home.replicate)
        longest = max(
            plan.depth[key] for key, home in owners(plan).items() if (home.pair, home.arm, home.replicate) == cell
        )
        chains = [key for key in lane.keys if all(t.key not in lane.keys for t in plan.tasks[key].inputs)]
        assert sum(plan.cost[key] for key in lane.keys) <= longest * 1.0001 or len(chains) == 1
