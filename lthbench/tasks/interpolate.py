"""The task type `interpolate`: from two trained networks to loss and error along the linear path between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lthbench.data.loading import load
from lthbench.engine.linear_path import evaluate_linear_path
from lthbench.ops.sums import sum_in_order
from lthbench.tasks.context import Context
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import make_network
from lthbench.tasks.spec import InterpolateSpec, TrainSpec, Weights, parse_spec
from lthbench.tasks.start import mask_of

BATCH = 2000


def interpolate(spec: InterpolateSpec, context: Context) -> dict[str, Any]:
    """Evaluate the networks (1 - alpha) a + alpha b and return the result.

    Returns:
        alphas: the points; curves: loss and error (fraction) at each of them on train, validation (where the data
        has such a split; choices are made by it) and test;
        metrics: for each of these splits, `barrier` (error) and `loss_barrier`: the maximum over alpha minus the mean
        of the ends, as in Frankle et al. 2020 (arXiv 1912.05671), section 2; distance, that of the ends (L2, prunable
        weights); distance_shared, over the weights that are pruned at neither end. Each distance is absent where
        there are no such weights.

    Raises:
        Refused: one of the ends diverged.
    """
    (a, layout), (b, _) = context.network(spec.a), context.network(spec.b)
    trainings = [_training(end, context) for end in (spec.a, spec.b)]
    masks = [_mask(made, layout, weights, context) for made, weights in zip(trainings, (a, b), strict=True)]
    either, both = (
        {n: kept(masks[0][n], masks[1][n]) for n in layout.prunable} for kept in (torch.logical_or, torch.logical_and)
    )
    blocked = all(made.recipe.engine == "blocked" for made in trainings)
    splits = load(spec.data, context.data, context.device)
    model = make_network(spec.model, spec.data, context.device)
    alphas = torch.linspace(0, 1, spec.points, dtype=torch.float64)
    sets = {"train": splits.train.sample(spec.num_train), "validation": splits.validation, "test": splits.test}
    sets = {name: images for name, images in sets.items() if len(images)}
    curves: dict[str, list[float]] = {}
    metrics: dict[str, float] = {}
    for done, (name, images) in enumerate(sets.items()):
        context.report(done, len(sets))
        recompute = spec.statistics == "recompute"
        line = evaluate_linear_path(
            model,
            a,
            b,
            alphas,
            context.watched(images.batches(BATCH)),
            mask=either,
            statistics=spec.statistics,
            statistics_batches=context.watched(splits.train.sample(spec.statistics_images).batches(BATCH))
            if recompute
            else None,
            trained_blocked=blocked,
        )
        for quantity, values, metric in (
            ("error", line.error, "barrier"),
            ("loss", line.loss, "loss_barrier"),
        ):
            curves[f"{name}_{quantity}"] = values.tolist()
            metrics[f"{name}_{metric}"] = barrier(values)
    for name, mask in (("distance", either), ("distance_shared", both)):
        if any(bool(m.any()) for m in mask.values()):
            squares = (float((a[n] - b[n])[m].double().square().sum()) for n, m in mask.items())
            metrics[name] = sum_in_order(squares) ** 0.5
    return {"status": "ok", "metrics": metrics, "alphas": alphas.tolist(), "curves": curves}


def _mask(made: TrainSpec, layout: Layout, weights: Mapping[str, Tensor], context: Context) -> dict[str, Tensor]:
    """The mask of an end, which a training made: name -> bool for every prunable weight."""
    if all(bool(weights[n].all()) for n in layout.prunable):  # pruned weights are 0, so nothing is pruned
        return {n: torch.ones_like(weights[n], dtype=torch.bool) for n in layout.prunable}
    mask = mask_of(made, layout, context)
    return {n: mask.get(n, torch.ones_like(weights[n], dtype=torch.bool)) for n in layout.prunable}


def _training(end: Weights, context: Context) -> TrainSpec:
    """The training that made an end."""
    spec = parse_spec(context.specification(end.task))
    assert isinstance(spec, TrainSpec)
    return spec


def barrier(values: Tensor) -> float:
    """The barrier: the maximum minus the mean of the two ends. values: [K], the ends first and last."""
    return float(values.max() - (values[0] + values[-1]) / 2)
