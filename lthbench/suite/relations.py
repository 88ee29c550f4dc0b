"""Constraints between fields of a suite: faults that no field has by itself.

A model checks such constraints in a method `faults` (lthbench.fault), which is called here with the pair, arm and
experiment that it needs. The loader adds file and line.
"""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.data.spec import DataSpec, num_train_images
from lthbench.experiments import Cell, Experiment
from lthbench.fault import Fault, under
from lthbench.models.spec import ModelSpec
from lthbench.names import unknown
from lthbench.suite.schema import Pair, Suite
from lthbench.tasks.spec import layers_of, num_survivors
from lthbench.training.recipe import Recipe

MAX_CELLS = 100_000


def suite_faults(suite: Suite) -> Iterator[Fault]:
    """Faults of a suite, its data, models and recipes, before `micro` is applied."""
    num_arms = sum(len(pair.arms) for pair in suite.pairs.values())
    if (number := num_arms * (suite.replicates + suite.selection_replicates)) > MAX_CELLS:
        yield Fault(
            ("replicates",),
            f"{num_arms:,} arms with all replicates are {number:,} cells, each of which has tasks, and more than "
            f"{MAX_CELLS:,}; give fewer of both",
        )
        return
    if suite.looks > suite.replicates:
        yield Fault(
            ("looks",),
            f"{suite.looks} looks are more than the {suite.replicates} replicates; each look needs new ones",
        )
    for name, pair in suite.pairs.items():
        yield from under(_pair_faults(pair), "pairs", name)


def experiment_faults(suite: Suite) -> Iterator[Fault]:
    """Faults of the experiments of each pair, with each of their arms."""
    cells: dict[str, list[Cell]] = {name: [] for name in suite.pairs}
    for cell in suite.cells():
        if cell.replicate == suite.first_replicate:
            cells[cell.pair].append(cell)
    for name, pair in suite.pairs.items():
        for label, experiment in pair.experiments.items():
            path = ("pairs", name, "experiments", label)
            faults = list(_experiment_faults(pair, experiment, cells[name]))
            yield from under(faults or _measures_nothing(experiment, cells[name]), *path)


def _pair_faults(pair: Pair) -> Iterator[Fault]:
    yield from (faults := list(under(pair.model.faults(pair.data.info), "model")))
    if faults:
        return
    yield from under(_pruning_faults(pair), "pruning")
    for name, arm in pair.arms.items():
        for key, recipe in (("recipe", arm.recipe), ("search", arm.search)):
            yield from under(recipe.faults(pair.data), "arms", name, key)
            if alone := one_value_normalised(pair.model, pair.data, recipe, num_train_images(pair.data)):
                yield Fault(("arms", name, key, "batch_size"), alone)


def one_value_normalised(model: ModelSpec, data: DataSpec, recipe: Recipe, num_images: int) -> str | None:
    """The fault if batch normalisation would see a single value per channel in training; None if it never does.

    torch refuses that, at the end of the first epoch if the last batch has one image.
    """
    if model.norm_pixels(data.info) != 1 or recipe.fewest_at_once(num_images) > 1:
        return None
    return (
        f"{num_images:,} images in batches of {recipe.batch_size} leave one image alone, of which {model.name} has one "
        "value per channel in its last batch normalisation; give drop_last: true, or another batch_size or num_train"
    )


def _pruning_faults(pair: Pair) -> Iterator[Fault]:
    """Entries of `exclude` and `rates` that match no layer of the model, and an `exclude` that leaves none."""
    try:
        layers = pair.model.layers(pair.data.info)
    except ValueError:  # of a plugin's model, which has told its fault itself
        return
    for key, entries in (("exclude", pair.pruning.exclude), ("rates", pair.pruning.rates)):
        for entry in entries:
            if not layers_of(entry, layers):
                known = ["head", "stem", *layers]
                yield Fault((key, entry), unknown(f"layer of {pair.model.name}", entry, known))
    if {name for entry in pair.pruning.exclude for name in layers_of(entry, layers)} == set(layers):
        yield Fault(("exclude",), "leaves no layer to prune")


def _experiment_faults(pair: Pair, experiment: Experiment, cells: list[Cell]) -> Iterator[Fault]:
    for position, arm in enumerate(experiment.arms or ()):
        if arm not in pair.arms:
            yield Fault(("arms", position), unknown("arm", arm, pair.arms))
    for cell in _cells_of(experiment, cells):
        yield from experiment.faults(cell)
    yield from _level_faults(pair, experiment)


def _cells_of(experiment: Experiment, cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if experiment.arms is None or cell.arm in experiment.arms]


def _level_faults(pair: Pair, experiment: Experiment) -> Iterator[Fault]:
    """The first level at which layers that share a threshold would have no weight left."""
    levels = getattr(experiment, "levels", ())
    listed = (
        [(("levels",), levels)]
        if isinstance(levels, int)
        else [(("levels", position), level) for position, level in enumerate(levels)]
    )
    rates = (pair.pruning.rate, *pair.pruning.rates.values())
    least = 1 if pair.model.is_measured else pair.model.width or pair.model.info.width
    for path, level in listed:
        # No layer of ours has fewer weights than its model is wide: where so many survive, nobody need ask the model.
        if all(num_survivors(least, rate, level) for rate in rates):
            continue
        from lthbench.suite.cost import model_cost

        for names, survivors in model_cost(pair.model, pair.data).survivors(pair.pruning, level):
            if not survivors:
                layers = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
                yield Fault(path, f"no weight of {layers} is left at level {level}; prune less, or fewer times")
                return


def _measures_nothing(experiment: Experiment, cells: list[Cell]) -> Iterator[Fault]:
    """Whether no arm gives a measurement; also why the first one is impossible."""
    try:
        if all(next(experiment.measurements(cell), None) is None for cell in _cells_of(experiment, cells)):
            yield Fault((), "measures nothing of any arm; leave it out")
    except ValueError as error:
        yield Fault((), str(error))
