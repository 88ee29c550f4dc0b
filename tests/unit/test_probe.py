"""Linear probes on features that stay as they are, and what normalisation does under each rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.data.images import ImageSet, pack
from lthbench.training import probe
from lthbench.training.probe import (
    PENALTIES,
    estimate_statistics,
    fit_probe,
    set_normalisation,
    train_only_head_and_normalisation,
)


def images(count: int, seed: int = 0) -> ImageSet:
    """Images of 4 x 4 pixels of three classes, brighter ones of a higher class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 100, (count, 4, 4)) + 40 * labels[:, None, None]
    return ImageSet(pack(pixels.astype(np.uint8)), torch.from_numpy(labels), (0.5,), (0.25,))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    return model.eval()


def standardised(model: nn.Sequential, images: ImageSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of the images in standard units, labels, and the mean and deviation that they had."""
    with torch.no_grad():
        batches = [(model[:4](x).double(), y) for x, y in images.batches(500)]
    features = torch.cat([x for x, _ in batches])
    mean, std = features.mean(0), features.std(0).clamp_min(1e-8)
    return (features - mean) / std, torch.cat([y for _, y in batches]), mean, std


def in_standard_units(layer: nn.Linear, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's weight and bias, as of features in standard units."""
    weight = layer.weight.detach().double()
    return weight * std, layer.bias.detach().double() + weight @ mean


def test_a_probe_is_where_the_penalised_loss_has_no_slope() -> None:
    model, train = network(), images(60)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    told = 0

    def count() -> None:
        nonlocal told
        told += 1

    penalty = fit_probe(model, "4", train, images(0), count)["penalty"]
    assert penalty == PENALTIES[len(PENALTIES) // 2], "nothing chooses it without a validation split"
    assert told > 2, "a batch, and several steps of the fit"
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items() if not name.startswith("4"))
    x, y, mean, std = standardised(model, train)
    weight, bias = (t.requires_grad_() for t in in_standard_units(model[4], mean, std))  # type: ignore[arg-type]
    loss = F.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 2e-4


def test_the_penalty_is_the_one_of_the_least_loss_on_unseen_images(monkeypatch: pytest.MonkeyPatch) -> None:
    train, unseen = images(30), images(90, seed=1)

    def loss(penalties: tuple[float, ...]) -> tuple[float, float]:
        monkeypatch.setattr(probe, "PENALTIES", penalties)
        model = network()
        penalty = fit_probe(model, "4", train, unseen)["penalty"]
        with torch.no_grad():
            return penalty, sum(
                float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in unseen.batches(50)
            ) / 90

    chosen, least = loss(PENALTIES)
    alone = {penalty: loss((penalty,))[1] for penalty in PENALTIES}
    assert least == pytest.approx(alone[chosen], rel=1e-2)
    assert alone[chosen] <= min(alone.values()) * 1.001
    assert chosen not in (PENALTIES[0], PENALTIES[-1]), "neither end of the grid"


def test_features_that_are_not_finite_have_no_probe() -> None:
    model = network()
    model[0].bias.data.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="not finite"):
        fit_probe(model, "4", images(30), images(0))


def test_without_normalisation_each_layer_is_the_identity_in_evaluation() -> None:
    model, x = network(), torch.randn(5, 3, 4, 4)
    model[1].running_mean.fill_(3.0)  # type: ignore[union-attr, operator]
    set_normalisation(model, images(9), "none")
    torch.testing.assert_close(model[1](x), x)


def test_batch_statistics_are_each_batchs_own_in_evaluation_too() -> None:
    model, x = network(), 2 + 3 * torch.randn(5, 3, 4, 4)
    set_normalisation(model, images(9), "batch")
    y = model[1](x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_estimated_statistics_are_means_over_batches_of_the_train_images() -> None:
    model, train = network(), images(700)
    model[1].running_mean.fill_(9.0)  # type: ignore[union-attr, operator]
    set_normalisation(model, train, "estimated")
    with torch.no_grad():
        batches = [model[0](x) for x, _ in train.batches(500)]
    assert len(batches) == 2
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    var = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    assert model[1].momentum == 0.1 and not model.training and not model[1].training
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).train()
    estimate_statistics(plain, train)
    assert plain.training, "nothing to estimate, nothing changed"


def test_only_the_head_and_normalisation_are_trained_in_an_affine_probe() -> None:
    model = network()
    train_only_head_and_normalisation(model, "4")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"1.weight", "1.bias", "4.weight", "4.bias"}
    layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    train_only_head_and_normalisation(layers, "2")
    assert {n for n, p in layers.named_parameters() if p.requires_grad} == {"1.weight", "1.bias", "2.weight", "2.bias"}
