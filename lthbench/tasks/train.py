"""The task type `train`: from weights, a mask, data and a recipe to weights, kept steps and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from lthbench.data.few_shot import few_shot
from lthbench.data.images import ImageSet
from lthbench.data.loading import Splits, load
from lthbench.engine.blocked_evaluation import blocked_evaluation
from lthbench.ops.sums import sum_in_order
from lthbench.tasks.checkpoint import CheckpointNote
from lthbench.tasks.context import Context, Interrupted
from lthbench.tasks.network import weights_of
from lthbench.tasks.paths import CHECKPOINT, weights_file
from lthbench.tasks.result import Artefact
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.start import Start, anchors_of, start_of
from lthbench.tasks.tensor_files import digest, read_checkpoint
from lthbench.training.forgetting import Tracker
from lthbench.training.learning_distance import learning_distance, top_overlap
from lthbench.training.loop import Progress, Trainer, evaluate
from lthbench.training.probe import fit_probe, set_normalisation, train_only_head_and_normalisation
from lthbench.training.streams import stream


def train(spec: TrainSpec, context: Context) -> dict[str, Any]:
    """Run one training and return its result; weights and kept steps are written into the task's folder.

    Returns:
        status: `ok`, or `diverged` with the reason;
        metrics: losses and accuracies (fractions) on train, validation and test; learning distances from the start
        (and, where that is not the initialisation, `_from_init`); path_length; overlap (mean of layers); density;
        empty_layers (prunable ones without a survivor);
        epoch_losses, epoch_distances: after each epoch; layer_density; layer_distance (relative); layer_overlap; kept;
        steps; digests; of a tracked training, validation_curve ([iteration, accuracy]), and forgetting in metrics.
        Undefined numbers, such as the distance of a layer without survivors, are absent and in no mean. A probe changes
        no feature and has no distances; its density and empty layers are those of the features, without the output
        layer.

    The test split is looked at once, at the end (before training only for a probe's untrained accuracy, which is that
    of the ticket's own output layer under its mask).
    """
    splits = load(spec.data, context.data, context.device)
    images = train_images(spec, splits)
    start = start_of(spec, context)
    model, begun = start.model, weights_of(start.model)
    metrics: dict[str, float] = {}
    artefacts: dict[str, Artefact] = {}
    progress, tracker = Progress(step=spec.begin), tracker_of(spec, splits, images, context.sign)
    if spec.probe is not None:
        if spec.probe != "affine":
            set_normalisation(model, images, spec.probe)
        metrics["untrained_test_accuracy"] = evaluate(model, splits.test, context.sign)[1]
        start = start.for_probe()
    if spec.probe is None or spec.probe == "affine":
        if spec.probe == "affine":
            train_only_head_and_normalisation(model, start.layout.head)
        progress, artefacts = _fit(spec, context, start, images, tracker)
    else:
        metrics |= fit_probe(model, start.layout.head, images, splits.validation, context.sign)

    end = weights_of(model)
    artefacts |= context.write(weights_file(None), end, vars(start.layout))
    moved = Moved({}, {}, {})
    if progress.diverged_at is None:
        judged = blocked_evaluation(model, start.mask) if spec.recipe.engine == "blocked" else model
        for name, split in (("train", images), ("validation", splits.validation), ("test", splits.test)):
            if len(split):
                metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = evaluate(judged, split, context.sign)
        if spec.probe is None:
            moved = moved_weights(start, begun, end, from_init=spec.start is not None)
            metrics |= moved.metrics
            if progress.epoch_distances and "distance" in metrics:
                metrics["path_length"] = progress.path_length
        metrics |= tracker.metrics() if tracker else {}
    sizes = {n: begun[n].numel() for n in start.layout.prunable}
    survivors = {n: int(start.mask[n].sum()) if n in start.mask else size for n, size in sizes.items()}
    counted = [n for n in sizes if spec.probe is None or not start.layout.is_head(n)]
    metrics["density"] = sum(survivors[n] for n in counted) / sum(sizes[n] for n in counted)
    metrics["empty_layers"] = sum(survivors[n] == 0 for n in counted)
    diverged = progress.diverged_at is not None
    tracked = {"validation_curve": tracker.curve} if tracker else {}
    return {
        "status": "diverged" if diverged else "ok",
        "reason": f"the loss or a weight was not finite after iteration {progress.diverged_at}" if diverged else None,
        "metrics": metrics,
        "artefacts": artefacts,
        "epoch_losses": progress.epoch_losses,
        "epoch_distances": progress.epoch_distances,
        "layer_density": {n: survivors[n] / size for n, size in sizes.items()},
        "layer_distance": moved.layer_distance,
        "layer_overlap": moved.layer_overlap,
        "kept": sorted(context.keep),
        "steps": [spec.begin, progress.step],
        "digests": {"start": digest(begun), "weights": digest(end)},
        **tracked,
    }


def join_training(spec: TrainSpec, context: Context) -> None:
    """Take part, as a rank above 0, in a training that rank 0 runs by `train`; nothing is written.

    Raises:
        Refused: as `train`.
    """
    splits = load(spec.data, context.data, context.device)
    images = train_images(spec, splits)
    start = start_of(spec, context)
    if spec.probe == "affine":
        start = start.for_probe()
        train_only_head_and_normalisation(start.model, start.layout.head)
    _fit(spec, context, start, images, tracker_of(spec, splits, images, context.sign))


class Moved(NamedTuple):
    """How far training moved the surviving weights: in total, and by layer the relative distance and the overlap."""

    metrics: dict[str, float]
    layer_distance: dict[str, float]
    layer_overlap: dict[str, float]


def moved_weights(start: Start, begun: dict[str, Tensor], end: dict[str, Tensor], *, from_init: bool) -> Moved:
    """How far a network is from where it started and, if asked for, from its initialisation, as far as that is
    defined."""
    names, mask = start.layout.prunable, start.mask
    metrics = learning_distance(begun, end, mask, names)
    if from_init:
        since_init = learning_distance(start.initial, end, mask, names)
        metrics |= {f"{name}_from_init": value for name, value in since_init.items()}
    distances = {n: learning_distance(begun, end, mask, [n]) for n in names}
    overlaps = {n: top_overlap(begun[n], end[n], mask.get(n)) for n in names}
    defined = {n: overlap for n, overlap in overlaps.items() if overlap is not None}
    if defined:
        metrics["overlap"] = sum_in_order(defined.values()) / len(defined)
    relative = {n: d["distance_relative"] for n, d in distances.items() if "distance_relative" in d}
    return Moved(metrics, relative, defined)


def train_images(spec: TrainSpec, splits: Splits) -> ImageSet:
    """The images a training sees: the train split, or its few-shot subset."""
    if spec.per_class is None:
        return splits.train
    labels = splits.train.labels
    index = few_shot(labels, spec.per_class, lambda label: stream(spec.seed, "subset", spec.draw, label))
    return splits.train.subset(index)


def tracker_of(spec: TrainSpec, splits: Splits, images: ImageSet, on_batch: Callable[[], None]) -> Tracker | None:
    """The tracker that a specification asks for.

    Args:
        on_batch: called after every batch of a measurement.

    Raises:
        ValueError: there are no validation images to track the accuracy on.
    """
    if spec.track is None:
        return None
    if not len(splits.validation):
        raise ValueError(f"a tracked training needs validation images; give data {spec.data.title} some")
    return Tracker(
        spec.track, len(images), lambda model: evaluate(model, splits.validation, on_batch)[1], images.device
    )


def _fit(
    spec: TrainSpec, context: Context, start: Start, images: ImageSet, tracker: Tracker | None
) -> tuple[Progress, dict[str, Artefact]]:
    """Train from the start, or from an existing checkpoint, and keep the steps to be kept.

    Returns:
        Where it ended, and the kept steps' files.
    """
    trainer = Trainer(
        start.model,
        images,
        spec.recipe,
        num_classes=spec.data.info.num_classes,
        seed=spec.seed,
        noise=spec.noise,
        begin=spec.begin,
        stop=spec.stop,
        mask=start.mask,
        anchors=anchors_of(spec, start, context) if spec.recipe.pull else None,
        tracked=start.layout.prunable,
        tracker=tracker,
        compile=context.compile,
        graphs=context.graphs,
        may_draw=spec.model.is_measured or spec.recipe.may_draw,
        tell=context.tell,
        ranks=context.ranks,
    )
    if unknown := [step for step in context.keep if not spec.begin <= step < trainer.end]:
        raise ValueError(f"steps {unknown} cannot be kept by a training from {spec.begin} to {trainer.end}")
    kept: dict[str, Artefact] = {}
    if (context.folder / CHECKPOINT).exists():
        tensors, content = read_checkpoint(context.folder / CHECKPOINT, context.device)
        taken_up = CheckpointNote.of(content)
        kept = taken_up.kept
        trainer.restore(tensors, vars(taken_up.progress))
    context.ranks.assert_identical("the iteration to go on from", str(trainer.progress.step), context.device)
    last_checkpoint = time.monotonic()

    def keep_weights(trainer: Trainer) -> None:
        kept.update(context.write(weights_file(trainer.progress.step), weights_of(trainer.model), vars(start.layout)))

    def after_step(trainer: Trainer) -> None:
        nonlocal last_checkpoint
        now = time.monotonic()
        context.report(trainer.progress.step - spec.begin, trainer.end - spec.begin)
        asked = context.asked()
        if asked or now - last_checkpoint > context.checkpoint_every:
            last_checkpoint = now
            tensors, standing = trainer.state()
            note = CheckpointNote(
                task=context.folder.name,
                progress=Progress(**standing),
                kept=kept,
                environment=dict(context.environment),
            )
            context.write_checkpoint(tensors, note.model_dump(mode="json"))
        if asked == "stop":
            raise Interrupted(f"at step {trainer.progress.step}")

    if context.ranks.rank == 0:
        progress = trainer.run(context.keep, keep_weights, after_step)
    else:
        progress = trainer.run()
    if trainer.average:
        trainer.average.copy_to_model()
    if context.ranks.size > 1:
        context.ranks.assert_identical("the trained network", digest(weights_of(start.model)), context.device)
    return progress, kept
