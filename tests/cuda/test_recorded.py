"""Trainings whose passes are recorded as a CUDA graph: the bits of eager ones, or eager ones and a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthbench.bench.throughput import noise_images
from lthbench.data.spec import DataSpec
from lthbench.models.build import prunable
from lthbench.models.depth import StochasticDepth
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.tasks.tensor_files import read_tensors, write_tensors
from lthbench.training import loop
from lthbench.training.forgetting import Tracker
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
WARM_UP = {"name": "cosine", "warmup": "3it"}  # the learning rate of each step is another


class Training:
    """A training of three steps an epoch, the last on a smaller batch, and what it told."""

    def __init__(
        self,
        graphs: bool,
        network: nn.Module | None = None,
        model: str = "lenet-300-100",
        data: str = "fashion-mnist",
        **recipe: Any,
    ) -> None:
        make_deterministic(1)
        device, spec = torch.device("cuda"), ModelSpec(name=model, width={"resnet8": 4, "lenet-300-100": 8}.get(model))
        images = noise_images(data, 20, device)
        if network is None:
            network = make_network(spec, DataSpec(name=data), device)
            set_initial_weights(network, spec, 0)
        weights = dict(network.named_parameters())
        names = prunable(network)
        mask = {n: (torch.arange(weights[n].numel()).view(weights[n].shape) % 3 > 0).to(device) for n in names}
        common = {"steps": "10ep", "batch_size": 8, "optimizer": SGD, "schedule": WARM_UP, "pull": 0.1}
        self.told: list[str] = []
        self.trainer = Trainer(
            network.train(),
            images,
            Recipe.model_validate({**common, **recipe}),
            num_classes=10,
            seed=0,
            mask=mask,
            anchors={name: weights[name].detach().clone() for name in names},
            tracked=names,
            tracker=Tracker(100, len(images), lambda network: 0.0, device),
            graphs=graphs,
            tell=self.told.append,
        )

    def steps(self, count: int) -> dict[str, Tensor]:
        """Train, and return all that a checkpoint holds."""
        self.trainer.end = self.trainer.progress.step + count
        self.trainer.run()
        tensors, note = self.trainer.state()
        return tensors | {"losses": torch.tensor([*note["epoch_losses"], note["loss_sum"]], dtype=torch.float64)}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name].cpu(), b[name].cpu())]


TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": {"name": "adamw", "lr": 1e-3}},
    "batch normalisation": {"model": "resnet8", "augment": {"crop": 2, "flip": True}},
    "bfloat16": {"precision": "bfloat16"},
    "mixed images": {"augment": {"mixup": 0.8, "mix_probability": 0.5}, "label_smoothing": 0.1, "ema": 0.5},
}


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_recorded_training_has_the_bits_of_an_eager_one(name: str) -> None:
    recorded, eager = Training(True, **TRAININGS[name]), Training(False, **TRAININGS[name])
    assert differing(recorded.steps(5), eager.steps(5)) == []
    assert recorded.trainer._recorded is not None and recorded.told == []
    assert eager.trainer._recorded is None


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("begun", [1, 2])
def test_a_training_resumed_in_the_middle_records_anew_and_has_the_bits_of_one_that_was_not(
    begun: int, tmp_path: Path
) -> None:
    first, resumed, whole = Training(True), Training(True), Training(False)
    first.steps(begun)
    tensors, note = first.trainer.state()
    write_tensors(tmp_path / "checkpoint", tensors, {})
    resumed.trainer.restore(read_tensors(tmp_path / "checkpoint", torch.device("cuda"))[0], note)
    found = resumed.steps(5 - begun)
    expected = whole.steps(begun) | whole.steps(5 - begun)
    assert {name for name in differing(found, expected) if name != "losses"} == set()
    assert resumed.trainer._recorded is not None


class Skipping(nn.Module):
    """A network of which images skip a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.branch, self.fc = nn.Linear(784, 8), nn.Linear(8, 8), nn.Linear(8, 10)
        self.depth = StochasticDepth(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        return self.fc(x + self.depth(self.branch(x)))


@pytest.mark.fake_cuda("sim")
def test_images_skip_other_layers_in_each_recorded_step() -> None:
    recorded, eager = (Training(graphs, network=Skipping().cuda()) for graphs in (True, False))
    assert differing(recorded.steps(5), eager.steps(5)) == []
    assert recorded.trainer._recorded is not None


class Counting(nn.Module):
    """A network that does something else in each pass, by what the host counts."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.calls = nn.Linear(784, 10), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x.flatten(1)) * (1 + self.calls)


class Waiting(Counting):
    """A network that reads what it computed on the host."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * float(x.sum())


@pytest.mark.fake_cuda("sim")
def test_where_a_recorded_step_has_other_bits_all_steps_are_eager_and_it_is_told() -> None:
    training = Training(True, network=Counting().cuda())
    training.steps(3)
    assert training.trainer._recorded is None
    (told,) = training.told
    assert told.startswith("no CUDA graph is used in this training: logits, loss")
    assert "differ from those of an eager step" in told


@pytest.mark.fake_cuda("guard")
def test_passes_that_wait_for_the_gpu_are_eager_and_it_is_told() -> None:
    training = Training(True, network=Waiting().cuda())
    training.trainer.one_step()
    training.trainer.one_step()
    assert training.trainer._recorded is None
    assert training.told[0].startswith("no CUDA graph is used in this training: ") and len(training.told) == 1
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize(
    "watch",
    [
        lambda network: network.fc2.register_forward_hook(lambda *_: None),
        lambda network: network.register_full_backward_hook(lambda *_: None),
        lambda network: network.fc1.weight.register_post_accumulate_grad_hook(lambda _: None),
    ],
    ids=["forward", "backward", "gradient"],
)
def test_passes_that_hooks_watch_are_eager_and_it_is_told(watch: Any) -> None:
    training = Training(True)
    watch(training.trainer.model)
    training.trainer.one_step()
    assert training.trainer._recorded is None
    assert training.told == ["no CUDA graph is used in this training: hooks of its modules or weights watch the passes"]


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("recipe", [{"micro_batch": 4}, {"batch_size": 8, "micro_batch": 7}])
def test_micro_batches_are_not_recorded(recipe: dict[str, Any]) -> None:
    training = Training(True, **recipe)
    for _ in range(4):
        training.trainer.one_step()
    assert training.trainer._recorded is None and training.told == []


@pytest.mark.fake_cuda("sim")
def test_the_stand_in_computes_nothing_while_it_records_and_all_of_it_at_each_replay() -> None:
    x, factor, graph = torch.ones(3, device="cuda"), torch.full((3,), 2.0, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x.mul_(factor) + 1
    assert x.tolist() == [1.0] * 3
    graph.replay()
    factor.fill_(3.0)
    graph.replay()
    assert (x.tolist(), y.tolist()) == ([6.0] * 3, [7.0] * 3)


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("wrong", [lambda x: x.sum().item(), lambda x: torch.cuda.synchronize(), None])
def test_the_stand_in_refuses_to_record_what_a_gpu_refuses(wrong: Any) -> None:
    x = torch.ones(3, device="cuda")

    def on_the_legacy_stream(x: Tensor) -> None:
        with torch.cuda.stream(torch.cuda.default_stream()):
            x.add_(1)

    with pytest.raises(RuntimeError, match="captur"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        (wrong or on_the_legacy_stream)(x)
    torch.cuda.set_stream(torch.cuda.default_stream())
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):  # and can record again
        x.add_(1)
    graph.replay()


# What is launched in a step whose passes are recorded, with torch 2.14: the graph, the images' crops and flips, which
# are put where the graph reads them, the update and the sum of losses.
LAUNCHES = {"lenet-300-100": 32, "resnet20": 33}


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("model", LAUNCHES)
def test_a_recorded_step_launches_as_counted_and_waits_for_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_cuda

    monkeypatch.setattr(loop, "_same_bits", lambda a, b: True)  # nothing was computed
    recipe = {"augment": {"crop": 4, "flip": True}, "pull": 0}
    training = Training(True, model=model, data="cifar10" if model == "resnet20" else "fashion-mnist", **recipe)
    training.trainer.tracker = None
    training.trainer.progress.step = 2  # the epoch's last, whose small batch is an eager step before any is recorded
    with fake_cuda.named() as recorded:
        for _ in range(2):
            training.trainer.one_step()
    # A graph would read the host's memory again whatever lies there by then.
    assert not [name for name in recorded if name.startswith(("recorded copy to host", "recorded copy to device"))]
    assert training.told == [] and training.trainer._recorded is not None
    with fake_cuda.counted() as counts, fake_cuda.named() as names:
        training.trainer.one_step()
    assert (names["graph"], counts.syncs, counts.recorded) == (1, 0, 0)
    assert counts.launches <= LAUNCHES[model]
