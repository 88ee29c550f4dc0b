"""Frozen features: a linear probe on a network whose other weights stay as they are.

The paper's abstract says that tickets encode features for classification in their untrained weights; a probe
measures it: the output layer is fitted by logistic regression, its penalty chosen on the validation split.
Batch normalisation needs a rule, since its running statistics of an untrained network mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.data.images import ImageSet

PENALTIES = tuple(10.0**exponent for exponent in range(1, -7, -1))
_BATCH = 500
_BatchNorm = nn.modules.batchnorm._BatchNorm


def set_normalisation(model: nn.Module, train: ImageSet, rule: Literal["batch", "estimated", "none"]) -> None:
    """Make batch normalisation follow a rule from here on, in evaluation too; a no-op without such layers.

    Args:
        rule: `estimated` sets the running statistics to those of the train images; `batch` takes each batch's own;
            `none` makes normalisation the identity.
    """
    match rule:
        case "none":
            _remove_normalisation(model)
        case "batch":
            _use_batch_statistics(model)
        case "estimated":
            estimate_statistics(model, train)


def fit_probe(
    model: nn.Module,
    head: str,
    train: ImageSet,
    validation: ImageSet,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Fit the output layer `head` of a model in place; all other parameters stay as they are, bit for bit.

    Args:
        validation: chooses the penalty; without images the train loss would choose the weakest, so the middle of
            the grid is taken.
        on_batch: called after every batch of images and every step of the fit.

    Returns:
        penalty: the chosen lambda of (lambda/2) ||W||^2 beside the mean cross-entropy of standardised features.
    """
    features, labels = _features(model, head, train, on_batch)
    mean, std = features.mean(0), features.std(0).clamp_min(1e-8)
    features = (features - mean) / std
    held_out = _features(model, head, validation, on_batch) if len(validation) else None
    layer = model.get_submodule(head)
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise ValueError(f"a probe fits an nn.Linear with a bias, which the output layer {head} is not")
    num_classes = layer.out_features
    best: tuple[float, float, Tensor] | None = None
    weights = np.zeros(num_classes * (features.shape[1] + 1))
    penalties = PENALTIES if held_out is not None else PENALTIES[len(PENALTIES) // 2 :][:1]
    for penalty in penalties:  # from the strongest on, each starting where the one before ended
        weights = _logistic_regression(features, labels, num_classes, penalty, weights, on_batch)
        solution = torch.from_numpy(weights).reshape(num_classes, -1)
        loss = 0.0
        if held_out is not None:
            unseen, their_labels = held_out
            loss = float(F.cross_entropy(_logits((unseen - mean) / std, solution), their_labels))
        if best is None or loss < best[0]:
            best = (loss, penalty, solution.clone())
    assert best is not None
    _, penalty, solution = best
    with torch.no_grad():
        scaled = solution[:, :-1].to(std) / std
        layer.weight.copy_(scaled)
        layer.bias.copy_(solution[:, -1].to(std) - scaled @ mean)
    return {"penalty": penalty}


def train_only_head_and_normalisation(model: nn.Module, head: str) -> None:
    """Require gradients of the output layer and of the scales and shifts of normalisation alone."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if name == head or isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            module.requires_grad_(True)


@torch.no_grad()
def estimate_statistics(model: nn.Module, images: ImageSet) -> None:
    """Set the running statistics of batch normalisation to the mean over batches of these images."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    for batch, _ in images.batches(_BATCH):
        model(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def _remove_normalisation(model: nn.Module) -> None:
    """Make every batch normalisation the identity, in training and evaluation."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.zero_()
            module.running_var.fill_(1.0 - module.eps)


def _use_batch_statistics(model: nn.Module) -> None:
    """Let every batch normalisation use the statistics of the batch it sees, in evaluation too."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = None


@torch.no_grad()
def _features(model: nn.Module, head: str, images: ImageSet, on_batch: Callable[[], None]) -> tuple[Tensor, Tensor]:
    """The input of the output layer for each image, float64 [N, features], and the labels [N], in the same order."""
    features: list[Tensor] = []
    labels: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].double()))
    model.eval()
    try:
        for batch, its_labels in images.batches(_BATCH):
            model(batch)
            labels.append(its_labels)
            on_batch()
    finally:
        hook.remove()
    return torch.cat(features), torch.cat(labels)


def _logits(features: Tensor, solution: Tensor) -> Tensor:
    solution = solution.to(features.device)
    return torch.addmm(solution[:, -1], features, solution[:, :-1].T)


def _logistic_regression(
    features: Tensor, labels: Tensor, num_classes: int, penalty: float, begin: np.ndarray, on_step: Callable[[], None]
) -> np.ndarray:
    """Minimise mean cross-entropy + (penalty / 2) ||W||^2 by L-BFGS; the last column is the bias, unpenalised."""
    from scipy.optimize import minimize

    one_hot = F.one_hot(labels, num_classes).double()
    num_images = len(labels)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        on_step()
        solution = torch.from_numpy(flat).reshape(num_classes, -1).to(features.device)
        logits = _logits(features, solution)
        log_probabilities = logits.log_softmax(1)
        difference = (log_probabilities.exp() - one_hot) / num_images
        weights = solution[:, :-1]
        loss = -(log_probabilities * one_hot).sum() / num_images + penalty / 2 * weights.square().sum()
        gradient = torch.cat([difference.T @ features + penalty * weights, difference.sum(0)[:, None]], 1)
        return float(loss), gradient.cpu().numpy().reshape(-1)

    found = minimize(loss_and_gradient, begin, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    if not math.isfinite(found.fun):
        raise ValueError("the features of the probe are not finite")
    return np.asarray(found.x)
