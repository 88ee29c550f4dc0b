"""The task type `mask`: from a trained network and its mask to the next mask."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lthbench.data.loading import load
from lthbench.ops import prune_lowest
from lthbench.tasks.context import Context
from lthbench.tasks.criteria import CRITERIA, Layer, scores_of
from lthbench.tasks.elsewhere import read_imported
from lthbench.tasks.layout import Layout, pruning_groups
from lthbench.tasks.network import make_network, weights_of
from lthbench.tasks.paths import weights_file
from lthbench.tasks.result import Artefact
from lthbench.tasks.spec import MaskSpec, Pruning, TrainSpec, Weights, num_survivors, parse_spec
from lthbench.tasks.start import start_of
from lthbench.tasks.tensor_files import digest
from lthbench.tasks.train import train_images
from lthbench.training.learning_distance import learning_distance
from lthbench.training.loop import EVAL_BATCH
from lthbench.training.streams import stream


def make_mask(spec: MaskSpec, context: Context) -> dict[str, Any]:
    """Make one mask and return its result; the mask is written into the task's folder.

    Returns:
        metrics: density over all prunable weights; empty_layers (those without a survivor); dead_units (neurons and
        channels with no kept weight into them); the learning distances, where there are such weights, of those that
        this pruning keeps and that it removes (`_kept`, `_pruned`);
        layer_density; thresholds (the largest pruned score of each
        group); num_nan (scores that were NaN); digests.

    Raises:
        TicketError: the store has no such ticket.
        Refused: the network diverged, so no mask may be made from it.
        ValueError: a plugin's criterion gave scores of another shape, or NaN.
    """
    result: dict[str, Any] = {"status": "ok"}
    metrics: dict[str, float] = {}
    artefacts: dict[str, Artefact] = {}
    if spec.ticket is not None:
        assert context.tickets is not None
        (mask, initial), layout = read_imported(context.tickets, spec.ticket)
        if initial:
            artefacts = context.write(weights_file(None), initial, vars(layout))
    elif spec.like is not None:
        assert spec.seed is not None
        imitate = random_mask if spec.criterion == "random" else shuffled_mask
        mask = imitate(context.mask(spec.like), spec.seed, spec.draw)
    else:
        assert spec.network is not None
        weights, layout = context.network(spec.network)
        started = _start_weights(spec.network, context)
        prior = context.mask(spec.prior) if spec.prior else {}
        prior = {n: prior.get(n, torch.ones_like(weights[n], dtype=torch.bool)) for n in layout.prunable}
        num_images = CRITERIA[spec.criterion].gradient_images
        gradients = _gradients(spec.network, weights, num_images, context) if num_images else {}
        layers = (Layer(n, weights[n], started[n], prior[n], gradients.get(n)) for n in layout.prunable)
        scores = {layer.name: scores_of(spec.criterion, layer) for layer in layers}
        mask, result["thresholds"], result["num_nan"] = prune(scores, prior, layout, spec.pruning, spec.level)
        for kind, part in (("kept", mask), ("pruned", {n: prior[n] & ~mask[n] for n in mask})):
            distances = learning_distance(started, weights, part, layout.prunable)
            metrics |= {f"{name}_{kind}": value for name, value in distances.items()}
    survivors = {name: int(m.sum()) for name, m in mask.items()}
    metrics["density"] = sum(survivors.values()) / sum(m.numel() for m in mask.values())
    metrics["empty_layers"] = sum(count == 0 for count in survivors.values())
    metrics["dead_units"] = sum(int((~m.flatten(1).any(1)).sum()) for m in mask.values())
    return {
        **result,
        "artefacts": artefacts | context.write_mask(mask),
        "metrics": metrics,
        "layer_density": {name: survivors[name] / m.numel() for name, m in mask.items()},
        "digests": {"mask": digest(mask)},
    }


def prune(
    scores: dict[str, Tensor], prior: dict[str, Tensor], layout: Layout, pruning: Pruning, level: int
) -> tuple[dict[str, Tensor], list[float], int]:
    """The mask of a level: of the survivors of `prior`, those with the lowest scores are pruned.

    Args:
        scores, prior: name -> score and bool of every prunable weight.

    Returns:
        The mask, which covers every prunable layer (excluded ones keep all their weights); the largest pruned score
        of each group of layers that share a threshold; the number of scores that were NaN.
    """
    mask, thresholds, num_nan = dict(prior), [], 0
    for names, rate in pruning_groups(pruning, layout):
        keep = num_survivors(sum(mask[n].numel() for n in names), rate, level)
        survivors = sum(int(mask[n].sum()) for n in names)
        pruned = prune_lowest([scores[n] for n in names], [mask[n] for n in names], survivors - keep, magnitude=False)
        mask |= dict(zip(names, pruned.masks, strict=True))
        thresholds.append(pruned.threshold)
        num_nan += pruned.num_nan
    return mask, thresholds, num_nan


def _start_weights(network: Weights, context: Context) -> dict[str, Tensor]:
    """The weights that a network's training started from, rebuilt from its specification."""
    spec = parse_spec(context.specification(network.task))
    assert isinstance(spec, TrainSpec)
    return weights_of(start_of(spec, context).model)


def _gradients(network: Weights, weights: dict[str, Tensor], num_images: int, context: Context) -> dict[str, Tensor]:
    """The gradients of the mean loss over some of the images that a network was trained on, in evaluation mode."""
    spec = parse_spec(context.specification(network.task))
    assert isinstance(spec, TrainSpec)
    model = make_network(spec.model, spec.data, context.device)
    model.load_state_dict(weights)
    model.eval()
    images = train_images(spec, load(spec.data, context.data, context.device)).sample(num_images)
    for batch, labels in context.watched(images.batches(EVAL_BATCH)):
        (F.cross_entropy(model(batch), labels, reduction="sum") / len(images)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def random_mask(like: dict[str, Tensor], seed: int, draw: int) -> dict[str, Tensor]:
    """A mask with exactly as many survivors in each layer as `like`, drawn uniformly (stream `mask`)."""
    mask = {}
    for name, m in like.items():
        order = stream(seed, "mask", draw, name).permutation(m.numel())
        flat = torch.zeros(m.numel(), dtype=torch.bool)
        flat[torch.from_numpy(order[: int(m.sum())])] = True
        mask[name] = flat.reshape(m.shape).to(m.device)
    return mask


def shuffled_mask(like: dict[str, Tensor], seed: int, draw: int) -> dict[str, Tensor]:
    """The masks of `like` with the outputs and the inputs of each layer permuted, so that unit densities stay."""
    mask = {}
    for name, m in like.items():
        for dim in (0, 1):
            order = stream(seed, "mask", draw, "shuffled", name, dim).permutation(m.shape[dim])
            m = m.index_select(dim, torch.from_numpy(order).to(m.device))
        mask[name] = m
    return mask
