"""Facts about lottery tickets, on a narrow LeNet that trains in a moment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plan_of, run_here

from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.engine.linear_path import LinearPathResult, evaluate_linear_path
from lthbench.experiments import Cell
from lthbench.ops._library import kernels_available
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.suite.plan import Plan
from lthbench.tasks import interpolate, start
from lthbench.tasks.context import Context
from lthbench.tasks.layout import Layout, pruning_groups
from lthbench.tasks.mask import prune
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights
from lthbench.tasks.paths import MASK, weights_file
from lthbench.tasks.spec import InterpolateSpec, Pruning, Task, TrainSpec, num_survivors
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import digest, read_mask, read_tensors
from lthbench.training.loop import Trainer

Run = tuple[Plan, Store]


def weights(store: Store, task: Task, step: int | None = None) -> dict[str, torch.Tensor]:
    return read_tensors(store.folder(task.key) / weights_file(step))[0]


def mask_of(store: Store, task: Task | None) -> dict[str, torch.Tensor]:
    assert task is not None
    return read_mask(store.folder(task.key) / MASK)


def result(store: Store, task: Task) -> dict[str, object]:
    found = store.result(task.key)
    assert found is not None
    return found


def test_each_level_has_exactly_the_survivors_of_its_density(tiny_run: Run, cell: Cell) -> None:
    _, store = tiny_run
    for level in (1, 2):
        mask = mask_of(store, cell.mask(level))
        hidden = [m for name, m in mask.items() if name != "fc.weight"]
        assert sum(int(m.sum()) for m in hidden) == num_survivors(sum(m.numel() for m in hidden), 0.36, level)
        assert int(mask["fc.weight"].sum()) == num_survivors(mask["fc.weight"].numel(), 0.18, level)


def test_a_mask_lies_within_the_mask_before_it(tiny_run: Run, cell: Cell) -> None:
    first, second = (mask_of(tiny_run[1], cell.mask(level)) for level in (1, 2))
    assert all(bool((first[name] | ~second[name]).all()) for name in first)


def test_what_is_pruned_is_smaller_than_what_survives(tiny_run: Run, cell: Cell) -> None:
    trained, mask = weights(tiny_run[1], cell.dense()), mask_of(tiny_run[1], cell.mask(1))
    names = ["fc1.weight", "fc2.weight"]
    pruned = torch.cat([trained[n][~mask[n]] for n in names]).abs()
    survivors = torch.cat([trained[n][mask[n]] for n in names]).abs()
    assert pruned.max() <= survivors.min()


def test_pruned_weights_are_exactly_zero_after_training(tiny_run: Run, cell: Cell) -> None:
    for level in (1, 2):
        trained, mask = weights(tiny_run[1], cell.ticket(level)), mask_of(tiny_run[1], cell.mask(level))
        for name, m in mask.items():
            assert not trained[name][~m].any()
            assert trained[name][m].any()


def test_rewound_weights_are_bitwise_those_of_the_kept_step(tiny_run: Run, cell: Cell) -> None:
    store, ticket = tiny_run[1], cell.ticket(2, rewind=5)
    assert isinstance(ticket.spec, TrainSpec)
    assert ticket.spec.begin == 5
    kept, mask = weights(store, cell.dense(), step=5), mask_of(store, cell.mask(2, rewind=5))
    rewound = {name: torch.where(mask[name], t, 0.0) if name in mask else t for name, t in kept.items()}
    digests = result(store, ticket)["digests"]
    assert isinstance(digests, dict)
    assert digests["start"] == digest(rewound)


def test_children_of_one_step_start_from_the_same_weights_and_end_apart(tiny_run: Run, cell: Cell) -> None:
    for step in (0, 7):
        a, b = (result(tiny_run[1], cell.train(start=(cell.dense(), step), noise=n)) for n in (0, 1001))
        assert a["digests"]["start"] == b["digests"]["start"]  # type: ignore[index]
        assert a["digests"]["weights"] != b["digests"]["weights"]  # type: ignore[index]


def test_a_training_to_the_end_agrees_with_its_kept_step_and_its_continuation(
    tiny_run: Run, cell: Cell, tmp_path: Path
) -> None:
    """Without momentum, training from the kept step with the same noise is the rest of the same training."""
    plain = cell.recipe.model_copy(update={"optimizer": cell.recipe.optimizer.model_copy(update={"momentum": 0.0})})
    whole = cell.train(recipe=plain)
    rest = cell.train(recipe=plain, start=(whole, 6))
    _, store = run_here(plan_of(tiny_run[0], cell, rest), tmp_path)
    assert result(store, whole)["digests"]["weights"] == result(store, rest)["digests"]["weights"]  # type: ignore[index]


def test_the_same_specification_gives_the_same_bits(tiny_run: Run, cell: Cell, tmp_path: Path) -> None:
    ticket = cell.ticket(1)
    _, again = run_here(plan_of(tiny_run[0], cell, ticket), tmp_path)
    for task in (cell.dense(), ticket):
        first, second = result(tiny_run[1], task), result(again, task)
        for volatile in ("seconds", "finished", "kept", "artefacts", "digest"):
            first.pop(volatile), second.pop(volatile)
        assert first == second


def test_a_random_mask_has_the_layer_densities_of_the_searched_one(tiny_run: Run, cell: Cell) -> None:
    searched, random = (mask_of(tiny_run[1], m) for m in (cell.mask(2), cell.imitated_mask("random", cell.mask(2), 2)))
    assert {n: int(m.sum()) for n, m in searched.items()} == {n: int(m.sum()) for n, m in random.items()}
    assert any(bool((searched[n] != random[n]).any()) for n in searched)


def test_a_reinitialisation_has_other_weights_on_the_same_mask(tiny_run: Run, cell: Cell) -> None:
    store = tiny_run[1]
    ticket, reinit = result(store, cell.ticket(2)), result(store, cell.train(mask=cell.mask(2), noise=2, init=1))
    assert ticket["layer_density"] == reinit["layer_density"]
    assert ticket["digests"]["start"] != reinit["digests"]["start"]  # type: ignore[index]


def test_the_barrier_of_a_network_with_itself_is_zero(tiny_run: Run, cell: Cell, tmp_path: Path) -> None:
    line = cell.line(cell.dense(), cell.dense(), points=7)
    _, store = run_here(plan_of(tiny_run[0], cell, line), tmp_path)
    metrics = result(store, line)["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["test_barrier"] == metrics["train_barrier"] == metrics["distance"] == 0
    assert metrics["test_loss_barrier"] == pytest.approx(0, abs=1e-6)


def test_the_ends_of_a_line_have_the_accuracy_of_the_networks(tiny_run: Run, cell: Cell) -> None:
    a, b = (cell.train(start=(cell.dense(), 7), noise=n) for n in (0, 1001))
    line = result(tiny_run[1], cell.line(a, b, points=5, num_train=200))["curves"]
    assert isinstance(line, dict)
    for end, task in ((0, a), (-1, b)):
        metrics = result(tiny_run[1], task)["metrics"]
        for split in ("validation", "test"):
            assert line[f"{split}_error"][end] == pytest.approx(1 - metrics[f"{split}_accuracy"])  # type: ignore[index]
            assert line[f"{split}_loss"][end] == pytest.approx(metrics[f"{split}_loss"], rel=1e-5)  # type: ignore[index]


def test_an_interpolation_is_given_the_mask_of_its_ends(
    tiny_run: Run, cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, given = tiny_run[1], []

    def line(*arguments: Any, mask: dict[str, torch.Tensor], **options: Any) -> LinearPathResult:
        given.append(mask)
        return evaluate_linear_path(*arguments, mask=mask, **options)

    monkeypatch.setattr(interpolate, "evaluate_linear_path", line)
    ends = cell.ticket(1), cell.ticket(2)
    spec = cell.line(*ends, points=3, num_train=20).spec
    assert isinstance(spec, InterpolateSpec)
    metrics = interpolate.interpolate(spec, Context(tmp_path, store.folder))["metrics"]
    first, second = (mask_of(store, cell.mask(level)) for level in (1, 2))
    assert given and all(digest(mask) == digest(first) for mask in given), "the later mask lies within the earlier"
    a, b = (weights(store, end) for end in ends)
    squared = sum(float((a[n] - b[n])[m].double().square().sum()) for n, m in second.items())
    assert metrics["distance_shared"] == pytest.approx(squared**0.5)


def test_a_probe_ends_with_a_whole_head(tiny_run: Run, cell: Cell, tmp_path: Path) -> None:
    store, spec = tiny_run[1], cell.ticket(1).spec
    assert isinstance(spec, TrainSpec)
    context, mask = Context(tmp_path, store.folder), mask_of(store, cell.mask(1))
    layout = Layout(sorted(mask), "fc", "fc1.weight")
    assert digest(start.mask_of(spec, layout, context)) == digest(mask)
    probe = spec.model_copy(update={"probe": "estimated"})
    assert set(start.mask_of(probe, layout, context)) == set(mask) - {"fc.weight"}


def test_pruned_momentum_stays_exactly_zero(cell: Cell) -> None:
    trainer, mask = masked_trainer(cell)
    trainer.run()
    parameters = dict(trainer.model.named_parameters())
    for name, m in mask.items():
        buffer = trainer.optimizer.state[parameters[name]]["momentum_buffer"]
        assert not buffer[~m].any()
        assert not parameters[name][~m].any()
        assert buffer[m].any()


def masked_trainer(cell: Cell, noise: int = 0) -> tuple[Trainer, dict[str, torch.Tensor]]:
    images = load(cell.data).train
    model = make_network(cell.model, cell.data, torch.device("cpu"))
    set_initial_weights(model, cell.model, seed=0)
    generator = torch.Generator().manual_seed(0)
    mask = {name: torch.rand(p.shape, generator=generator) < 0.3 for name, p in model.named_parameters() if p.dim() > 1}
    apply_mask(model, mask)
    return Trainer(model, images, cell.recipe, num_classes=10, seed=0, noise=noise, mask=mask), mask


def test_another_noise_changes_the_data_order_alone(cell: Cell) -> None:
    (one, _), (two, _) = masked_trainer(cell), masked_trainer(cell, noise=1)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.batches.order(0).tolist() != two.batches.order(0).tolist()
    assert sorted(one.batches.order(0).tolist()) == sorted(two.batches.order(0).tolist())


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_a_training_resumed_from_any_checkpoint_has_the_same_bits(cell: Cell, stop: int) -> None:
    whole, _ = masked_trainer(cell)
    saved: list[tuple[dict[str, torch.Tensor], dict[str, object]]] = []

    def save(trainer: Trainer) -> None:
        if trainer.progress.step == stop:
            tensors, note = trainer.state()
            saved.append(({n: t.clone() for n, t in tensors.items()}, json.loads(json.dumps(note))))

    whole.run(on_step=save)
    resumed, _ = masked_trainer(cell)
    resumed.restore(*saved[0])
    resumed.run()
    assert resumed.progress == whole.progress
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_mask_is_made_from_a_diverged_network(tiny_run: Run, cell: Cell, tmp_path: Path) -> None:
    wild = cell.recipe.model_copy(update={"optimizer": cell.recipe.optimizer.model_copy(update={"lr": 1e6})})
    diverging = replace(cell, recipe=wild, search=wild)
    plan, store = run_here(plan_of(tiny_run[0], cell, diverging.ticket(2)), tmp_path)
    assert result(store, diverging.dense())["status"] == "diverged"
    for task in (diverging.mask(1), diverging.ticket(1), diverging.mask(2), diverging.ticket(2)):
        assert task is not None
        refused = result(store, task)
        assert refused["status"] == "refused"
        assert not (store.folder(task.key) / MASK).exists()
    assert not run_plan(plan, Settings(tmp_path), num_workers=0).ran, "a refused task is done"


@pytest.mark.parametrize("kind", ["ties", "bfloat16", "zeros"])
def test_ties_are_pruned_at_the_lowest_flat_index_in_parameter_order(kind: str) -> None:
    """Whatever equal magnitudes there are: the survivors are those of a stable sort."""
    generator = torch.Generator().manual_seed(1)
    scores = {name: torch.randn(shape, generator=generator).abs() for name, shape in (("b", (7, 3)), ("a", (11,)))}
    change = {"ties": lambda t: t.round(), "bfloat16": lambda t: t.bfloat16().float(), "zeros": lambda t: 0 * t}[kind]
    scores = {name: change(t) for name, t in scores.items()}
    full = {name: torch.ones(t.shape, dtype=torch.bool) for name, t in scores.items()}
    mask, _, _ = prune(scores, full, Layout(["b", "a"], "h", "b"), Pruning(rate=0.2), level=3)
    flat = torch.cat([scores[n].reshape(-1) for n in ("b", "a")])
    order = sorted(range(32), key=lambda i: (float(flat[i]), i))
    expected = torch.ones(32, dtype=torch.bool)
    expected[order[: 32 - num_survivors(32, 0.2, 3)]] = False
    assert torch.equal(torch.cat([mask[n].reshape(-1) for n in ("b", "a")]), expected)
    assert int(expected.sum()) == 16


@pytest.mark.parametrize(
    ("pruning", "survivors"),
    [
        ({"rate": 0.5, "exclude": ["head", "stem"]}, {"conv.weight": 25, "mid.weight": 12, "fc.weight": 25}),
        ({"rate": 0.2, "scope": "layer"}, {"conv.weight": 20, "mid.weight": 20, "fc.weight": 20}),
        ({"rate": 0.2}, {"conv.weight": 10, "mid.weight": 25, "fc.weight": 25}),
        ({"rate": 0.4, "rates": {"fc.*": 0.2}}, {"conv.weight": 5, "mid.weight": 25, "fc.weight": 20}),
    ],
    ids=["excluded layers keep all", "layer scope", "global scope", "another rate for the head"],
)
def test_the_scope_of_pruning_decides_which_layers_lose_weights(
    pruning: dict[str, object], survivors: dict[str, int]
) -> None:
    scores = {
        name: scale + torch.rand(5, 5) for name, scale in (("conv.weight", 0), ("mid.weight", 2), ("fc.weight", 4))
    }
    full = {name: torch.ones(5, 5, dtype=torch.bool) for name in scores}
    mask, _, _ = prune(scores, full, Layout(list(scores), "fc", "conv.weight"), Pruning(**pruning), level=1)
    assert {name: int(m.sum()) for name, m in mask.items()} == survivors


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruned_by_layer_each_loses_exactly_its_own_rate_at_every_level_and_keeps_its_largest(scope: str) -> None:
    # A layer of small weights, which a global threshold empties first, and an odd number of weights in each.
    sizes, rates = {"a": 101, "b": 57, "head.weight": 33}, {"a": 0.2, "b": 0.2, "head.weight": 0.1}
    generator = torch.Generator().manual_seed(2)
    scores = {n: (0.01 if n == "a" else 1) * torch.rand(size, generator=generator) for n, size in sizes.items()}
    mask = {n: torch.ones(size, dtype=torch.bool) for n, size in sizes.items()}
    pruning = Pruning.model_validate({"rate": 0.2, "rates": {"head": 0.1}, "scope": scope})
    wrong = 0
    for level in range(1, 9):
        mask, thresholds, _ = prune(scores, mask, Layout(list(sizes), "head", "a"), pruning, level)
        for name, size in sizes.items():
            kept = scores[name].argsort(descending=True)[: num_survivors(size, rates[name], level)]
            wrong += set(mask[name].nonzero().flatten().tolist()) != set(kept.tolist())
    assert (wrong, len(thresholds)) == (0, 3) if scope == "layer" else wrong > 0 and len(thresholds) == 2


def test_a_layer_that_pruning_names_and_the_network_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="names 'layer9'"):
        pruning_groups(Pruning(exclude=("layer9",)), Layout(["a"], "h", "a"))


def test_splits_share_no_image() -> None:
    splits = load(DataSpec(name="fashion-mnist-10k", validation=1000))
    assert [len(s) for s in splits] == [9000, 1000, 2000]
    images = [s.batch(torch.arange(len(s))) for s in splits]
    seen = [{row.numpy().tobytes() for row in batch} for batch in images]
    assert not (seen[0] & seen[1])


def test_the_kernels_and_their_reference_give_the_same_weights_masks_and_barriers(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels_available("cpu"):
        pytest.skip("the kernels are not compiled here")
    monkeypatch.setenv("LTHBENCH_REFERENCE", "1")
    plan, store = run_here(tiny_run[0], tmp_path)
    for key, task in plan.tasks.items():
        ours, reference = (s.result(key) for s in (tiny_run[1], store))
        assert ours is not None and reference is not None
        if "digests" in ours:
            assert ours["digests"] == reference["digests"], task.spec
        else:
            for name, curve in ours["curves"].items():
                assert reference["curves"][name] == pytest.approx(curve, abs=1e-5), name
        assert ours["environment"]["kernels"] and not reference["environment"]["kernels"]


def test_results_are_the_same_however_python_sums(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_sum = sum

    def compensated(values: Iterable[Any], start: Any = 0) -> Any:  # as from Python 3.12 on
        values = list(values)
        return math.fsum([start, *values]) if any(isinstance(v, float) for v in values) else plain_sum(values, start)

    monkeypatch.setattr("builtins.sum", compensated)
    plan, store = run_here(tiny_run[0], tmp_path / "store")
    for key in plan.tasks:
        found, expected = store.result(key), tiny_run[1].result(key)
        assert found is not None and expected is not None and found["metrics"] == expected["metrics"], plan.label(key)
