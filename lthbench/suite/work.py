"""`Work`: how many images a task trains on and evaluates, known before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.data.spec import num_train_images
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Task, TrainSpec


@dataclass(frozen=True)
class Work:
    """The images that a task processes, each counted as often as it is seen.

    Attributes:
        steps: updates of the weights.
        trained: images in them, each a forward and a backward pass.
        evaluated: images that one network sees forward only.
        path_images: the same for the networks of a linear path, an image once for each.
    """

    steps: int = 0
    trained: int = 0
    evaluated: int = 0
    path_images: int = 0

    @property
    def image_passes(self) -> float:
        """The work as one number: forward and backward pass of an image is 1, forward alone 1/3."""
        return self.trained + (self.evaluated + self.path_images) / 3


def work_of(task: Task) -> Work:
    """The work of a task; one that diverges does less."""
    match task.spec:
        case TrainSpec() as spec:
            return _training(spec)
        case InterpolateSpec() as spec:
            return _line(spec)
        case MaskSpec():
            return Work()


def _training(spec: TrainSpec) -> Work:
    info, validation, images = spec.data.info, spec.data.validation, spec.num_images
    evaluated = images + validation + info.num_test
    if spec.probe is not None:
        evaluated += info.num_test  # before it is fitted
        if spec.probe != "affine":  # features, and before them the statistics that are estimated
            twice = spec.probe == "estimated" and spec.model.has_batchnorm(spec.data.info)
            return Work(evaluated=evaluated + validation + images * (2 if twice else 1))
    epoch, batch = spec.recipe.steps_per_epoch(images), min(spec.recipe.batch_size, images)
    total = spec.recipe.steps.count(epoch)
    end = min(total, spec.stop or total)

    def seen(step: int) -> int:
        return step // epoch * spec.recipe.images_per_epoch(images) + min(step % epoch * batch, images)

    if spec.track is not None:
        measured = end // spec.track - spec.begin // spec.track + (end % spec.track > 0)
        evaluated += measured * validation
    return Work(steps=end - spec.begin, trained=seen(end) - seen(spec.begin), evaluated=evaluated)


def _line(spec: InterpolateSpec) -> Work:
    images = num_train_images(spec.data)
    train = min(spec.num_train or images, images)
    validation, test = spec.data.validation, spec.data.info.num_test
    # Statistics are recomputed for the evaluation of each split.
    num_splits = 3 if validation else 2
    statistics = num_splits * min(spec.statistics_images, images) if spec.statistics == "recompute" else 0
    return Work(path_images=spec.points * (train + validation + test + statistics))
