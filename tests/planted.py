"""Points of suites that were never run: numbers with planted effects, or with none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lthbench.analysis.points import MeasuredPoint, Status
from lthbench.experiments.cell import FIRST_SELECTION_REPLICATE

# Pruning levels of the planted suites: two in the range, one extreme.
LEVELS = (1, 2, 3)
CONFIGURATIONS = 12
# Iterations of every planted training.
LENGTH = 4096
SELECTION = (FIRST_SELECTION_REPLICATE, FIRST_SELECTION_REPLICATE + 1)

PAIR = """\
  {name}:
    model: {{name: lenet-300-100, width: 10}}
    data: {{name: fashion-mnist-10k, validation: 100, num_train: 300}}
    recipe: {{steps: 3ep, batch_size: 64, optimizer: {{name: sgd, lr: 0.05}}}}
    arms: {{early: {{class: early}}, late: {{class: late, recipe: {{optimizer: {{lr: 0.2}}}}}}}}
    claim_levels: {{range: [1, 2], extreme: [3]}}
    experiments:
      imp: {{levels: 3}}
      rewound: {{kind: imp, levels: 3, rewind: 1ep}}
      controls: {{levels: [1, 2]}}
      crossed-masks: {{levels: [1, 2]}}
      stability: {{spawns: [0it], levels: [0, 1, 2]}}
      onset: {{grid: [0it, 5it]}}
      aimp: {{levels: [1, 2]}}
      regulariser: {{arms: [late], strengths: [0.001, 0.01, 0.1], levels: [1, 2]}}
      frozen-features: {{levels: [1, 2]}}
      few-shot: {{steps: 10it, per_class: [1, 5, 10, 25], levels: [1, 2]}}
      transfer: {{targets: [{{data: {{name: mnist}}}}], levels: [1, 2]}}
      convergence: {{levels: [1, 2]}}
      sensitivity: {{grid: [0it, 5it], vary: {{optimizer.lr: [0.1]}}}}
"""


def suite_text(claims: str, replicates: int, *pairs: str) -> str:
    """A suite with every experiment on each of some pairs."""
    head = f"title: planted\nreplicates: {replicates}\nselection_replicates: 2\nclaims: [{claims}]\npairs:\n"
    return head + "".join(PAIR.format(name=name) for name in pairs)


@dataclass
class World:
    """Makes the points of a pair; every number has a replicate's part, which pairing removes, and noise.

    Attributes:
        noise: of accuracies, as a fraction.
    """

    pair: str
    replicates: int
    random: np.random.Generator
    noise: float = 0.002
    points: list[MeasuredPoint] = field(default_factory=list)
    _shared: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shared = {r: float(self.random.normal(0, 0.01)) for r in range(self.replicates)}

    def add(
        self, experiment: str, arm: str, variant: str, level: int = 0, step: int = 0, *, status: Status = "ok",
        only: int | None = None, **numbers: float,
    ) -> None:  # fmt: skip
        """A point of each replicate (or `only` one): accuracies and distances get noise, other numbers stay."""
        for r in range(self.replicates) if only is None else (only,):
            found: dict[str, Any] = {}
            for name, value in numbers.items():
                if name.endswith("accuracy"):
                    value += self._shared.get(r, 0.0) + float(self.random.normal(0, self.noise))
                elif "distance" in name:
                    value *= 1 + float(self.random.normal(0, 0.05))
                found[name] = value
                if name == "test_barrier":
                    found["validation_barrier"] = value
            key = f"{experiment}/{arm}/{variant}/{level}/{step}/{r}"
            self.points.append(
                MeasuredPoint(
                    *(self.pair, experiment, arm, r, variant, level, 0.8**level, step, status, found, key),
                    share=step / LENGTH,
                )
            )


def world(pair: str, replicates: int, random: np.random.Generator, *, is_true: bool) -> list[MeasuredPoint]:
    """A pair on which every claim of the paper holds, or where nothing that is compared differs but the onsets."""
    w = World(pair, replicates, random)

    def pick(true: float, otherwise: float) -> float:
        return true if is_true else otherwise

    def distances(size: float) -> dict[str, float]:
        return dict.fromkeys(("distance", "distance_relative", "distance_angle", "distance_rms"), size)

    for arm, dense in (("early", pick(0.90, 0.90)), ("late", pick(0.91, 0.90))):
        early = arm == "early"
        size = pick(0.3 if early else 0.9, 0.6)
        w.add("imp", arm, "dense", test_accuracy=dense, train_accuracy=dense + 0.07, **distances(size))
        w.add("convergence", arm, "dense", test_accuracy=dense, forgetting_events=1.0)
        for level in LEVELS:
            ticket = pick(0.912 if early else 0.89, 0.90)
            w.add("imp", arm, "ticket", level, test_accuracy=ticket, train_accuracy=ticket + pick(0.04, 0.07),
                  **distances(size))  # fmt: skip
            rewound = pick(0.912 if level < 3 else 0.88, 0.90)
            w.add("rewound", arm, "ticket", level, 10, test_accuracy=rewound)
            if level == 3:
                continue
            for control in ("reinit", "shuffled"):
                w.add("controls", arm, control, level, test_accuracy=pick(0.89, 0.90))
            other = "late" if early else "early"
            w.add("crossed-masks", arm, f"mask of {other}", level, test_accuracy=pick(0.89 if early else 0.905, 0.90))
            stable = pick(0.005 if early else 0.10, 0.0)
            for r in range(replicates):
                barrier = stable if is_true else float(random.uniform(0, 0.04))
                w.add("stability", arm, "barrier", level, only=r, test_barrier=barrier)
            for budget, cost in (("1", 0.0), ("0.5", 0.0), ("0.1", 0.002 if early else 0.03)):
                accuracy = ticket - pick(cost, 0)
                w.add("aimp", arm, f"ticket, budget {budget}", level, test_accuracy=accuracy, search_distance=size)
            features(w, arm, level, is_true)
            for r in range(replicates):
                for network, true in (("ticket", 0.1), ("reinit", 0.3)):
                    share = pick(true, 0.2) + float(random.uniform(-0.03, 0.03))
                    w.add("convergence", arm, network, level, only=r, test_accuracy=0.9, share_to_converge=share,
                          share_unconverged=share - 0.01, forgetting_events=1.0)  # fmt: skip
        for r in range(replicates):
            share = pick(0.3, 0.2) + float(random.uniform(-0.03, 0.03))
            w.add("convergence", arm, "dense", only=r, share_to_converge=share, share_unconverged=share - 0.01)
        w.add("onset", arm, "barrier", 0, 0, test_barrier=0.001 if early else 0.2)
        w.add("onset", arm, "barrier", 0, 5, test_barrier=0.001)
        w.add("onset", arm, "onset", noise_scale=1.0 if early else 4.0, distance_relative=size,
              onset_above_share=0.0)  # fmt: skip
    regulariser(w, is_true)
    sensitivity(w, is_true)
    return w.points


def features(w: World, arm: str, level: int, is_true: bool) -> None:
    """What features of a level's networks are worth to few images, to a linear probe and on other data."""
    gain = (0.1 if arm == "early" else 0.05) if is_true else 0.0
    best = 0.6 if is_true and arm == "early" else 0.5
    for images, base in (("5", 0.5), ("50", 0.7)):
        for network, accuracy in (("ticket", base + gain), ("random", base)):
            for draw in range(2):
                w.add("few-shot", arm, f"{network}, {images} per class", level, draw, test_accuracy=accuracy)
    for network in ("ticket", "dense", "random", "reinit", "shuffled-weights"):
        for rule in ("estimated", "none"):
            accuracy = best if network == "ticket" else 0.5
            w.add("frozen-features", arm, f"probe of {network}, {rule}", level, test_accuracy=accuracy)
    for target in ("mnist", "kmnist"):
        for network in ("ticket", "random", "native ticket"):
            accuracy = best if network == "ticket" else 0.5
            for way in ("probe", "train"):
                w.add("transfer", arm, f"{way} {network} on {target}", level, test_accuracy=accuracy)


def regulariser(w: World, is_true: bool) -> None:
    """Pulls of three strengths on the late arm, the strongest the best where there is any effect."""
    for number, strength in enumerate(("0.001", "0.01", "0.1")):
        gain = 0.007 * (number + 1) if is_true else 0.0
        shorter = 0.9 - 0.2 * (number + 1) if is_true else 0.6
        for place, accuracy in (("search", gain), ("both", gain), ("training", 0.0)):
            for level in (1, 2):
                base = (0.89 if is_true else 0.90) + accuracy
                for r in (*(SELECTION if place == "search" else ()), *range(w.replicates)):
                    w.add("regulariser", "late", f"pull {strength} in {place}", level, only=r, test_accuracy=base,
                          validation_accuracy=base, search_distance=shorter)  # fmt: skip
        w.add("regulariser", "late", f"pull {strength} in search", 0, test_accuracy=0.91 if is_true else 0.90)
        for control in ("weight-decay", "other-init", "early-stopping", "low-lr"):
            for level in (1, 2):
                base = 0.89 if is_true else 0.90
                w.add("regulariser", "late", f"{control} for pull {strength}", level, test_accuracy=base)


def sensitivity(w: World, is_true: bool) -> None:
    """Recipes whose onset, accuracy, distance and tickets go together, or do not."""
    steps = [2**n for n in range(CONFIGURATIONS)]
    order = np.arange(CONFIGURATIONS) / CONFIGURATIONS
    accuracy, moved, gap = (order if is_true else w.random.permutation(order) for _ in range(3))
    for n, step in enumerate(steps):
        name = f"optimizer.lr = {n}"
        dense = 0.85 + 0.05 * accuracy[n]
        w.add("sensitivity", "late", name, test_accuracy=dense, distance_relative=float(0.2 + moved[n]))
        w.add("sensitivity", "late", f"{name}: onset", noise_scale=float(1 + w.random.uniform()),
              early_loss=float(moved[n]), onset_above_share=(step - 1) / LENGTH)  # fmt: skip
        # Unstable before the step, stable from it on.
        w.add("sensitivity", "late", f"{name}: barrier", 0, step - 1, test_barrier=0.2)
        w.add("sensitivity", "late", f"{name}: barrier", 0, step, test_barrier=0.001)
        for level in (1, 2):
            ticket = dense - 0.05 * float(gap[n])
            w.add("sensitivity", "late", f"{name}: ticket", level, test_accuracy=ticket)
