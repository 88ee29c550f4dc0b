"""The verb `train`: from weights, a mask, data and a recipe to weights, kept steps and metrics."""

from __future__ import annotations

import time
from typing import Any

from lthbench.data.load import load
from lthbench.tasks.context import Context
from lthbench.tasks.files import digest, read_tensors, write_tensors
from lthbench.tasks.layout import CHECKPOINT, weights_file
from lthbench.tasks.network import Layout, apply_mask, make_network, set_initial_weights, weights_of
from lthbench.tasks.spec import TrainSpec
from lthbench.training.distance import learning_distance
from lthbench.training.loop import Trainer, evaluate


def train(spec: TrainSpec, context: Context) -> dict[str, Any]:
    """Run one training and return its result; weights and kept steps are written into the task's folder.

    Returns:
        status: `ok`, or `diverged` with the reason;
        metrics: losses and accuracies (fractions) on train, validation and test, learning distances, density;
        epoch_losses: mean training loss of each epoch; layer_density; kept; steps; digests.

    The test split is looked at once, at the end.
    """
    splits = load(spec.data, context.data, context.device)
    model = make_network(spec.model, splits.train, spec.data.info.num_classes)
    set_initial_weights(model, spec.model, spec.seed, spec.init)
    initial = weights_of(model)
    if spec.start is not None:
        model.load_state_dict(context.network(spec.start)[0])
    mask = context.mask(spec.mask) if spec.mask else {}
    apply_mask(model, mask)
    start = weights_of(model)
    layout = Layout.of(model)
    names = layout.prunable

    trainer = Trainer(
        model,
        splits.train,
        spec.recipe,
        seed=spec.seed,
        noise=spec.noise,
        begin=spec.begin,
        mask=mask,
        anchors={name: initial[name] for name in names},
        compile=context.compile,
    )
    if unknown := [step for step in context.keep if not spec.begin <= step < trainer.total]:
        raise ValueError(f"steps {unknown} cannot be kept by a training from {spec.begin} to {trainer.total}")
    checkpoint = context.folder / CHECKPOINT
    if checkpoint.exists():
        trainer.restore(*read_tensors(checkpoint, context.device))
    last_checkpoint = last_report = time.monotonic()

    def keep_weights(trainer: Trainer) -> None:
        write_tensors(context.folder / weights_file(trainer.progress.step), weights_of(model), vars(layout))

    def after_step(trainer: Trainer) -> None:
        nonlocal last_checkpoint, last_report
        now = time.monotonic()
        if now - last_report > 0.5:
            last_report = now
            context.report(trainer.progress.step - spec.begin, trainer.total - spec.begin)
        if now - last_checkpoint > context.checkpoint_every:
            last_checkpoint = now
            write_tensors(checkpoint, *trainer.state())

    progress = trainer.run(context.keep, keep_weights, after_step)
    end = weights_of(model)
    write_tensors(context.folder / weights_file(None), end, vars(layout))
    metrics: dict[str, float] = {}
    if progress.diverged_at is None:
        for name, images in (
            ("train", splits.train),
            ("validation", splits.validation),
            ("test", splits.test),
        ):
            if len(images):
                metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = evaluate(model, images)
        metrics |= learning_distance(start, end, mask, names)
        if spec.start is not None:
            since_init = learning_distance(initial, end, mask, names)
            metrics |= {f"{name}_from_init": value for name, value in since_init.items()}
    survivors = {n: int(mask[n].sum()) if n in mask else start[n].numel() for n in names}
    metrics["density"] = sum(survivors.values()) / sum(start[n].numel() for n in names)
    result = {
        "status": "ok" if progress.diverged_at is None else "diverged",
        "reason": None,
        "metrics": metrics,
        "epoch_losses": progress.epoch_losses,
        "layer_density": {n: survivors[n] / start[n].numel() for n in names},
        "kept": sorted(context.keep),
        "steps": [spec.begin, progress.step],
        "digests": {"start": digest(start), "weights": digest(end)},
    }
    if progress.diverged_at is not None:
        result["reason"] = f"the loss or a weight was not finite after iteration {progress.diverged_at}"
    checkpoint.unlink(missing_ok=True)
    return result
