"""Linear layers by oneDNN: the gradients of torch's own layers, and theirs alone that are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.data.images import ImageSet, pack
from lthbench.engine import onednn_linear, policy
from lthbench.engine.onednn_linear import OneDnnLinear, use_onednn
from lthbench.engine.policy import onednn_is_faster
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)
BATCH, INPUTS, OUTPUTS = 60, 300, 100


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Whatever the environment, oneDNN is taken for faster, at any size; the shapes of the products it is asked for."""
    shapes: list[tuple[int, ...]] = []
    product = onednn_linear._product

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append((len(x), len(weight)))
        return product(x, weight, bias)

    monkeypatch.setattr(onednn_linear, "_product", noted)
    monkeypatch.setattr(policy, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(policy, "MIN_MULTIPLICATIONS", 0)
    return shapes


def layer_and_input(bias: bool = True, batch: int = BATCH) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return OneDnnLinear.of(nn.Linear(INPUTS, OUTPUTS, bias=bias)), torch.randn(batch, INPUTS)


INPUT_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "every second column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "one image again and again": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("dy", [None, "transposed"], ids=["dy of a sum", "dy transposed"])
@pytest.mark.parametrize("batch", [1, 7, BATCH])
@pytest.mark.parametrize("form", INPUT_FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_in_double(
    bias: bool, form: str, batch: int, dy: str | None, asked: list[tuple[int, ...]]
) -> None:
    layer, x = layer_and_input(bias, batch)
    x = INPUT_FORMS[form](x).detach().requires_grad_()
    inputs = [x, *layer.parameters()]
    exact = [t.detach().double().requires_grad_() for t in inputs]

    y = layer(x)
    expected = F.linear(*exact)
    weighting = torch.randn(OUTPUTS, batch).t() if dy else torch.ones(()).expand_as(y)
    grads = torch.autograd.grad(y, inputs, weighting)

    assert asked == [(batch, OUTPUTS), (batch, INPUTS), (OUTPUTS, INPUTS)]
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, exact, weighting.double()), strict=True):
        torch.testing.assert_close(grad.double(), wanted, rtol=1e-5, atol=2e-5)


def test_a_strided_weight_is_read_as_it_lies(asked: list[tuple[int, ...]]) -> None:
    layer, x = layer_and_input()
    expected = F.linear(x, layer.weight, layer.bias)
    layer.weight = nn.Parameter(layer.weight.detach().repeat_interleave(2, 1)[:, ::2])
    torch.testing.assert_close(layer(x), expected)
    assert asked


def test_only_the_gradients_that_are_wanted_are_computed(asked: list[tuple[int, ...]]) -> None:
    layer, x = layer_and_input()
    layer(x).sum().backward()
    assert asked == [(BATCH, OUTPUTS), (OUTPUTS, INPUTS)] and x.grad is None
    layer.requires_grad_(False)
    layer.zero_grad()
    asked.clear()
    layer(x.requires_grad_()).sum().backward()
    assert asked == [(BATCH, OUTPUTS), (BATCH, INPUTS)] and layer.weight.grad is None and layer.bias.grad is None


def test_the_same_bits_each_time(asked: list[tuple[int, ...]]) -> None:
    def run() -> list[Tensor]:
        layer, x = layer_and_input()
        y = layer(x.requires_grad_())
        return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]

    first, again = run(), run()
    assert asked and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_small_products_and_other_inputs_are_left_to_torch(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = layer_and_input()
    monkeypatch.setattr(policy, "MIN_MULTIPLICATIONS", x.numel() * OUTPUTS)
    others = [x[1:], x[0], x[None], x[:0]]
    expected = [F.linear(other, layer.weight, layer.bias) for other in others]
    assert all(torch.equal(layer(other), y) for other, y in zip(others, expected, strict=True))
    assert not asked
    layer(x)
    assert len(asked) == 1
    with pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())  # as torch refuses it


def test_evaluation_is_torchs_own(asked: list[tuple[int, ...]]) -> None:
    layer, x = layer_and_input()
    with torch.no_grad():
        layer(x)
    assert torch.equal(layer.eval()(x), F.linear(x, layer.weight, layer.bias))
    assert not asked


def test_a_replaced_layer_has_the_very_tensors_and_mode_and_names_and_places(asked: list[tuple[int, ...]]) -> None:
    shared = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(shared, nn.ReLU(), shared)).eval()
    before = list(model.named_parameters())
    use_onednn(model)
    assert all(n == m and p is q for (n, p), (m, q) in zip(before, model.named_parameters(), strict=True))
    assert isinstance(model[0], OneDnnLinear) and not model[0].training and model[1][0].bias is None
    assert model[1][0] is model[1][2]


def test_a_second_derivative_is_refused(asked: list[tuple[int, ...]]) -> None:
    layer, x = layer_and_input()
    y = layer(x.requires_grad_())
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_the_layers_are_those_in_float32_on_the_cpu(asked: list[tuple[int, ...]]) -> None:
    class Own(nn.Linear):
        pass

    single = nn.Linear(2, 2)
    elsewhere = nn.Linear(2, 2, device="meta")
    model = nn.Sequential(single, nn.Linear(2, 2).double(), nn.ReLU(), nn.Sequential(elsewhere, Own(2, 2), single))
    use_onednn(model)
    replaced = [name for name, module in model.named_modules(remove_duplicate=False) if type(module) is OneDnnLinear]
    assert replaced == ["0", "3.2"]


@pytest.mark.parametrize(
    ("capability", "vendor", "expected"),
    [
        ("AVX512", "AuthenticAMD", True),
        ("AVX512", "GenuineIntel", False),
        ("AVX512", "", False),
        ("AVX2", "AuthenticAMD", False),
        ("DEFAULT", "", False),
    ],
)
def test_the_processor_decides(capability: str, vendor: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(policy, "cpuinfo", lambda: {"vendor_id": vendor} if vendor else {})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert onednn_is_faster.__wrapped__() == expected
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not onednn_is_faster.__wrapped__()


def trainer(precision: str = "float32") -> Trainer:
    """A training of 6 steps, the last of each three with 2 images, of two layers."""
    torch.manual_seed(0)
    pixels = pack(np.random.default_rng(0).integers(0, 256, (18, 8, 8), dtype=np.uint8))
    images = ImageSet(pixels, torch.arange(18) % 10, (0.5,), (0.5,))
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    recipe = {"steps": "6it", "batch_size": 8, "optimizer": optimizer, "precision": precision}
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    return Trainer(model, images, Recipe.model_validate(recipe), num_classes=10, seed=0)


def weights(training: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in training.model.parameters()]


def test_a_training_goes_by_onednn_and_repeats_and_resumes_to_the_same_bits(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, resumed = trainer(), trainer(), trainer()
    saved = []
    first.run()
    assert len(asked) == 6 * (3 + 2)  # the gradient of the images is not wanted
    again.run(on_step=lambda t: saved.append(({n: x.clone() for n, x in t.state()[0].items()}, t.state()[1])))
    resumed.restore(*saved[3])
    resumed.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(resumed), strict=True))

    asked.clear()
    evaluate(first.model, first.images)
    monkeypatch.setattr(policy, "onednn_is_faster", lambda: False)
    plain = trainer()
    plain.run()
    assert not asked
    for ours, theirs in zip(weights(first), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_training_in_bfloat16_is_left_to_torch(asked: list[tuple[int, ...]]) -> None:
    trainer("bfloat16").run()
    assert not asked
