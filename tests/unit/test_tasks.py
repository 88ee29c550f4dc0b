"""The three kinds of task on a narrow network: what a result says is what its files hold."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.documents import DocumentError
from lthbench.models.spec import ModelSpec
from lthbench.tasks.atomic import write_json
from lthbench.tasks.context import Context, Interrupted, UnusableInputError
from lthbench.tasks.interpolate import barrier
from lthbench.tasks.layout import Layout, pruning_groups
from lthbench.tasks.mask import prune
from lthbench.tasks.network import make_network, weights_of, with_shuffled_survivors
from lthbench.tasks.paths import CHECKPOINT, MASK, RESULT, SPEC, weights_file
from lthbench.tasks.result import seal
from lthbench.tasks.run import run_task
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Pruning, Task, TrainSpec, Weights, num_survivors
from lthbench.tasks.start import start_of
from lthbench.tasks.tensor_files import digest, read_checkpoint, read_mask, read_tensors, write_mask, write_tensors
from lthbench.tasks.train import train_images
from lthbench.training.recipe import Recipe

MODEL = ModelSpec(name="lenet-300-100", width=6)
DATA = DataSpec(name="fashion-mnist-10k", num_train=40, num_test=50, validation=20)
PRUNABLE = ["fc1.weight", "fc2.weight", "fc.weight"]
STEPS = 6  # three epochs of two


def training(lr: float = 0.05, data: DataSpec = DATA, seed: int = 0, pull: float = 0.0, **fields: Any) -> TrainSpec:
    recipe = {"steps": "3ep", "batch_size": 20, "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9}, "pull": pull}
    recipe["ema"] = fields.pop("ema", 0.0)
    return TrainSpec(model=MODEL, data=data, recipe=Recipe.model_validate(recipe), seed=seed, **fields)


@dataclass
class Tasks:
    """Runs tasks, each in a folder of its own, and reads what they wrote."""

    root: Path
    reports: list[tuple[int, int]] = field(default_factory=list)

    def folder(self, key: str) -> Path:
        return self.root / key

    def context(self, spec: Any, **options: Any) -> Context:
        folder = self.folder(Task(spec).key)
        folder.mkdir(exist_ok=True)
        return Context(folder, self.folder, report=lambda *at: self.reports.append(at), **options)

    def run(self, spec: Any, **options: Any) -> dict[str, Any]:
        result = run_task(spec, self.context(spec, **options))
        (self.folder(result["key"]) / SPEC).write_text(spec.canonical())
        write_json(self.folder(result["key"]) / RESULT, result)
        return result

    def weights(self, result: dict[str, Any], step: int | None = None) -> dict[str, Tensor]:
        return read_tensors(self.folder(result["key"]) / weights_file(step))[0]

    def mask(self, result: dict[str, Any]) -> dict[str, Tensor]:
        return read_mask(self.folder(result["key"]) / MASK)


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


def norm(a: dict[str, Tensor], b: dict[str, Tensor], names: Iterable[str] = PRUNABLE) -> float:
    return math.sqrt(sum(float((a[n] - b[n]).double().square().sum()) for n in names))


def accuracy_and_loss(weights: dict[str, Tensor], split: Literal["train", "validation", "test"]) -> tuple[float, float]:
    model = make_network(MODEL, DATA, torch.device("cpu"))
    model.load_state_dict(weights)
    images = getattr(load(DATA), split)
    x, y = images.batch(torch.arange(len(images))), images.labels
    with torch.no_grad():
        logits = model.eval()(x)
    return float((logits.argmax(1) == y).double().mean()), float(F.cross_entropy(logits, y))


def test_a_training_reports_what_its_weights_are(tasks: Tasks) -> None:
    result = tasks.run(training(), keep=frozenset({0, 2, 4}))
    start, end, metrics = tasks.weights(result, 0), tasks.weights(result), result["metrics"]
    for split in ("train", "validation", "test"):
        accuracy, loss = accuracy_and_loss(end, split)  # type: ignore[arg-type]
        assert metrics[f"{split}_accuracy"] == pytest.approx(accuracy)
        assert metrics[f"{split}_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["distance"] == pytest.approx(norm(start, end), rel=1e-5)
    epochs = [start, tasks.weights(result, 2), tasks.weights(result, 4), end]
    assert result["epoch_distances"] == pytest.approx([norm(start, each) for each in epochs[1:]], rel=1e-5)
    path = sum(norm(a, b) for a, b in pairwise(epochs))
    assert metrics["path_length"] == pytest.approx(path, rel=1e-5) and path > metrics["distance"]
    for name, share in result["layer_distance"].items():
        assert share == pytest.approx(norm(start, end, [name]) / float(start[name].double().norm()), rel=1e-5)
    assert set(result["layer_distance"]) == set(result["layer_density"]) == set(PRUNABLE)
    assert metrics["overlap"] == pytest.approx(sum(result["layer_overlap"].values()) / 3)
    assert (metrics["density"], metrics["empty_layers"], "distance_from_init" in metrics) == (1, 0, False)
    assert (result["status"], result["reason"], result["steps"], result["kept"]) == ("ok", None, [0, 6], [0, 2, 4])
    assert result["digests"] == {"start": digest(start), "weights": digest(end)}
    assert set(result["artefacts"]) == {weights_file(step) for step in (0, 2, 4, None)}
    assert tasks.reports == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert len(result["epoch_losses"]) == 3 and result["inputs"] == {}


def test_a_rewound_training_begins_where_its_start_was_kept_and_tells_its_distance_from_there_and_from_init(
    tasks: Tasks,
) -> None:
    dense = tasks.run(training(), keep=frozenset({0, 2}))
    mask = tasks.run(MaskSpec(network=Weights(task=dense["key"]), level=2, pruning=Pruning(rate=0.5)))
    fields = {"start": Weights(task=dense["key"], step=2), "begin": 2, "mask": mask["key"]}
    tasks.reports.clear()
    result = tasks.run(training(**fields))
    kept, end = tasks.mask(mask), tasks.weights(result)
    assert all(not end[n][~m].any() for n, m in kept.items())
    begun = {n: tasks.weights(dense, 2)[n] * kept[n] for n in PRUNABLE}
    initial = {n: tasks.weights(dense, 0)[n] * kept[n] for n in PRUNABLE}
    assert result["metrics"]["distance"] == pytest.approx(norm(begun, end), rel=1e-5)
    assert result["metrics"]["distance_from_init"] == pytest.approx(norm(initial, end), rel=1e-5)
    assert result["steps"] == [2, 6] and tasks.reports == [(step, 4) for step in range(1, 5)]
    assert result["metrics"]["density"] == mask["metrics"]["density"]
    assert result["layer_density"] == mask["layer_density"]
    inputs = result["inputs"]
    assert set(inputs) == {dense["key"], mask["key"]}
    assert inputs[dense["key"]] == {
        "status": "ok", "read": {weights_file(2): dense["artefacts"][weights_file(2)]["sha256"]}
    }  # fmt: skip


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
def test_a_mask_keeps_the_highest_scores_and_reports_what_it_pruned(tasks: Tasks, criterion: str) -> None:
    dense = tasks.run(training(lr=0.2), keep=frozenset({0}))
    pruning = Pruning(rate=0.5, exclude=("head",), rates={"stem": 0.2})
    network, by = Weights(task=dense["key"]), {"pruning": pruning, "criterion": criterion}
    first = tasks.run(MaskSpec(network=network, level=1, **by))
    spec = MaskSpec(network=network, prior=first["key"], level=2, **by)
    result = tasks.run(spec)
    prior, mask = tasks.mask(first), tasks.mask(result)
    start, end = tasks.weights(dense, 0), tasks.weights(dense)
    score = {n: end[n].abs() - start[n].abs() if criterion == "movement" else end[n].abs() for n in PRUNABLE}
    assert mask["fc.weight"].all() and prior["fc.weight"].all(), "excluded"
    for name, rate in (("fc1.weight", 0.2), ("fc2.weight", 0.5)):
        assert (
            int(mask[name].sum()) == num_survivors(mask[name].numel(), rate, 2)
            and not (mask[name] & ~prior[name]).any()
        )
    gone = {n: prior[n] & ~mask[n] for n in PRUNABLE}
    pruned = ("fc1.weight", "fc2.weight")
    assert result["thresholds"] == pytest.approx([float(score[n][gone[n]].max()) for n in pruned])
    assert all(score[n][mask[n]].min() >= score[n][gone[n]].max() for n in pruned)
    for kind, part in (("kept", mask), ("pruned", gone)):
        moved = math.sqrt(sum(float((end[n] - start[n])[m].double().square().sum()) for n, m in part.items()))
        assert result["metrics"][f"distance_{kind}"] == pytest.approx(moved, rel=1e-5)
    sizes = sum(m.numel() for m in mask.values())
    assert result["metrics"]["density"] == pytest.approx(sum(int(m.sum()) for m in mask.values()) / sizes)
    assert result["layer_density"] == pytest.approx({n: float(m.double().mean()) for n, m in mask.items()})
    assert (result["metrics"]["empty_layers"], result["num_nan"]) == (0, 0)
    dead = sum(not any(unit.flatten()) for m in mask.values() for unit in m)
    assert result["metrics"]["dead_units"] == dead


def test_layers_without_a_survivor_are_counted_and_have_no_distance(tasks: Tasks) -> None:
    dense = tasks.run(training(), keep=frozenset({0}))
    spec = MaskSpec(network=Weights(task=dense["key"]), level=1, pruning=Pruning(rate=0.001, rates={"fc2.*": 0.9999}))
    mask = tasks.run(spec)
    assert mask["metrics"]["empty_layers"] == 1 and mask["layer_density"]["fc2.weight"] == 0
    assert mask["metrics"]["dead_units"] == len(tasks.mask(mask)["fc2.weight"])
    ticket = tasks.run(training(mask=mask["key"]))
    assert ticket["metrics"]["empty_layers"] == 1
    assert set(ticket["layer_distance"]) == set(ticket["layer_overlap"]) == {"fc1.weight", "fc.weight"}


def test_the_layers_of_one_rate_share_a_threshold_or_each_has_its_own() -> None:
    layout = Layout(["a", "b", "c", "d"], "d", "a")
    rates = {"head": 0.1, "a": 0.2}
    assert pruning_groups(Pruning(rate=0.5, rates=rates), layout) == [(["a"], 0.2), (["b", "c"], 0.5), (["d"], 0.1)]
    layers = pruning_groups(Pruning(rate=0.5, rates=rates, scope="layer", exclude=("b",)), layout)
    assert layers == [(["a"], 0.2), (["c"], 0.5), (["d"], 0.1)]
    for pruning in (Pruning(exclude=("e",)), Pruning(rates={"e": 0.1})):
        with pytest.raises(ValueError, match="'e', which matches none"):
            pruning_groups(pruning, layout)


def test_scores_that_are_no_numbers_are_counted_over_all_groups() -> None:
    layout = Layout(["a", "b"], "b", "a")
    scores = {"a": torch.tensor([math.nan, 1.0]), "b": torch.tensor([2.0, math.nan])}
    prior = {name: torch.ones(2, dtype=torch.bool) for name in scores}
    mask, thresholds, num_nan = prune(scores, prior, layout, Pruning(rate=0.5, scope="layer"), 1)
    assert (thresholds, num_nan) == ([1.0, 2.0], 2)
    assert {n: m.tolist() for n, m in mask.items()} == {"a": [True, False], "b": [False, True]}


def test_imitated_masks_depend_on_a_mask_alone_and_another_draw_gives_another_mask(tasks: Tasks) -> None:
    dense = tasks.run(training())
    mask = tasks.run(MaskSpec(network=Weights(task=dense["key"]), level=1, pruning=Pruning(rate=0.7)))
    for criterion in ("random", "shuffled"):
        draws = [
            tasks.run(MaskSpec(level=1, criterion=criterion, like=mask["key"], seed=0, draw=draw))  # type: ignore
            for draw in (0, 1)
        ]
        assert [d["layer_density"] == mask["layer_density"] for d in draws] == [True, True]
        assert len({d["digests"]["mask"] for d in (mask, *draws)}) == 3
    for dim in (0, 1):
        original, shuffled = (tasks.mask(m)["fc1.weight"].sum(dim).sort().values for m in (mask, draws[0]))
        assert torch.equal(original, shuffled), "units keep their number of weights"


def test_a_line_between_networks_has_their_errors_at_its_ends_and_their_distance(tasks: Tasks) -> None:
    a, b = (tasks.run(training(noise=noise)) for noise in (0, 1))
    mask = tasks.run(MaskSpec(network=Weights(task=a["key"]), level=1, pruning=Pruning(rate=0.5, exclude=("head",))))
    c = tasks.run(training(mask=mask["key"]))
    tasks.reports.clear()
    ends = {"a": Weights(task=a["key"]), "b": Weights(task=c["key"])}
    line = tasks.run(InterpolateSpec(model=MODEL, data=DATA, points=5, num_train=30, **ends))
    assert line["alphas"] == [0, 0.25, 0.5, 0.75, 1]
    for split in ("validation", "test"):
        errors = line["curves"][f"{split}_error"]
        ends_here = [1 - end["metrics"][f"{split}_accuracy"] for end in (a, c)]
        assert [errors[0], errors[-1]] == pytest.approx(ends_here)
        assert line["metrics"][f"{split}_barrier"] == pytest.approx(max(errors) - sum(ends_here) / 2)
        losses = line["curves"][f"{split}_loss"]
        assert line["metrics"][f"{split}_loss_barrier"] == pytest.approx(max(losses) - (losses[0] + losses[-1]) / 2)
    one, other = tasks.weights(a), tasks.weights(c)
    assert line["metrics"]["distance"] == pytest.approx(norm(one, other), rel=1e-5)
    shared = {n: one[n] * (other[n] != 0) for n in PRUNABLE}
    assert line["metrics"]["distance_shared"] == pytest.approx(norm(shared, other), rel=1e-5)
    assert tasks.reports == [(0, 3), (1, 3), (2, 3)]
    plain = DATA.model_copy(update={"validation": 0})
    unseen = tasks.run(InterpolateSpec(model=MODEL, data=plain, points=3, a=ends["a"], b=Weights(task=b["key"])))
    assert {name.split("_")[0] for name in unseen["curves"]} == {"train", "test"}
    assert barrier(torch.tensor([1.0, 5.0, 2.0])) == 3.5


def test_a_diverged_training_has_no_accuracies_and_nothing_is_made_from_it(tasks: Tasks) -> None:
    diverged = tasks.run(training(lr=3e38))  # at 1e30 a network may die before any of its numbers is infinite
    assert diverged["status"] == "diverged" and "after iteration 2" in diverged["reason"]
    assert not [name for name in diverged["metrics"] if "accuracy" in name or "distance" in name]
    assert diverged["steps"] == [0, 2]
    refused = tasks.run(MaskSpec(network=Weights(task=diverged["key"]), level=1))
    assert (refused["status"], refused["metrics"], refused["artefacts"]) == ("refused", {}, {})
    assert refused["reason"].startswith(f"training {diverged['key']} diverged: the loss or a weight was not finite")
    assert refused["inputs"] == {diverged["key"]: {"status": "diverged", "read": {}}}


def test_a_training_that_is_asked_to_stop_goes_on_from_there_to_the_same_bits(tasks: Tasks, tmp_path: Path) -> None:
    spec, answers = training(), iter([None, "save", "stop"])
    straight = tasks.run(spec, keep=frozenset({1}))
    (tmp_path / "other").mkdir()
    other = Tasks(tmp_path / "other")
    context = other.context(spec, keep=frozenset({1}), asked=lambda: next(answers))
    with pytest.raises(Interrupted, match="at step 3"):
        run_task(spec, context)
    note = read_checkpoint(context.folder / CHECKPOINT)[1]
    assert (note["task"], note["progress"]["step"], list(note["kept"])) == (Task(spec).key, 3, [weights_file(1)])
    other.reports.clear()
    resumed = other.run(spec, keep=frozenset({1}))
    assert other.reports == [(4, STEPS), (5, STEPS), (6, STEPS)]
    for name in ("digests", "metrics", "epoch_losses", "epoch_distances", "artefacts", "steps"):
        assert resumed[name] == straight[name], name


def test_checkpoints_are_written_as_often_as_is_asked_for(tasks: Tasks) -> None:
    for every, written in ((60 + time.monotonic(), False), (0.0, True)):
        spec = training(seed=int(written))
        tasks.run(spec, checkpoint_every=every)
        assert (tasks.folder(Task(spec).key) / CHECKPOINT).exists() == written


def test_steps_outside_a_training_cannot_be_kept_nor_its_accuracy_tracked_without_validation(tasks: Tasks) -> None:
    for keep in (6, 7):
        with pytest.raises(ValueError, match=rf"steps \[{keep}\] cannot be kept by a training from 0 to 6"):
            tasks.run(training(), keep=frozenset({keep}))
    with pytest.raises(ValueError, match="needs validation images"):
        tasks.run(training(data=DATA.model_copy(update={"validation": 0}), track=2))
    tracked = tasks.run(training(track=2, stop=5), keep=frozenset({4}))
    assert [step for step, _ in tracked["validation_curve"]] == [2, 4, 5] and tracked["steps"] == [0, 5]
    assert tracked["validation_curve"][-1][1] == tracked["metrics"]["validation_accuracy"]


def test_inputs_that_are_gone_or_changed_are_reported_as_unusable(tasks: Tasks) -> None:
    dense, other = tasks.run(training()), tasks.run(training(seed=2))
    folder = tasks.folder(dense["key"])
    context = tasks.context(training(seed=1))
    with pytest.raises(UnusableInputError, match=r"weights-3\.safetensors: was not written") as error:
        context.network(Weights(task=dense["key"], step=3))
    assert error.value.key == dense["key"]
    content = bytearray((folder / weights_file(None)).read_bytes())
    content[-1] ^= 1
    (folder / weights_file(None)).write_bytes(content)
    with pytest.raises(UnusableInputError, match="its digest is another"):
        context.network(Weights(task=dense["key"]))
    mask = tasks.run(MaskSpec(network=Weights(task=other["key"]), level=1))
    (tasks.folder(mask["key"]) / MASK).unlink()
    with pytest.raises(UnusableInputError, match="is not there") as error:
        context.mask(mask["key"])
    assert error.value.key == mask["key"]
    (folder / SPEC).write_text("{}")
    with pytest.raises(UnusableInputError, match="its hash is not the task's key"):
        context.specification(dense["key"])
    for absent in (context.mask, context.specification):
        with pytest.raises(UnusableInputError):
            absent("0" * 32)


def test_a_pull_is_towards_the_trainings_own_initialisation_another_one_or_zero(tasks: Tasks) -> None:
    free = tasks.run(training())
    own, zero, other = (tasks.run(training(pull=5.0, anchor=a)) for a in (0, "zero", 1))  # type: ignore[arg-type]
    assert own["metrics"]["distance"] < free["metrics"]["distance"] / 2
    sizes = [sum(float(tasks.weights(r)[n].double().square().sum()) for n in PRUNABLE) for r in (free, zero)]
    assert sizes[1] < 0.6 * sizes[0]
    assert len({r["digests"]["weights"] for r in (free, own, zero, other)}) == 4
    initial = tasks.weights(tasks.run(training(init=1), keep=frozenset({0})), 0)
    assert norm(initial, tasks.weights(other)) < norm(initial, tasks.weights(own))


def test_zeros_are_packed_where_that_saves_a_quarter_of_a_kibibyte(tmp_path: Path) -> None:
    sizes = {}
    for zeros in (0, 64, 65, 66, 67, 200):
        t = torch.ones(1000)
        t[:zeros] = 0
        artefact = write_tensors(tmp_path / "t", {"t": t})
        sizes[zeros] = artefact.size
        assert artefact.size == (tmp_path / "t").stat().st_size
        assert torch.equal(read_tensors(tmp_path / "t")[0]["t"], t)
    # 4 bytes a zero, 125 bytes of bits; from 381 bytes saved on they are packed.
    assert sizes[0] == sizes[64] == sizes[65] >= 4000 and sizes[200] < 3600
    for zeros, is_packed in ((95, False), (96, True)):  # 128 bytes of bits; 384 bytes saved are just enough
        t = torch.ones(1024)
        t[:zeros] = 0
        write_tensors(tmp_path / "t", {"t": t})
        assert ("present:t" in load_file(tmp_path / "t")) == is_packed


def test_masks_come_back_whatever_their_shape(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    mask = {f"{s}": torch.rand(s, generator=chance) < 0.5 for s in ((3, 5), (8,), (1, 1), (0, 4), (2, 3, 3, 3))}
    write_mask(tmp_path / "m", mask)
    found = read_mask(tmp_path / "m")
    assert found.keys() == mask.keys() and all(torch.equal(found[n], m) for n, m in mask.items())


def test_each_batch_that_has_been_worked_on_is_a_sign(tasks: Tasks) -> None:
    signs = 0

    def sign() -> None:
        nonlocal signs
        signs += 1

    context = tasks.context(training(), sign=sign)
    assert [(batch, signs) for batch in context.watched("ab")] == [("a", 0), ("b", 1)] and signs == 2
    ends = [Weights(task=tasks.run(training(noise=noise))["key"]) for noise in (0, 1)]
    tasks.run(InterpolateSpec(model=MODEL, data=DATA, points=3, a=ends[0], b=ends[1]), sign=sign)
    assert signs == 2 + 3, "a batch of each split"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    write_json(tmp_path / "a.json", {"b": 1})
    assert synced == [(tmp_path / "a.json").stat().st_ino]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n "b": 1\n}\n'
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "a.json", {}, tmp_path / "gone")
    assert "b" in (tmp_path / "a.json").read_text()


def test_a_training_starts_from_its_masked_weights_and_shuffled_ones_are_the_same_in_other_places(tasks: Tasks) -> None:
    dense = tasks.run(training())
    key = tasks.run(MaskSpec(network=Weights(task=dense["key"]), level=1, pruning=Pruning(rate=0.5)))["key"]
    whole, plain, shuffled, probe = (
        start_of(spec, tasks.context(spec))
        for spec in (
            training(),
            training(mask=key),
            training(mask=key, shuffle=True),
            training(mask=key, new_head=True),
        )
    )
    weights = [weights_of(start.model) for start in (whole, plain, shuffled, probe)]
    for name, m in plain.mask.items():
        assert torch.equal(weights[1][name], weights[0][name] * m) and torch.equal(shuffled.mask[name], m)
        assert torch.equal(weights[2][name][m].sort().values, weights[1][name][m].sort().values)
        assert (weights[2][name] != weights[1][name])[m].double().mean() > 0.5 and not weights[2][name][~m].any()
    assert torch.equal(plain.whole_head, weights[0]["fc.weight"])
    assert set(probe.mask) == {"fc1.weight", "fc2.weight"} and weights[3]["fc.weight"].all()
    for_probe = plain.for_probe()
    assert torch.equal(weights_of(for_probe.model)["fc.weight"], weights[0]["fc.weight"])
    assert set(for_probe.mask) == {"fc1.weight", "fc2.weight"}
    without = with_shuffled_survivors(weights[0], ["fc2.weight"], {}, 0)
    assert torch.equal(
        without["fc2.weight"].reshape(-1).sort().values, weights[0]["fc2.weight"].reshape(-1).sort().values
    )
    assert not torch.equal(without["fc2.weight"], weights[0]["fc2.weight"])
    assert torch.equal(without["fc1.weight"], weights[0]["fc1.weight"])


def test_networks_of_coloured_images_lie_channels_last_and_those_of_grey_ones_do_not() -> None:
    model = ModelSpec(name="resnet8", width=4)
    for data, last in ((DATA, False), (DataSpec(name="cifar10"), True)):
        convolution = make_network(model, data, torch.device("cpu")).get_parameter("blocks.0.conv1.weight")
        assert convolution.is_contiguous(memory_format=torch.channels_last) == last


@pytest.mark.parametrize(("name", "value"), [("test_accuracy", 7.5), ("forgettable_share", -0.1), ("density", 1.5)])
def test_a_fraction_outside_of_0_to_1_is_no_result(tasks: Tasks, name: str, value: float) -> None:
    result = tasks.run(training())
    with pytest.raises(DocumentError, match=f"metrics.{name} is {value:g}, which is not a fraction"):
        seal({**result, "metrics": {**result["metrics"], name: value}})
    assert seal({**result, "metrics": {"test_loss": 7.5, "density": 1 + 1e-12}})["metrics"]["test_loss"] == 7.5
    assert seal({**result, "metrics": {name: 0.0}})["metrics"] == {name: 0.0}


def test_a_training_sees_all_images_or_a_given_number_of_each_class(tasks: Tasks) -> None:
    splits = load(DATA)
    seen = [train_images(training(per_class=2, draw=draw), splits) for draw in (0, 1)]
    for images in seen:
        assert images.labels.bincount().tolist() == [2] * 10
    one, other = (images.batch(torch.arange(20)) for images in seen)
    assert not torch.equal(one, other), "another draw is of other images"
    assert train_images(training(), splits) is splits.train
    assert tasks.run(training(per_class=2, stop=1))["metrics"]["train_loss"] > 0
    assert (training().num_images, training(per_class=3).num_images) == (40, 30)
    assert training(data=DataSpec(name="fashion-mnist-10k", validation=100)).num_images == 9900


def test_a_training_with_an_average_results_in_it(tasks: Tasks) -> None:
    plain, averaged = (tasks.run(training(stop=1, ema=decay), keep=frozenset({0})) for decay in (0.0, 0.75))
    begun, stepped, average = tasks.weights(plain, 0), tasks.weights(plain), tasks.weights(averaged)
    for name in PRUNABLE:
        torch.testing.assert_close(average[name], 0.75 * begun[name] + 0.25 * stepped[name])
        assert not torch.equal(average[name], stepped[name])
