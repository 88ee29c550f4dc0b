"""Each model has the literature's size, prunes what the literature prunes, and is initialised by name."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lthbench.models.build import build, head, initialise, prunable, stem
from lthbench.models.spec import INITS, MODELS, ModelSpec

SMALL, CIFAR = (1, 28, 28), (3, 32, 32)

# name, image shape, parameters, prunable weights, prunable tensors, output layer, first weight
FACTS = [
    ("lenet-300-100", SMALL, 266_610, 266_200, 3, "fc", "fc1.weight"),  # 266K (Frankle & Carbin 2019)
    ("conv-2", CIFAR, 4_301_642, 4_300_992, 5, "fc", "convs.0.weight"),  # 4.3M (likewise)
    ("conv-4", CIFAR, 2_425_930, 2_425_024, 7, "fc", "convs.0.weight"),  # 2.4M
    (
        "conv-6",
        CIFAR,
        2_262_602,
        2_261_184,
        9,
        "fc",
        "convs.0.weight",
    ),  # 1.7M convolutions and 0.5M dense there
    ("resnet8", CIFAR, 78_042, 77_360, 10, "fc", "conv.weight"),
    ("resnet20", CIFAR, 272_474, 270_896, 22, "fc", "conv.weight"),  # 0.27M (He et al. 2016, table 6)
    ("resnet56", CIFAR, 855_770, 851_504, 58, "fc", "conv.weight"),  # 0.85M
]


def rng_for(name: str) -> np.random.Generator:
    """A stream that the parameter's name alone decides."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def made(spec: ModelSpec, shape: tuple[int, int, int] = CIFAR, num_classes: int = 10) -> nn.Module:
    """A built and initialised model."""
    model = build(spec, shape, num_classes)
    initialise(model, spec, rng_for)
    return model


@pytest.mark.parametrize(("name", "shape", "num_parameters", "num_prunable", "num_tensors", "output", "first"), FACTS)
def test_parameter_counts_are_the_literatures(
    name: str, shape: tuple[int, int, int], num_parameters: int, num_prunable: int, num_tensors: int,
    output: str, first: str,
) -> None:  # fmt: skip
    with torch.device("meta"):
        model = build(ModelSpec(name=name), shape, 10)
    parameters = dict(model.named_parameters())
    names = prunable(model)
    assert sum(p.numel() for p in parameters.values()) == num_parameters
    assert len(names) == num_tensors
    assert sum(parameters[n].numel() for n in names) == num_prunable
    assert (head(model), stem(model)) == (output, first)
    assert parameters[f"{output}.weight"].shape[0] == 10


def test_every_model_has_its_facts_tested() -> None:
    assert {fact[0] for fact in FACTS} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_only_convolution_and_linear_weights_are_prunable_and_in_parameter_order(name: str) -> None:
    with torch.device("meta"):
        model = build(ModelSpec(name=name), CIFAR, 10)
    names = prunable(model)
    order = [n for n, _ in model.named_parameters()]
    assert names == sorted(names, key=order.index)
    for n in names:
        module = model.get_submodule(n.removesuffix(".weight"))
        assert isinstance(module, (nn.Conv2d, nn.Linear))
    kept = set(order) - set(names)
    assert not [n for n in kept if isinstance(model.get_submodule(n.rpartition(".")[0]), nn.Conv2d) and "bias" not in n]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_classes", [10, 100])
def test_forward_gives_finite_logits_and_every_parameter_a_gradient(name: str, num_classes: int) -> None:
    model = made(ModelSpec(name=name), num_classes=num_classes)
    logits = model(torch.randn(2, *CIFAR, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, num_classes)
    assert bool(torch.isfinite(logits).all())
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters() if p.numel() > 100)


@pytest.mark.parametrize("name", MODELS)
def test_fx_traces_the_model_to_the_same_function(name: str) -> None:
    model = made(ModelSpec(name=name)).eval()
    x = torch.randn(2, *CIFAR, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("name", MODELS)
def test_no_convolution_before_a_batch_normalisation_has_a_bias(name: str) -> None:
    modules = list(build(ModelSpec(name=name), CIFAR, 10).modules())
    for module, behind in itertools.pairwise(modules):
        if isinstance(module, nn.Conv2d) and isinstance(behind, nn.BatchNorm2d):
            assert module.bias is None


@pytest.mark.parametrize("init", INITS)
def test_initial_weights_have_the_variance_of_their_scheme(init: str) -> None:
    spec = ModelSpec(name="conv-4", init=init)  # type: ignore[arg-type]
    model = made(spec)
    for name, fan_in, fan_out in (("convs.1", 64 * 9, 64 * 9), ("fc1", 8192, 256)):
        weight = model.get_parameter(f"{name}.weight")
        variance = 2 / fan_in if init.startswith("kaiming") else 2 / (fan_in + fan_out)
        assert weight.var().item() == pytest.approx(variance, rel=0.03)
        assert abs(weight.mean().item()) < 5 * math.sqrt(variance / weight.numel())
        largest = weight.abs().max().item() / math.sqrt(variance)
        if init.endswith("uniform"):
            assert largest <= math.sqrt(3) + 1e-6
        else:
            assert largest > 3.5


def test_torchs_own_initialisers_have_the_same_scale() -> None:
    ours = made(ModelSpec(name="conv-2", init="kaiming_normal")).get_parameter("fc1.weight")
    torchs = torch.empty_like(ours)
    nn.init.kaiming_normal_(torchs, generator=torch.Generator().manual_seed(0))
    assert ours.std().item() == pytest.approx(torchs.std().item(), rel=0.01)
    ours = made(ModelSpec(name="conv-2", init="glorot_normal")).get_parameter("fc1.weight")
    nn.init.xavier_normal_(torchs, generator=torch.Generator().manual_seed(0))
    assert ours.std().item() == pytest.approx(torchs.std().item(), rel=0.01)


def test_an_initial_weight_depends_on_its_name_alone() -> None:
    small, large = made(ModelSpec(name="resnet8")), made(ModelSpec(name="resnet20"))
    assert torch.equal(small.get_parameter("conv.weight"), large.get_parameter("conv.weight"))
    wide = made(ModelSpec(name="resnet8"), num_classes=100)
    for name in prunable(small)[:-1]:
        assert torch.equal(small.get_parameter(name), wide.get_parameter(name))
    assert not torch.equal(small.get_parameter("blocks.0.conv1.weight"), small.get_parameter("blocks.0.conv2.weight"))


def test_initialising_again_gives_the_same_bits_whatever_the_model_went_through() -> None:
    spec = ModelSpec(name="resnet8", batchnorm_weight="uniform")
    model, fresh = made(spec), made(spec)
    torch.manual_seed(3)
    model(torch.randn(4, *CIFAR)).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    initialise(model, spec, rng_for)
    for name, value in fresh.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_biases_are_zero_and_batch_normalisation_as_asked() -> None:
    uniform = made(ModelSpec(name="resnet20", batchnorm_weight="uniform"))
    ones = made(ModelSpec(name="resnet20"))
    scales = torch.cat([m.weight for m in uniform.modules() if isinstance(m, nn.BatchNorm2d)])
    assert 0 <= scales.min().item() < 0.05 and 0.95 < scales.max().item() < 1
    assert scales.mean().item() == pytest.approx(0.5, abs=0.05)
    for model in (uniform, ones):
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
    for module in ones.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all() and (module.running_var == 1).all())
            assert not module.running_mean.any() and int(module.num_batches_tracked) == 0  # type: ignore[union-attr]


def test_building_draws_nothing_from_torchs_global_generator() -> None:
    before = torch.get_rng_state()
    for name in MODELS:
        made(ModelSpec(name=name))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_width_scales_every_layer_but_the_ends() -> None:
    narrow = build(ModelSpec(name="resnet20", width=4), CIFAR, 10)
    assert narrow.get_parameter("conv.weight").shape == (4, 3, 3, 3)
    assert narrow.get_parameter("fc.weight").shape == (10, 16)
    lenet = build(ModelSpec(name="lenet-300-100", width=50), SMALL, 10)
    assert [lenet.get_parameter(n).shape[0] for n in prunable(lenet)] == [150, 50, 10]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "resnet-20"}, "did you mean 'resnet20'"),
        ({"name": "resnet20", "widht": 4}, "widht"),
        ({"name": "resnet20", "width": 0}, "greater than or equal to 1"),
        ({"name": "resnet20", "init": "kaiming"}, "kaiming_normal"),
    ],
)
def test_a_wrong_model_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(fields)


def test_images_too_small_for_the_pooling_are_refused() -> None:
    with pytest.raises(ValueError, match=r"conv-6 halves its input 3 times"):
        build(ModelSpec(name="conv-6"), (3, 7, 32), 10)


@pytest.mark.parametrize("room", ["models", "data"])
def test_specifications_are_read_without_importing_torch(room: str) -> None:
    code = f"import sys, lthbench.{room}.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
