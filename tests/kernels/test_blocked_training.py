"""Training on images in blocks: convolutions, normalisation and their gradients are those of the dense computation."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from devices import needs_kernels
from devices import reference as on_reference
from torch import Tensor, library, nn

from lthbench.bench.throughput import noise_images
from lthbench.data.spec import DataSpec
from lthbench.engine.blocked_training import BlockedConvolution, blocked_training
from lthbench.models.build import prunable
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.ops.convolution import SparsityPattern, from_blocks, to_blocks
from lthbench.ops.masked_convolution import MaskedConvolution, blocks_of, plane_mean
from lthbench.ops.normalisation import Activations, BatchNorm
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights
from lthbench.training.loop import Trainer
from lthbench.training.recipe import SGD, Recipe
from lthbench.training.steps import Steps

ROUNDING = 2.0**-24  # of float32, relative


@pytest.fixture(autouse=True)
def _as_tasks_run() -> Iterator[None]:
    """With the deterministic algorithms of torch alone: others are refused."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


# images, input and output channels, plane, (kernel, stride, padding), density
CASES = [
    (20, 3, 8, (8, 12), (3, 1, 1), 0.3),
    (20, 3, 8, (8, 16), (3, 2, 1), 0.3),
    (33, 5, 4, (7, 5), (3, 2, 1), 0.5),
    (17, 4, 6, (6, 6), (1, 2, 0), 0.5),
    (16, 4, 6, (6, 8), (1, 1, 0), 0.0),
    (16, 4, 6, (9, 7), (3, 3, 1), 0.5),
    (16, 4, 6, (6, 8), (2, 1, 0), 0.5),
    (16, 40, 24, (8, 8), (3, 1, 1), 0.2),
    (16, 4, 8, (8, 8), (3, 1, 1), 1.0),
    (16, 8, 8, (8, 8), (3, 2, 1), 1.0),
    (1, 2, 3, (1, 1), (1, 2, 0), 1.0),
    (17, 40, 24, (9, 126), (3, 1, 1), 0.2),  # these two in several items of rows
    (17, 24, 40, (19, 60), (3, 2, 1), 0.1),
    (16, 4, 6, (6, 8), (1, 1, 1), 0.5),
    (16, 4, 6, (6, 8), (2, 1, 1), 0.5),
    (16, 4, 6, (5, 5), (3, 2**40, 1), 0.5),
]


class Layer:
    """A masked convolution of random operands in float64, and in blocks."""

    def __init__(self, num_images, inputs, outputs, plane, geometry, density):
        g = torch.Generator().manual_seed(num_images + inputs)
        self.kernel, self.stride, self.padding = geometry
        self.x = torch.randn(num_images, inputs, *plane, generator=g)
        self.weight = torch.randn(outputs, inputs, self.kernel, self.kernel, generator=g)
        self.mask = torch.rand(self.weight.shape, generator=g) < density
        self.other = torch.randn(self.x.shape, generator=g)
        self.dy = torch.randn(self.convolve(self.x, self.weight).shape, generator=g)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight * self.mask, stride=self.stride, padding=self.padding)

    def exact(self, *, absolute: bool = False) -> list[Tensor]:
        """Output and gradients in float64; or those of the absolute values, to which rounding errors are relative."""
        operands = (t.double() for t in (self.x, self.weight, self.dy))
        x, weight, dy = (t.abs() if absolute else t for t in operands)
        x.requires_grad_()
        weight.requires_grad_()
        y = self.convolve(x, weight)
        return [y.detach(), *torch.autograd.grad(y, (x, weight), dy)]

    def bounds(self) -> list[Tensor]:
        """Of output, and gradients of input and weight: a sum of n products errs by at most n + 2 roundings of each."""
        y, dx, dw = self.exact(absolute=True)
        area, pixels = self.kernel**2, self.dy[0, 0].numel() * len(self.x)
        counts = self.weight.shape[1] * area, self.weight.shape[0] * area, pixels
        return [(n + 2) * ROUNDING * t + 1e-30 for n, t in zip(counts, (y, dx, dw), strict=True)]

    def blocked(self, pattern: SparsityPattern | None, *, keep: bool = False) -> list[Tensor]:
        layer = MaskedConvolution(pattern, self.kernel, self.stride, self.padding)
        # The layout only moves values, so that gradients of blocks are blocks of gradients.
        x, weight = to_blocks(self.x).requires_grad_(), (self.weight * self.mask).requires_grad_()
        y, _, read = layer(Activations(x), weight, keep=keep)
        outputs, grads = ([y, read], [self.dy, self.other]) if keep else ([y], [self.dy])
        dx, dw = torch.autograd.grad(outputs, (x, weight), [to_blocks(t) for t in grads])
        return [from_blocks(y.detach())[: len(self.x)], from_blocks(dx)[: len(self.x)], dw]


def assert_within(got: list[Tensor], exact: list[Tensor], bounds: list[Tensor]) -> None:
    for a, b, bound in zip(got, exact, bounds, strict=True):
        assert ((a.double() - b).abs() <= bound).all()


@pytest.mark.parametrize("case", CASES)
def test_a_masked_convolution_and_its_gradients_are_those_of_the_dense_one_within_their_rounding(case):
    layer = Layer(*case)
    got, (y, dx, dw) = layer.blocked(SparsityPattern.of(layer.mask)), layer.exact()
    assert_within(got, [y, dx, dw * layer.mask], layer.bounds())
    assert not got[2][~layer.mask].any()


@pytest.mark.parametrize("case", [CASES[1], CASES[7], CASES[9]])
def test_what_else_reads_the_input_has_its_gradient_added(case):
    layer = Layer(*case)
    pattern = SparsityPattern.of(layer.mask)
    alone, together = layer.blocked(pattern), layer.blocked(pattern, keep=True)
    torch.testing.assert_close(together[1], alone[1] + layer.other, rtol=0, atol=1e-5)
    assert torch.equal(together[0], alone[0]) and torch.equal(together[2], alone[2])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "case", [(20, 3, 6, (8, 8)), (16, 16, 16, (7, 5)), (33, 8, 4, (16, 12)), (17, 40, 24, (9, 126))]
)
def test_a_dense_convolution_by_winograd_has_the_gradients_of_the_direct_one(case, keep):
    layer = Layer(*case, (3, 1, 1), 1.0)
    got, (y, dx, dw) = layer.blocked(None, keep=keep), layer.exact()
    dx = dx + layer.other if keep else dx
    # Its filtering errs by 1e-5 standard deviations of an output at the most.
    filtered = [torch.full_like(t, 2e-5 * float(t.std())) for t in (y, dx)]
    assert_within(got, [y, dx, dw], [*filtered, layer.bounds()[2]])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("pattern", [True, False])
def test_the_reference_of_a_masked_convolution_agrees(pattern, keep):
    layer = Layer(20, 4, 6, (8, 8), (3, 1, 1), 0.5 if pattern else 1.0)
    kept = SparsityPattern.of(layer.mask) if pattern else None
    got = layer.blocked(kept, keep=keep)
    with on_reference():
        expected = layer.blocked(kept, keep=keep)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


NORMS = [
    (20, 3, (8, 8), True, True),
    (16, 5, (7, 5), False, False),
    (33, 4, (5, 6), True, False),
    (1, 2, (2, 3), False, True),
    (17, 24, (14, 126), True, True),  # in several items of rows
]


def norm_alone(x, num_images, norm, relu=False, residual=None):
    """A normalisation behind a convolution that changes nothing."""
    same = torch.eye(x.shape[1])[..., None, None]
    convolution = MaskedConvolution(SparsityPattern.of(same.bool()), 1, 1, 0)
    y, affine, _ = convolution(Activations(x), same, norm, num_images)
    return Activations(y, affine, residual, relu).finished(num_images)


def normalised(num_images, channels, plane, relu, adds):
    """Output, gradients of input, weight, bias and summand: in blocks and in float64."""
    g = torch.Generator().manual_seed(num_images)
    x = 3 * torch.randn(num_images, channels, *plane, generator=g) + 5
    weight, bias = torch.rand(channels, generator=g), torch.randn(channels, generator=g)
    other, dy = (torch.randn(x.shape, generator=g) for _ in range(2))
    exact = [t.double().requires_grad_() for t in (x, weight, bias, other)]
    y = F.batch_norm(exact[0], None, None, exact[1], exact[2], training=True, eps=1e-3)
    y = y + exact[3] if adds else y
    y = y.relu() if relu else y
    of_exact = torch.autograd.grad(y, exact[: 4 if adds else 3], dy.double())
    # Lanes that are no images hold what a layer before left there.
    blocks = [to_blocks(t) for t in (x, other)]
    for t in blocks:
        t[-1, ..., num_images % 16 or 16 :] = 7
    ours = [t.requires_grad_() for t in (blocks[0], weight, bias, blocks[1])]
    statistics = torch.zeros(channels), torch.ones(channels)
    norm = BatchNorm(*ours[1:3], *statistics, 1.0, 1e-3)
    z = norm_alone(ours[0], num_images, norm, relu, ours[3] if adds else None)
    of_ours = torch.autograd.grad(z, ours[: 4 if adds else 3], to_blocks(dy))
    torch.testing.assert_close(statistics[0].double(), x.double().mean((0, 2, 3)))
    torch.testing.assert_close(statistics[1].double(), x.double().var((0, 2, 3)), rtol=1e-5, atol=1e-5)
    return [z.detach(), *of_ours], [y.detach(), *of_exact]


@pytest.mark.parametrize("case", NORMS)
@pytest.mark.parametrize("kernels", [True, False])
def test_normalisation_with_what_follows_has_the_outputs_and_gradients_of_the_layers(case, kernels):
    if kernels:
        got, exact = normalised(*case)
    else:
        with on_reference():
            got, exact = normalised(*case)
    for a, b in zip(got, exact, strict=True):
        a = from_blocks(a)[: case[0]] if a.dim() == 5 else a
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)
    if case[0] % 16:
        assert not got[1][-1, ..., case[0] % 16 :].any()


def test_the_mean_of_a_large_offset_loses_no_digits_of_the_variance():
    x = to_blocks(torch.randn(32, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.01 + 1000)
    mean, variance = torch.zeros(2), torch.zeros(2)
    norm_alone(x, 32, BatchNorm(torch.ones(2), torch.zeros(2), mean, variance, 1.0))
    images = from_blocks(x).double()
    torch.testing.assert_close(variance.double(), images.var((0, 2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), images.mean((0, 2, 3)), rtol=1e-7, atol=0)


def test_an_outlier_costs_the_variance_no_digits():
    x = torch.randn(16, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 1e4
    mean, variance = torch.zeros(2), torch.zeros(2)
    norm_alone(to_blocks(x), 16, BatchNorm(torch.ones(2), torch.zeros(2), mean, variance, 1.0))
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3)), rtol=1e-5, atol=0)


@needs_kernels
@pytest.mark.parametrize("case", [CASES[7], CASES[11]])
def test_threads_change_no_bit_of_a_training_pass(case):
    before, passes = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found = [*Layer(*case).blocked(SparsityPattern.of(Layer(*case).mask))]
        found += Layer(40, 6, 9, (8, 8), (3, 1, 1), 1.0).blocked(None) + normalised(*NORMS[0])[0]
        passes.append(found)
    torch.set_num_threads(before)
    for found in passes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, passes[0], strict=True))


def test_the_mean_of_a_plane_and_its_gradient():
    x = torch.randn(20, 3, 4, 6)
    blocks, images = to_blocks(x).requires_grad_(), x.clone().requires_grad_()
    got, expected = plane_mean(blocks, 20), images.mean((2, 3))
    torch.testing.assert_close(got, expected)
    dy = torch.randn(20, 3)
    (dx,), (exact,) = torch.autograd.grad(got, blocks, dy), torch.autograd.grad(expected, images, dy)
    torch.testing.assert_close(dx, to_blocks(exact))


def network(name: str, density: float, width: int | None = None) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network for CIFAR-10 with its initial weights, pruned at random between its first and its last layer."""
    spec = ModelSpec(name=name, width=width)
    model = make_network(spec, DataSpec(name="cifar10"), torch.device("cpu"))
    set_initial_weights(model, spec, seed=0)
    g, weights = torch.Generator().manual_seed(1), dict(model.named_parameters())
    mask = {n: torch.rand(weights[n].shape, generator=g) < density for n in prunable(model)[1:-1]}
    apply_mask(model, mask)
    return model.train(), mask


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    labels = torch.arange(len(logits)) % 10
    model.zero_grad()
    F.cross_entropy(logits, labels).backward()
    return {n: p.grad.double().clone() for n, p in model.named_parameters() if p.grad is not None}


@needs_kernels
@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("name, width", [("resnet8", None), ("resnet20", 8)])
def test_a_network_in_blocks_computes_what_the_dense_masked_one_does(name, width, density):
    model, mask = network(name, density, width)
    exact, dense = copy.deepcopy(model).double(), copy.deepcopy(model)
    passes = blocked_training(model, mask)
    assert passes is not None
    x = torch.randn(18, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    logits, right, usual = passes(x), exact(x.double()), dense(x)
    error, usual_error = ((t.double() - right).abs().max() for t in (logits, usual))
    assert error <= 4 * usual_error + 1e-5
    torch.testing.assert_close(dict(model.named_buffers()), dict(dense.named_buffers()), rtol=1e-4, atol=1e-5)
    # Where an activation within rounding of 0 falls on the other side, a gradient moves by more than rounding; it does
    # so in the dense computation too.
    got, expected, dense_ones = gradients(model, logits), gradients(exact, right), gradients(dense, usual)
    for n, gradient in expected.items():
        gradient, own, other = (t * mask[n] if n in mask else t for t in (gradient, got[n], dense_ones[n]))
        assert (own - gradient).norm() <= 4 * (other - gradient).norm() + 2e-3 * gradient.norm() + 1e-6
        # Over surviving weights alone there is no other gradient.
        assert density > 0.25 or n not in mask or not got[n][~mask[n]].any()


class Block(nn.Module):
    """Two convolutions with normalisation, whose sum a third reads; how they are called is the argument."""

    def __init__(self, call) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1, bias=False) for i in (3, 4, 4))
        self.n, self.m, self.fc = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(4, 10)
        self.added, self.call = nn.Parameter(torch.randn(1, 4, 1, 1)), call

    def forward(self, x):
        return self.fc(self.call(self, x).mean((2, 3)))


def _frozen(block, x):
    y = F.relu(block.n(block.a(x)))
    return block.c(F.relu(block.m(block.b(y)) + y))


def _unread(block, x):
    y = F.relu(block.n(block.a(x)))
    block.b(y)
    return block.c(y)


def _overwriting(block, x):
    y = block.n(block.a(x))
    return block.c(F.relu(y, inplace=True)) + y


CALLS = {
    "a summand that is the layer's own input": _frozen,
    "a layer whose output nothing reads": _unread,
    "a normalisation that is called twice": lambda k, x: F.relu(k.n(k.a(x)) + k.n(k.b(F.relu(k.a(x))))),
    "a parameter that is added to all": lambda k, x: k.c(F.relu(k.n(k.a(x)) + k.added)),
    "two readers and a pool": lambda k, x: k.c(z := F.relu(k.n(k.a(x)))) + k.m(k.b(z)) + F.avg_pool2d(z, 3, 1, 1),
}


@needs_kernels
@pytest.mark.parametrize("freezes", [False, True])
@pytest.mark.parametrize("how", CALLS)
def test_however_layers_are_called_the_dense_computation_is_had(how, freezes):
    torch.manual_seed(0)
    model = Block(CALLS[how]).train()
    for parameter in [*model.a.parameters(), *model.n.parameters()] if freezes else []:
        parameter.requires_grad_(False)
    dense, passes = copy.deepcopy(model).double(), blocked_training(model, {})
    assert passes is not None
    for step in range(2):
        x = torch.randn(18, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        logits, usual = passes(x), dense(x.double())
        torch.testing.assert_close(logits.double(), usual, rtol=1e-4, atol=1e-4)
        got, expected = gradients(model, logits), gradients(dense, usual)
        assert got.keys() == expected.keys()
        for n in expected:
            torch.testing.assert_close(got[n], expected[n], rtol=1e-3, atol=1e-4)
        buffers = {n: b.double() for n, b in model.named_buffers()}
        torch.testing.assert_close(buffers, {n: b.double() for n, b in dense.named_buffers()}, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_a_network_that_overwrites_what_is_read_again_or_names_its_input_is_left_to_torch():
    assert blocked_training(Block(_overwriting), {}) is None
    assert blocked_training(Block(lambda k, x: k.a(input=x)), {}) is None


@needs_kernels
def test_what_the_passes_cannot_compute_is_an_error_and_not_another_result():
    model, mask = network("resnet8", 1.0)
    passes = blocked_training(model, mask)
    assert passes is not None
    next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)).eval()
    with pytest.raises(RuntimeError, match="in evaluation mode"):
        passes(torch.randn(2, 3, 8, 8))
    several = {
        "twice": lambda k, x: k.a(torch.cat([x, -x])),
        "half": lambda k, x: k.a(x[:4]),
        "one for all": lambda k, x: k.c(k.n(k.a(x)) + F.relu(k.added.expand(1, 4, 8, 8))),
    }
    for call in several.values():
        for number in (8, 16):
            passes = blocked_training(Block(call).train(), {})
            assert passes is not None
            with pytest.raises(RuntimeError, match=rf"where it was given {number} images"):
                passes(torch.randn(number, 3, 8, 8))
    passes = blocked_training(Block(lambda k, x: k.n(k.a(x))).train(), {})
    assert passes is not None
    with pytest.raises(RuntimeError, match="two values of a channel"):
        passes(torch.randn(1, 3, 1, 1))


@needs_kernels
def test_nan_passes_a_relu():
    model = Block(_frozen).train()
    passes = blocked_training(model, {})
    assert passes is not None
    x = torch.randn(4, 3, 8, 8)
    x[0] = torch.nan
    assert passes(x).isnan().all()


@needs_kernels
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_of_the_package_trains_by_the_engine(name):
    """Some have parameters beside their layers (Swin's position biases), which a step must move too."""
    spec = ModelSpec(name=name)
    data = DataSpec(name="tinyimagenet" if name in ("resnet18", "resnet50") or "swin" in name else "cifar10")
    model = make_network(spec, data, torch.device("cpu"))
    set_initial_weights(model, spec, seed=0)
    g, weights = torch.Generator().manual_seed(1), dict(model.named_parameters())
    mask = {n: torch.rand(weights[n].shape, generator=g) < 0.05 for n in prunable(model, spec)}
    apply_mask(model, mask)
    dense, passes = copy.deepcopy(model).train(), blocked_training(model.train(), mask)
    assert passes is not None
    side = data.info.image_shape[1]
    x = torch.randn(2, *data.info.image_shape[:1], side, side, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    logits = passes(x)
    torch.manual_seed(3)
    usual = dense(x)
    torch.testing.assert_close(logits, usual, rtol=1e-3, atol=1e-3 * float(usual.detach().abs().max()))
    got, expected = gradients(model, logits), gradients(dense, usual)
    assert got.keys() == expected.keys() == weights.keys()


@needs_kernels
@pytest.mark.parametrize("width", [None, 8])  # below 16 channels a projection is of every other pixel, sliced
def test_all_of_a_network_is_in_blocks_from_the_images_to_the_pooling(width):
    model, mask = network("resnet20", 0.1, width)
    passes = blocked_training(model, mask)
    assert passes is not None
    kinds = [type(passes.get_submodule(str(node.target))) for node in passes.graph.nodes if node.op == "call_module"]
    assert kinds.count(BlockedConvolution) == 21  # with two projections
    assert kinds.count(nn.Linear) == 1 and len(kinds) == 22
    functions = [node.target for node in passes.graph.nodes if node.op == "call_function"]
    assert functions.count(blocks_of) == functions.count(plane_mean) == 1
    assert {id(p) for p in passes.parameters()} == {id(p) for p in model.parameters()}


def test_a_network_that_cannot_be_traced_or_has_no_convolution_in_blocks_is_left_to_torch():
    class Depends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert blocked_training(Depends(), {}) is None
    assert blocked_training(nn.Sequential(nn.Flatten(), nn.ReLU()), {}) is None
    assert blocked_training(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2, bias=False)), {}) is None


def test_layers_without_a_form_in_blocks_are_given_images():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten(), nn.Linear(64, 10),
    ).train()  # fmt: skip
    dense = copy.deepcopy(model)
    passes = blocked_training(model, {})
    assert passes is not None
    x = torch.randn(19, 3, 8, 8)
    logits, usual = passes(x), dense(x)
    torch.testing.assert_close(logits, usual, rtol=1e-4, atol=1e-4)
    got, expected = gradients(model, logits), gradients(dense, usual)
    for n in expected:
        torch.testing.assert_close(got[n], expected[n], rtol=1e-3, atol=1e-4)


@needs_kernels
def test_operators_of_training_keep_their_contract_with_torch():
    x, dy = to_blocks(torch.randn(2, 2, 5, 5)), to_blocks(torch.randn(2, 3, 5, 5))
    p = SparsityPattern.of(torch.rand(3, 2, 3, 3) < 0.5)
    values, affine, of_y, threes = torch.randn(len(p.index)), torch.ones(3, 2), torch.ones(3, 3), torch.ones(3)
    running, geometry, none = (torch.zeros(3), torch.ones(3)), (3, 1, 1), (None,) * 5
    ops = torch.ops.lthbench
    kept, norm = (values, p.col_indices, p.row_ptr, 3), (threes, threes)
    how = 2, 1e-5, 0.1
    finishes = x, affine, x.clone(), True, True, *kept, *geometry, *norm, *running, *how
    library.opcheck(ops.convolution_layer.default, finishes)
    library.opcheck(ops.convolution_layer.default, (x, None, None, False, False, *kept, *geometry, *none[:4], *how))
    of_norm, dense = (threes, dy.clone(), of_y, threes), (torch.randn(3, 2, 3, 3), *none)
    read = x, affine, x.clone(), True
    passes_on = dy, of_y, x, *read, values, *p.lists, *geometry, *of_norm, 2, True
    library.opcheck(ops.convolution_layer_gradient.default, passes_on)
    ends = dy, None, None, x, None, None, False, *dense, *geometry, *none[:4], 2, False
    library.opcheck(ops.convolution_layer_gradient.default, ends)
    library.opcheck(ops.normalise.default, (x, affine, x.clone(), True))
    library.opcheck(ops.normalise_gradient.default, (x, x.clone(), affine, x.clone(), True, 2))


@needs_kernels
def test_a_training_by_the_blocked_engine_tracks_one_by_torch_and_repeats_and_resumes_bit_for_bit():
    images = noise_images("cifar10", 64, torch.device("cpu"))
    optimizer = SGD(name="sgd", lr=0.05, momentum=0.9)

    def trainer(engine):
        recipe = Recipe(steps=Steps(iterations=6), batch_size=20, optimizer=optimizer, engine=engine)
        model, mask = network("resnet8", 0.2, 4)
        return Trainer(model, images, recipe, num_classes=10, seed=0, mask=mask), mask

    ends, losses, saved = [], [], []
    for engine in ("torch", "blocked", "blocked"):
        training, mask = trainer(engine)
        losses.append(training.run(on_step=lambda t: saved.append(copy.deepcopy(t.state()))).epoch_losses)
        ends.append(training.model.state_dict())
        assert all(not p[~mask[n]].any() for n, p in training.model.named_parameters() if n in mask)
    resumed, _ = trainer("blocked")
    resumed.restore(*saved[8])  # after three steps
    resumed.run()
    for end in (ends[2], resumed.model.state_dict()):
        assert all(torch.equal(a, b) for a, b in zip(ends[1].values(), end.values(), strict=True))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-3)


def test_the_blocked_engine_is_refused_where_it_does_not_apply():
    images = noise_images("fashion-mnist", 20, torch.device("cpu"))
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(784))
    recipe = Recipe(steps=Steps(iterations=1), batch_size=20, optimizer=SGD(name="sgd", lr=0.05), engine="blocked")
    with pytest.raises(ValueError, match="engine 'blocked' needs"):
        Trainer(model, images, recipe, num_classes=10, seed=0)
