"""Each model has the literature's size, prunes what the literature prunes, and is initialised by name."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import zlib
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lthbench.data.spec import DATASETS
from lthbench.models.build import build, head, initialise, prunable, stem
from lthbench.models.depth import draw_kept, stochastic_layers
from lthbench.models.resnet import Block
from lthbench.models.spec import MODELS, Init, ModelInfo, ModelSpec

SMALL, CIFAR = (1, 28, 28), (3, 32, 32)

TINY, IMAGENET = (3, 64, 64), (3, 224, 224)

# name, image shape, classes, parameters, prunable weights, prunable tensors, output layer, first weight
FACTS = [
    # 266K, 4.3M and 2.4M: Frankle & Carbin 2019, figure 2. The figure gives 1.7M for Conv-6, which its own definition
    # contradicts: 1,144,512 weights of convolutions (its 1.1M) and, behind the third pooling of 32 x 32 pixels,
    # 4 * 4 * 256 * 256 + 256 * 256 + 256 * 10 = 1,116,672 of linear layers. Ramanujan et al. 2020 (1911.13299, code
    # hidden-networks) build it with the same 256 * 4 * 4 inputs.
    ("lenet-300-100", SMALL, 10, 266_610, 266_200, 3, "fc", "fc1.weight"),
    ("conv-2", CIFAR, 10, 4_301_642, 4_300_992, 5, "fc", "convs.0.weight"),
    ("conv-4", CIFAR, 10, 2_425_930, 2_425_024, 7, "fc", "convs.0.weight"),
    ("conv-6", CIFAR, 10, 2_262_602, 2_261_184, 9, "fc", "convs.0.weight"),
    # 0.27M and 0.85M: He et al. 2016, table 6.
    ("resnet8", CIFAR, 10, 78_042, 77_360, 10, "fc", "conv.weight"),
    ("resnet20", CIFAR, 10, 272_474, 270_896, 22, "fc", "conv.weight"),
    ("resnet56", CIFAR, 10, 855_770, 851_504, 58, "fc", "conv.weight"),
    # 14.7M for VGG-16 and 20.0M for VGG-19.
    ("vgg11", CIFAR, 10, 9_228_362, 9_222_848, 9, "fc", "layers.0.weight"),
    ("vgg16", CIFAR, 10, 14_724_042, 14_715_584, 14, "fc", "layers.0.weight"),
    ("vgg19", CIFAR, 10, 20_035_018, 20_024_000, 17, "fc", "layers.0.weight"),
    # 11.2M: weiaicunzai/pytorch-cifar100; 25,557,032 and 28,288,354: torchvision's weights; 7.1M: Lee et al. 2021.
    ("resnet18", CIFAR, 100, 11_220_132, 11_210_432, 21, "fc", "conv1.weight"),
    ("resnet18", TINY, 200, 11_271_432, 11_261_632, 21, "fc", "conv1.weight"),
    ("resnet50", IMAGENET, 100, 23_712_932, 23_659_712, 54, "fc", "conv1.weight"),
    ("resnet50", IMAGENET, 1000, 25_557_032, 25_502_912, 54, "fc", "conv1.weight"),
    ("swin-small64", TINY, 200, 7_125_218, 7_085_568, 52, "head", "features.0.0.weight"),
    ("swin-t", IMAGENET, 1000, 28_288_354, 28_199_424, 53, "head", "features.0.0.weight"),
]


def rng_for(name: str) -> np.random.Generator:
    """A stream that the parameter's name alone decides."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def made(spec: ModelSpec, shape: tuple[int, int, int] = CIFAR, num_classes: int = 10) -> nn.Module:
    """A built and initialised model."""
    model = build(spec, shape, num_classes)
    initialise(model, spec, rng_for)
    return model


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "num_parameters", "num_prunable", "num_tensors", "output", "first"), FACTS
)
def test_parameter_counts_are_those_of_the_literature(
    name: str, shape: tuple[int, int, int], num_classes: int, num_parameters: int, num_prunable: int,
    num_tensors: int, output: str, first: str,
) -> None:  # fmt: skip
    with torch.device("meta"):
        model = build(ModelSpec(name=name), shape, num_classes)
    parameters = dict(model.named_parameters())
    names = prunable(model)
    assert sum(p.numel() for p in parameters.values()) == num_parameters
    assert len(names) == num_tensors
    assert sum(parameters[n].numel() for n in names) == num_prunable
    assert (head(model), stem(model)) == (output, first)
    assert parameters[f"{output}.weight"].shape[0] == num_classes


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
def test_forward_gives_finite_logits_and_every_parameter_a_gradient(name: str) -> None:
    num_classes = 100 if name in ("conv-4", "resnet8", "vgg16") else 10
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


@pytest.mark.parametrize("init", [init for init in get_args(Init) if init != "trunc_normal"])
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


def test_swin_is_initialised_as_its_authors_do() -> None:
    model = made(ModelSpec(name="swin-small64"), TINY)
    for name in ("features.1.0.attn.qkv.weight", "features.1.0.mlp.0.weight", "head.weight"):
        assert model.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.05)
    table = model.get_parameter("features.5.3.attn.relative_position_bias_table")
    assert table.shape == (49, 12) and table.std().item() == pytest.approx(0.02, rel=0.1)
    patches = model.get_parameter("features.0.0.weight")
    assert patches.abs().max().item() == pytest.approx(1 / math.sqrt(48), rel=0.01)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all()) and not module.bias.any()


def test_small_images_keep_their_resolution_in_the_stem() -> None:
    with torch.device("meta"):
        small, large = (build(ModelSpec(name="resnet18"), shape, 10) for shape in (TINY, IMAGENET))
    assert small.get_parameter("conv1.weight").shape == (64, 3, 3, 3)
    assert isinstance(small.get_submodule("maxpool"), nn.Identity)
    assert large.get_parameter("conv1.weight").shape == (64, 3, 7, 7)
    assert isinstance(large.get_submodule("maxpool"), nn.MaxPool2d)


def test_drop_path_skips_blocks_in_training_only() -> None:
    spec = ModelSpec(name="swin-small64", drop_path=0.5)
    model, x = made(spec, TINY), torch.randn(4, *TINY, generator=torch.Generator().manual_seed(0))
    plain = made(ModelSpec(name="swin-small64"), TINY)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert torch.equal(trained(model, x, seed=0), trained(model, x, seed=0))
    assert not torch.equal(trained(model, x, seed=0), trained(model, x, seed=1))
    assert torch.equal(plain.train()(x), plain(x))


def trained(model: nn.Module, x: torch.Tensor, seed: int, rows: slice = slice(None)) -> torch.Tensor:
    """The logits of some images of a batch in training, with the batch's draws."""
    layers = stochastic_layers(model)
    for layer, kept in zip(layers, draw_kept(layers, len(x), seed, x.device), strict=True):
        layer.kept = kept[rows]
    return model.train()(x[rows])


def test_drop_path_skips_the_same_blocks_of_an_image_however_its_batch_is_divided() -> None:
    model = made(ModelSpec(name="swin-small64", drop_path=0.5), TINY)
    x = torch.randn(4, *TINY, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([trained(model, x, 7, slice(0, 1)), trained(model, x, 7, slice(1, 4))])
    assert torch.allclose(parts, trained(model, x, 7), atol=1e-5)


def test_drop_path_is_drawn_for_each_branch_with_its_probability_and_keeps_the_mean() -> None:
    with torch.device("meta"):
        layers = stochastic_layers(build(ModelSpec(name="swin-small64", drop_path=0.44), TINY, 10))
    assert [layer.p for layer in layers] == pytest.approx([0.04 * i for i in range(1, 12) for _ in range(2)])
    draws = draw_kept(layers, 20_000, 0, torch.device("cpu"))
    for layer, kept in zip(layers, draws, strict=True):
        assert kept.unique().tolist() == pytest.approx([0, 1 / (1 - layer.p)])
        assert kept.mean().item() == pytest.approx(1, abs=5 * math.sqrt(layer.p / (1 - layer.p) / 20_000))
    assert not torch.equal(draws[0] > 0, draws[1] > 0)


def test_drop_path_without_draws_is_an_error_and_no_model_draws_random_numbers_itself() -> None:
    x = torch.randn(2, *TINY, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match="draw_kept"):
        made(ModelSpec(name="swin-small64", drop_path=0.5), TINY).train()(x)
    for name in MODELS:
        model = build(ModelSpec(name=name), TINY, 10)
        assert not [m for m in model.modules() if getattr(m, "p", 0) and "Drop" in type(m).__name__], name


@pytest.mark.parametrize("width", range(1, 18))
def test_no_resnet_has_a_strided_projection_of_few_channels(width: int) -> None:
    """The gradient of one damages memory; the paper's networks, of 16 channels and more, are as they were."""
    with torch.device("meta"):
        network = build(ModelSpec(name="resnet8", width=width), TINY, 10)
    strided = [
        m
        for m in network.modules()
        if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1)
    ]
    assert all(m.in_channels >= 16 for m in strided) and len(strided) == sum(n >= 16 for n in (width, 2 * width))


def test_a_block_of_few_channels_has_a_strided_projection() -> None:
    block, x = Block(4, 8, stride=2).eval(), torch.randn(2, 4, 7, 8)
    main = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    convolution, norm = block.shortcut
    projected = torch.conv2d(x, convolution.weight, stride=2)
    assert torch.allclose(block(x), torch.relu(main + norm(projected)), atol=1e-6)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "swin-small64"])
def test_grey_images_are_accepted(name: str) -> None:
    assert made(ModelSpec(name=name), SMALL)(torch.zeros(2, *SMALL)).shape == (2, 10)


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
        ({"name": "resnet18", "width": 32}, "the width of resnet18 is 64"),
        ({"name": "resnet18", "drop_path": 0.1}, "only swin-small64, swin-t"),
    ],
)
def test_a_wrong_model_is_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(fields)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 heads .* must divide its width of 64"):
        ModelSpec(name="swin-t", width=64)


def test_images_too_small_for_the_pooling_are_refused() -> None:
    with pytest.raises(ValueError, match=r"conv-6 halves its input 3 times"):
        build(ModelSpec(name="conv-6"), (3, 7, 32), 10)


@pytest.mark.parametrize("room", ["models", "data"])
def test_specifications_are_read_without_importing_torch(room: str) -> None:
    code = f"import sys, lthbench.{room}.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_names_of_layers_are_known_without_building_the_model(name: str) -> None:
    side = 224 if name == "swin-t" else 64
    with torch.device("meta"):
        network = build(ModelSpec(name=name), (3, side, side), 10)
    assert ModelSpec(name=name).layers(DATASETS["cifar10"]) == prunable(network)


def test_a_new_family_takes_a_module_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def patch(shape: tuple[int, int, int], num_classes: int, width: int, norm: type[nn.Module]) -> nn.Module:
        stem = nn.Conv2d(shape[0], width, shape[1:])
        return nn.Sequential(stem, norm(width), nn.Flatten(), nn.Linear(width, num_classes))

    row = ModelInfo(patch, 6, "kaiming_normal", "nobody", {"norm": nn.BatchNorm2d})
    monkeypatch.setitem(MODELS, "one-patch", row)
    spec, images = ModelSpec(name="one-patch"), DATASETS["cifar10"]
    assert not list(spec.faults(images))
    assert spec.layers(images) == ["0.weight", "3.weight"]
    assert spec.norm_pixels(images) == 1
    assert made(spec)(torch.zeros(2, *CIFAR)).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name, info in MODELS.items() if info.norm_pixels])
@pytest.mark.parametrize("side", [16, 28, 31, 32, 64, 65, 224])
def test_the_fewest_values_that_batch_normalisation_sees_are_known_without_the_network(name: str, side: int) -> None:
    shape, seen = (3, side, side), []
    with torch.device("meta"):
        network = build(ModelSpec(name=name), shape, 10).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][0, 0].numel()))
        network(torch.empty(1, *shape))
    pixels = MODELS[name].norm_pixels
    assert pixels is not None and pixels(side, side) == min(seen)
