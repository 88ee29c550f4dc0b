"""The verb `mask`: from a trained network and its mask to the next mask."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from lthbench.ops import prune_lowest
from lthbench.tasks.context import Context
from lthbench.tasks.files import digest, write_mask
from lthbench.tasks.layout import MASK
from lthbench.tasks.network import Layout
from lthbench.tasks.spec import MaskSpec, Pruning, num_survivors
from lthbench.training.streams import stream


def make_mask(spec: MaskSpec, context: Context) -> dict[str, Any]:
    """Make one mask and return its result; the mask is written into the task's folder.

    A mask covers every prunable layer; layers that the specification excludes keep all their weights.

    Returns:
        metrics: density over all prunable weights; layer_density; thresholds (the largest pruned score of each
        group); num_nan (scores that were NaN); digests.

    Raises:
        Refused: the network diverged, so no mask may be made from it.
    """
    thresholds: list[float] = []
    num_nan = 0
    if spec.like is not None:
        assert spec.seed is not None
        mask = random_mask(context.mask(spec.like), spec.seed, spec.draw)
    else:
        assert spec.network is not None
        weights, layout = context.network(spec.network)
        prior = context.mask(spec.prior) if spec.prior else {}
        mask = {name: prior.get(name, torch.ones_like(weights[name], dtype=torch.bool)) for name in layout.prunable}
        for names, rate in pruning_groups(spec.pruning, layout):
            keep = num_survivors(sum(mask[n].numel() for n in names), rate, spec.level)
            alive = sum(int(mask[n].sum()) for n in names)
            pruned = prune_lowest([weights[n] for n in names], [mask[n] for n in names], alive - keep)
            mask |= dict(zip(names, pruned.masks, strict=True))
            thresholds.append(pruned.threshold)
            num_nan += pruned.num_nan
    write_mask(context.folder / MASK, mask)
    return {
        "status": "ok",
        "metrics": {"density": sum(int(m.sum()) for m in mask.values()) / sum(m.numel() for m in mask.values())},
        "layer_density": {name: int(m.sum()) / m.numel() for name, m in mask.items()},
        "thresholds": thresholds,
        "num_nan": num_nan,
        "digests": {"mask": digest(mask)},
    }


def pruning_groups(pruning: Pruning, layout: Layout) -> list[tuple[list[str], float]]:
    """The layers that share a threshold, with their rate; in parameter order, without the excluded layers.

    Raises:
        ValueError: an entry of `exclude` or `rates` matches no layer.
    """

    def matches(entry: str) -> list[str]:
        pattern = {"head": f"{layout.head}.*", "stem": layout.stem}.get(entry, entry)
        names = [n for n in layout.prunable if fnmatchcase(n, pattern)]
        if not names:
            raise ValueError(f"pruning names '{entry}', which matches none of the layers {', '.join(layout.prunable)}")
        return names

    excluded = {name for entry in pruning.exclude for name in matches(entry)}
    group_of = {name: (entry, rate) for entry, rate in pruning.rates.items() for name in matches(entry)}
    groups: dict[tuple[str, float], list[str]] = {}
    for name in layout.prunable:
        if name not in excluded:
            entry, rate = group_of.get(name, ("", pruning.rate))
            groups.setdefault((name if pruning.scope == "layer" else entry, rate), []).append(name)
    return [(names, rate) for (_, rate), names in groups.items()]


def random_mask(like: dict[str, Tensor], seed: int, draw: int) -> dict[str, Tensor]:
    """A mask with exactly as many survivors in each layer as `like`, drawn uniformly (stream `mask`)."""
    mask = {}
    for name, m in like.items():
        order = stream(seed, "mask", draw, name).permutation(m.numel())
        flat = torch.zeros(m.numel(), dtype=torch.bool)
        flat[torch.from_numpy(order[: int(m.sum())])] = True
        mask[name] = flat.reshape(m.shape).to(m.device)
    return mask
