"""A small version of a suite: the same models, recipes, augmentation and pruning, in seconds and without any download.

Every pair trains a few steps on a few of the embedded images, brought to the shape of its own data set. The results say
nothing about tickets; they change when a model, a recipe, the data path or a kernel does.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lthbench.data.spec import DataSpec, num_train_images
from lthbench.suite.schema import Pair
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps

EMBEDDED = "fashion-mnist-10k"

Count = Annotated[int, Field(ge=1)]


class Micro(BaseModel):
    """The size to which each pair is reduced.

    Attributes:
        steps: the iterations of every recipe; its milestones and warm-up shrink in proportion.
        batch_size: the largest batch; a smaller one stays.
        num_train, num_test, validation: images, as in `DataSpec`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Count
    batch_size: Count
    num_train: Count
    num_test: Count
    validation: Annotated[int, Field(ge=0)] = 0


def shrink_pair(pair: Pair, micro: Micro) -> Pair:
    """A pair with small data, lengths and batches; its experiments stay."""
    own = pair.data.name == EMBEDDED
    data = DataSpec(
        name=EMBEDDED,
        like=None if own else pair.data.name,
        image_size=pair.data.image_size,
        classes=pair.data.classes if own else None,
        num_train=micro.num_train,
        num_test=micro.num_test,
        validation=micro.validation,
    )

    def shrink(recipe: Recipe) -> Recipe:
        an_epoch = recipe.steps_per_epoch(num_train_images(pair.data))
        small = recipe.scaled(micro.steps / recipe.steps.count(an_epoch), an_epoch)
        return small.model_copy(
            update={"steps": Steps(0, micro.steps), "batch_size": min(recipe.batch_size, micro.batch_size)}
        )

    arms = {
        name: arm.model_copy(update={"recipe": shrink(arm.recipe), "search": shrink(arm.search)})
        for name, arm in pair.arms.items()
    }
    return pair.model_copy(update={"data": data, "arms": arms})
