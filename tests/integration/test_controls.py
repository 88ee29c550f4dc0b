"""Each control holds what the sentence that defines it says, and nothing else of the ticket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import plan_of, run_here
from torch import Tensor

from lthbench.experiments import Cell
from lthbench.experiments.controls import REINITIALISATION, control
from lthbench.experiments.generalisation import untrained
from lthbench.experiments.regulariser import OTHER_INITIALISATION, pulled
from lthbench.suite.plan import Plan
from lthbench.tasks.context import Context
from lthbench.tasks.paths import MASK, weights_file
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.start import Start, anchors_of, start_of
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import read_mask, read_tensors

LEVEL = 2
Starts = Callable[[Task], Start]
HIDDEN = ("fc1.weight", "fc2.weight")


@pytest.fixture
def context(tiny_run: tuple[Plan, Store], tmp_path: Path) -> Context:
    return Context(folder=tmp_path, folder_of=tiny_run[1].folder)


@pytest.fixture
def start(context: Context) -> Starts:
    """The network of a training as it stands before the first step."""
    return lambda task: start_of(task.spec, context)  # type: ignore[arg-type]


def weights(start: Start) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in start.model.named_parameters()}


def survivors(start: Start) -> dict[str, Tensor]:
    """The surviving weights of each layer, in the order of their size."""
    own = weights(start)
    return {name: own[name][m].sort().values for name, m in start.mask.items()}


@pytest.mark.parametrize("rewind", [0, 5])
def test_shuffled_weights_are_the_tickets_own_in_other_places(cell: Cell, start: Starts, rewind: int) -> None:
    ticket, shuffled = start(cell.ticket(LEVEL, rewind)), start(control(cell, "shuffled-weights", LEVEL, rewind))
    assert all(torch.equal(ticket.mask[n], shuffled.mask[n]) for n in ticket.mask)
    for name, values in survivors(ticket).items():
        assert torch.equal(values, survivors(shuffled)[name]), name
        moved = weights(ticket)[name] != weights(shuffled)[name]
        assert moved.sum() > 0.8 * len(values)
    if not rewind:
        assert all(torch.equal(shuffled.initial[n][m], weights(shuffled)[n][m]) for n, m in shuffled.mask.items())


def test_a_reinitialisation_has_the_mask_and_none_of_the_weights(cell: Cell, start: Starts) -> None:
    ticket, reinit = start(cell.ticket(LEVEL)), start(control(cell, "reinit", LEVEL, 0))
    for name, m in ticket.mask.items():
        assert torch.equal(m, reinit.mask[name])
        assert not (weights(ticket)[name][m] == weights(reinit)[name][m]).any()
        assert abs(ticket.initial[name].std() / reinit.initial[name].std() - 1) < 0.2, "of one distribution"


@pytest.mark.parametrize("kind", ["reinit", "shuffled-weights"])
def test_a_control_under_the_pull_is_pulled_to_its_own_initialisation(
    cell: Cell, context: Context, start: Starts, kind: str
) -> None:
    task = control(cell, kind, LEVEL, 0).with_fields(recipe=pulled(cell.recipe, 0.1, "kept"))  # type: ignore[arg-type]
    begun = start(task)
    assert isinstance(task.spec, TrainSpec)
    for name, anchor in anchors_of(task.spec, begun, context).items():
        assert torch.equal(anchor[begun.mask[name]], weights(begun)[name][begun.mask[name]])


def test_another_initialisation_is_pulled_to_and_not_started_from(cell: Cell, context: Context, start: Starts) -> None:
    task = cell.with_search(pulled(cell.search, 0.1, "kept"), anchor=OTHER_INITIALISATION).searched(0)
    begun, dense = start(task), start(cell.dense())
    assert isinstance(task.spec, TrainSpec) and OTHER_INITIALISATION != REINITIALISATION
    for name, anchor in anchors_of(task.spec, begun, context).items():
        assert torch.equal(weights(begun)[name], weights(dense)[name])
        assert not (anchor == weights(begun)[name]).any()
        assert abs(anchor.std() / weights(begun)[name].std() - 1) < 0.2


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_an_imitated_mask_keeps_the_initial_weights_and_the_layer_densities(
    cell: Cell, start: Starts, kind: str
) -> None:
    ticket, imitation = start(cell.ticket(LEVEL)), start(control(cell, kind, LEVEL, 0))  # type: ignore[arg-type]
    initial = weights(start(cell.dense()))
    for name, m in imitation.mask.items():
        assert int(m.sum()) == int(ticket.mask[name].sum()) and not torch.equal(m, ticket.mask[name])
        assert torch.equal(weights(imitation)[name], torch.where(m, initial[name], 0.0))
        if kind == "shuffled":
            assert all(
                torch.equal(m.sum(dim).sort().values, ticket.mask[name].sum(dim).sort().values) for dim in (0, 1)
            )


@pytest.mark.parametrize("kind", ["one-shot", "movement"])
def test_a_mask_found_at_once_keeps_what_the_dense_network_ranks_highest(
    tiny_run: tuple[Plan, Store], cell: Cell, tmp_path: Path, kind: str
) -> None:
    task = control(cell, kind, LEVEL, 0)  # type: ignore[arg-type]
    _, store = run_here(plan_of(tiny_run[0], cell, task), tmp_path)
    folder = store.folder(task.spec.mask)  # type: ignore[union-attr, arg-type]
    mask = read_mask(folder / MASK)
    trained = read_tensors(store.folder(cell.dense().key) / weights_file(None))[0]
    begun = weights(start_of(cell.dense().spec, Context(tmp_path, store.folder)))  # type: ignore[arg-type]
    scores = {n: trained[n].abs() - (begun[n].abs() if kind == "movement" else 0) for n in HIDDEN}
    kept, pruned = (torch.cat([scores[n][mask[n] == survive] for n in HIDDEN]) for survive in (True, False))
    assert kept.min() >= pruned.max()
    ticket = read_mask(tiny_run[1].folder(cell.mask(LEVEL).key) / MASK)  # type: ignore[union-attr]
    assert sum(int(mask[n].sum()) for n in HIDDEN) == sum(int(ticket[n].sum()) for n in HIDDEN)
    assert int(mask["fc.weight"].sum()) == int(ticket["fc.weight"].sum())


@pytest.mark.parametrize("network", ["ticket", "reinit", "shuffled-weights", "random"])
def test_a_probe_sees_the_network_that_its_control_is_trained_from(cell: Cell, start: Starts, network: str) -> None:
    mask, fields = untrained(cell, network, LEVEL)  # type: ignore[arg-type]
    probed = start(cell.train(mask=mask, probe="estimated", **fields))
    trained = cell.ticket(LEVEL) if network == "ticket" else control(cell, network, LEVEL, 0)  # type: ignore[arg-type]
    assert all(torch.equal(t, weights(start(trained))[n]) for n, t in weights(probed).items())


def test_a_new_head_is_dense_and_drawn_anew_and_all_else_is_the_tickets(cell: Cell, start: Starts) -> None:
    moved = cell.train(start=(cell.ticket(LEVEL), None), mask=cell.mask(LEVEL), new_head=True)
    source, there = start(cell.train(start=(cell.ticket(LEVEL), None), mask=cell.mask(LEVEL))), start(moved)
    for name, t in weights(source).items():
        assert torch.equal(t, weights(there)[name]) != name.startswith("fc."), name
    assert "fc.weight" not in there.mask and bool(weights(there)["fc.weight"].all())


def test_a_crossed_mask_is_another_arms_on_this_arms_initial_weights(cell: Cell, start: Starts) -> None:
    late = cell.with_arm("late")
    crossed, own = start(cell.train(mask=late.mask(LEVEL), noise=LEVEL)), start(cell.dense())
    assert all(torch.equal(m, start(late.ticket(LEVEL)).mask[n]) for n, m in crossed.mask.items())
    for name, m in crossed.mask.items():
        assert torch.equal(weights(crossed)[name], torch.where(m, weights(own)[name], 0.0))
