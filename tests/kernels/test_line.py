"""Evaluating a line gives what evaluating each of its networks alone gives."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lthbench.engine.linear_path import evaluate_linear_path
from lthbench.engine.trace import fuse
from lthbench.models.build import build
from lthbench.models.spec import MODELS as SHIPPED
from lthbench.models.spec import ModelSpec

ALPHAS = [0.0, 0.125, 0.5, 0.75, 1.0]
METHODS = ["fused", "blocked", "stacked", "each"]


class Block(nn.Module):
    """A residual block, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=inplace)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=inplace)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.inplace:
            out += self.shortcut(x)
            return self.relu(out)
        return F.relu(self.shortcut(x) + out)


def resnet(inplace: bool = False) -> nn.Module:
    body = [Block(8, 8, 1, inplace), Block(8, 16, 2, inplace)]
    stem = [nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


class Viewing(nn.Module):
    """Views its activations and reads its first layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(4, affine=False)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.fc = nn.Linear(4 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv(x))
        g = h + F.relu(self.twice(h)) + h.flip(3)
        g = F.max_pool2d(self.bn(g * self.scale), 1)
        return self.fc(g.view(g.size(0), -1))


class Indexing(nn.Module):
    """Looks its weights up through a table that is part of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 192))
        self.register_buffer("index", torch.tensor([4, 0, 2, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.table[self.index].t()


class Branching(nn.Module):
    """Cannot be traced: what it does depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) if x.sum() > -1e9 else x


def lenet() -> nn.Module:
    layers = [nn.Linear(192, 30), nn.ReLU(), nn.Linear(30, 10), nn.ReLU(), nn.Linear(10, 4)]
    return nn.Sequential(nn.Flatten(), *layers)


MODELS = {
    "resnet": resnet,
    "resnet in place": lambda: resnet(inplace=True),
    "lenet": lenet,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4, bias=False)),
    "viewing": Viewing,
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 4)),
    "indexing": Indexing,
    "branching": Branching,
}
FUSED = [name for name in MODELS if name != "branching"]


def ends(name: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    states = []
    for _ in range(2):
        model = MODELS[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 2)
                    nn.init.normal_(module.bias)
        states.append(copy.deepcopy(model.state_dict()))
    return model, states[0], states[1]


def batches(sizes: tuple[int, ...] = (150, 30, 1), seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 3, 8, 8, generator=g), torch.randint(4, (n,), generator=g)) for n in sizes]


@torch.no_grad()
def alone(model: nn.Module, a: dict[str, Tensor], b: dict[str, Tensor], alpha: float, statistics_batches=None):
    """Loss, error, and the logits of one network built and evaluated the plain way."""
    model = copy.deepcopy(model)
    model.load_state_dict({n: (1 - alpha) * a[n] + alpha * b[n] if a[n].is_floating_point() else a[n] for n in a})
    if statistics_batches is not None:
        torch.optim.swa_utils.update_bn(statistics_batches, model)
    model.eval()
    logits = torch.cat([model(x) for x, _ in batches()])
    labels = torch.cat([y for _, y in batches()])
    error = (logits.argmax(1) != labels).double().mean()
    return F.cross_entropy(logits.double(), labels), error, logits


def num_ties(logits: Tensor) -> int:
    """Images whose two highest logits are equal within float error."""
    top = logits.topk(2).values
    return int((top[:, 0] - top[:, 1] <= 1e-5 * top.abs().amax(1)).sum())


def assert_agrees(result, model, a, b, statistics_batches=None):
    for k, alpha in enumerate(ALPHAS):
        loss, error, logits = alone(model, a, b, alpha, statistics_batches)
        assert float(result.loss[k]) == pytest.approx(float(loss), abs=1e-5)
        assert abs(float(result.error[k] - error)) * len(logits) <= num_ties(logits) + 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_every_method_agrees_with_each_network_alone(name, method):
    if (name == "branching" and method != "each") or (name == "viewing" and method == "blocked"):
        pytest.skip("the method does not apply to this network")
    model, a, b = ends(name)
    assert_agrees(evaluate_linear_path(model, a, b, ALPHAS, batches(), method=method), model, a, b)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("method", ["auto", "blocked"])
@pytest.mark.parametrize("stacked_bytes", [0, 2 << 30])
def test_tickets_of_one_mask_agree_with_each_network_alone(density, method, stacked_bytes):
    model, a, b = ends("resnet")
    mask = {n: torch.rand(t.shape) < density for n, t in a.items() if t.dim() == 4}
    for name, kept in mask.items():
        a[name] *= kept
        b[name] *= kept
    result = evaluate_linear_path(model, a, b, ALPHAS, batches(), mask=mask, method=method, stacked_bytes=stacked_bytes)
    assert_agrees(result, model, a, b)


def test_a_convolution_visits_the_weights_of_the_mask_whatever_they_are():
    model, a, b = ends("resnet")
    mask = {n: torch.rand(t.shape) < 0.1 for n, t in a.items() if t.dim() == 4}
    blocked = fuse(model.eval(), mask)
    assert blocked is not None
    first = next(w for w in blocked.weights if w.names[0] == "0.weight")
    assert first.pattern is not None and torch.equal(first.pattern.index, mask["0.weight"].flatten().nonzero()[:, 0])
    for name, kept in mask.items():
        a[name] *= kept
        b[name] *= 0
    assert_agrees(evaluate_linear_path(model, a, b, ALPHAS, batches(), mask=mask), model, a, b)


@pytest.mark.parametrize("end", ["state_a", "state_b"])
def test_a_weight_that_its_mask_would_leave_out_is_named(end):
    model, a, b = ends("resnet")
    mask = {"0.weight": torch.ones(8, 3, 3, 3, dtype=torch.bool)}
    mask["0.weight"][7, 2, 2, 2] = False
    a["0.weight"][7, 2, 2, 2] = b["0.weight"][7, 2, 2, 2] = 0
    assert evaluate_linear_path(model, a, b, ALPHAS, batches(), mask=mask).num_images == 181
    {"state_a": a, "state_b": b}[end]["0.weight"][7, 2, 2, 2] = 1e-30
    with pytest.raises(ValueError, match=f"0.weight of {end} is not 0 outside of its mask"):
        evaluate_linear_path(model, a, b, ALPHAS, batches(), mask=mask)


def test_a_graph_that_pools_between_convolutions_leaves_its_blocks():
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 1, 1), nn.Flatten(), nn.Linear(64, 4)
    )
    for model, stays in ((resnet(), True), (pooled, False)):
        masks = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in model.named_parameters() if p.dim() > 1}
        blocked, unblocked = fuse(model.eval(), masks), fuse(model)
        assert blocked is not None and blocked.blocked and blocked.stays_in_blocks is stays
        assert unblocked is not None and not unblocked.stays_in_blocks


@pytest.mark.parametrize("name", ["resnet", "viewing"])
@pytest.mark.parametrize("method", ["auto", "fused", "stacked", "each"])
def test_recomputed_statistics_are_those_of_update_bn(name, method):
    model, a, b = ends(name)
    seen = batches((40, 24), seed=2)
    result = evaluate_linear_path(
        model, a, b, ALPHAS, batches(), statistics="recompute", statistics_batches=iter(seen), method=method
    )
    assert_agrees(result, model, a, b, seen)


@pytest.mark.parametrize("name", FUSED)
def test_networks_that_do_not_fit_in_memory_are_formed_for_every_batch(name):
    model, a, b = ends(name)
    for method in ("auto", "fused", "each"):
        assert_agrees(evaluate_linear_path(model, a, b, ALPHAS, batches(), stacked_bytes=0, method=method), model, a, b)


@pytest.mark.parametrize("name", FUSED)
def test_networks_of_known_layers_are_fused(name):
    assert fuse(ends(name)[0].eval()) is not None


def test_a_network_that_cannot_be_traced_is_not_fused():
    assert fuse(Branching()) is None


def test_a_fault_of_a_forward_pass_is_not_taken_for_a_network_that_cannot_be_traced():
    class Faulty(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weights)

    with pytest.raises(AttributeError, match="weights"):
        fuse(Faulty(3, 3))


def on_meta(name: str, side: int) -> nn.Module:
    width = 8 if SHIPPED[name].family in ("conv", "vgg") else None
    with torch.device("meta"):
        return build(ModelSpec(name=name, width=width), (3, side, side), 10).eval()


def test_every_model_is_fused_on_images_in_blocks_too_unless_its_first_kernel_is_large():
    models = {(name, 64): on_meta(name, 64) for name in SHIPPED} | {("resnet50", 224): on_meta("resnet50", 224)}
    assert [key for key, model in models.items() if fuse(model) is None] == []
    assert [key for key, model in models.items() if fuse(model, {}) is None] == [("resnet50", 224)]


def test_a_network_that_overwrites_what_is_read_later_is_not_fused():
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            g = self.conv(h)
            F.relu(h, inplace=True)
            return (g + h).mean((2, 3))

    assert fuse(Overwriting()) is None


@given(st.integers(0, 1000), st.lists(st.floats(0, 1), min_size=1, max_size=3))
@settings(max_examples=10)
def test_equal_ends_give_one_result_at_every_point(seed, alphas):
    model, a, _ = ends("resnet")
    result = evaluate_linear_path(model, a, a, alphas, batches((20,), seed))
    assert len(set(result.loss.tolist())) == len(set(result.error.tolist())) == 1


@pytest.mark.parametrize("name", FUSED)
def test_exchanging_the_ends_reverses_the_line(name):
    model, a, b = ends(name)
    alphas = [0.0, 0.25, 0.375, 0.75, 1.0]  # not 1/2, where the two roundings may differ
    forward = evaluate_linear_path(model, a, b, alphas, batches())
    backward = evaluate_linear_path(model, b, a, [1 - alpha for alpha in alphas], batches())
    assert torch.equal(forward.loss, backward.loss)
    assert torch.equal(forward.error, backward.error)


def test_the_same_bits_come_out_of_every_run():
    model, a, b = ends("resnet")
    first, second = (evaluate_linear_path(model, a, b, ALPHAS, batches()) for _ in range(2))
    assert torch.equal(first.loss, second.loss)


def test_the_model_keeps_its_weights_and_modes_and_batches_are_read_once():
    model, a, b = ends("resnet")
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    evaluate_linear_path(model, a, b, ALPHAS, iter(batches()))
    evaluate_linear_path(
        model, a, b, ALPHAS, iter(batches()), statistics="recompute", statistics_batches=iter(batches())
    )
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert model[1].momentum == 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alphas": []}, "alphas is empty"),
        ({"state_b": {}}, "state_a and state_b hold different names"),
        ({"batches": []}, "batches holds no image"),
        ({"statistics": "none"}, "statistics is 'none'"),
        ({"statistics": "recompute"}, "give statistics_batches"),
        ({"statistics_batches": []}, "give statistics_batches"),
        ({"statistics": "recompute", "statistics_batches": []}, "statistics_batches holds no batch"),
        ({"method": "fast"}, "method is 'fast'"),
        ({"mask": {"0.bias": torch.ones(8, dtype=torch.bool)}}, "for 0.bias, which is not a weight"),
        ({"mask": {"0.weight": torch.ones(8, dtype=torch.bool)}}, r"mask holds torch.bool \(8,\) for 0.weight"),
        ({"model": nn.Linear(3, 3)}, "state_a and model hold different names"),
    ],
)
def test_a_wrong_argument_is_named(change, message):
    model, a, b = ends("resnet")
    arguments = {"model": model, "state_a": a, "state_b": b, "alphas": ALPHAS, "batches": batches()}
    with pytest.raises(ValueError, match=message):
        evaluate_linear_path(**{**arguments, **change})


def test_a_shape_that_differs_between_the_ends_is_named():
    model, a, b = ends("lenet")
    b["1.bias"] = torch.zeros(31)
    with pytest.raises(ValueError, match=r"1\.bias is torch.float32 \(30,\)"):
        evaluate_linear_path(model, a, b, ALPHAS, batches())
