"""What a suite says of a model, and what is known of each model without building it (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lthbench import registry
from lthbench.data.spec import DataInfo
from lthbench.fault import Fault

if TYPE_CHECKING:
    import numpy as np

    from lthbench.models.own import ModelFacts

Init = Literal["kaiming_normal", "kaiming_uniform", "glorot_normal", "glorot_uniform", "trunc_normal"]

# Images of up to so many pixels a side keep their resolution in the stem of ResNet-18 and -50.
SMALL_SIDE = 64


@dataclass(frozen=True)
class ModelInfo:
    """The static facts of one model.

    Attributes:
        family: the file of lthbench/models/ that builds it.
        depth: weighted layers, mostly the number in its name; for transformers the blocks.
        width: its standard width, the value of `ModelSpec.width` when that is None.
        init: the distribution of its weights in the literature.
        source: where the architecture and the initialisation come from.
        any_width: whether `ModelSpec.width` may differ from `width`.
        has_drop_path: whether `ModelSpec.drop_path` may be above 0.
        factory, prunable, head, initial: of a plugin's model, as `register_model` says.
    """

    family: str
    depth: int
    width: int
    init: Init
    source: str
    any_width: bool = True
    has_drop_path: bool = False
    factory: Callable[[tuple[int, int, int], int, int], Any] | None = None
    prunable: tuple[str, ...] = ()
    head: str | None = None
    initial: Callable[[str, tuple[int, ...], np.random.Generator], np.ndarray | None] | None = None

    @property
    def halvings(self) -> int:
        """How often pooling halves the sides of its images."""
        return {"conv": self.depth // 2, "vgg": 4}.get(self.family, 0)

    @property
    def has_batchnorm(self) -> bool:
        """Whether it normalises by the statistics of batches."""
        return self.family in ("resnet", "resnet_imagenet", "vgg")


_LENET = "LeCun et al. 1998; Frankle & Carbin 2019 (1803.03635); initialised as in open_lth"
_CONV = "Frankle & Carbin 2019 (1803.03635), figure 2, Glorot normal"
_RESNET = "He et al. 2016 (1512.03385), section 4.2; projection shortcuts and initialisation as in open_lth"
_VGG = "Simonyan & Zisserman 2015 with batch normalisation, one linear layer, as in open_lth; Kaiming normal"
_IMAGENET = "He et al. 2016 (1512.03385), torchvision's; 3x3 stem up to 64 pixels as in weiaicunzai/pytorch-cifar100"
_SWIN64 = "Swin (2103.14030) for 64 pixels: Lee et al. 2021 (2112.13492) and their code, SPT_LSA_ViT"
_SWIN = "Swin-T (2103.14030), torchvision's"

MODELS: dict[str, ModelInfo] = {
    "lenet-300-100": ModelInfo("lenet", 3, 100, "kaiming_normal", _LENET),
    "conv-2": ModelInfo("conv", 2, 64, "glorot_normal", _CONV),
    "conv-4": ModelInfo("conv", 4, 64, "glorot_normal", _CONV),
    "conv-6": ModelInfo("conv", 6, 64, "glorot_normal", _CONV),
    "resnet8": ModelInfo("resnet", 8, 16, "kaiming_normal", _RESNET),
    "resnet20": ModelInfo("resnet", 20, 16, "kaiming_normal", _RESNET),
    "resnet56": ModelInfo("resnet", 56, 16, "kaiming_normal", _RESNET),
    "vgg11": ModelInfo("vgg", 11, 64, "kaiming_normal", _VGG),
    "vgg16": ModelInfo("vgg", 16, 64, "kaiming_normal", _VGG),
    "vgg19": ModelInfo("vgg", 19, 64, "kaiming_normal", _VGG),
    "resnet18": ModelInfo("resnet_imagenet", 18, 64, "kaiming_normal", _IMAGENET, any_width=False),
    "resnet50": ModelInfo("resnet_imagenet", 50, 64, "kaiming_normal", _IMAGENET, any_width=False),
    "swin-small64": ModelInfo("swin", 12, 96, "trunc_normal", _SWIN64, has_drop_path=True),
    "swin-t": ModelInfo("swin", 12, 96, "trunc_normal", _SWIN, has_drop_path=True),
}


Factory = TypeVar("Factory", bound=Callable[..., Any])


def register_model(
    name: str,
    *,
    width: int,
    init: Init = "kaiming_normal",
    prunable: tuple[str, ...] = (),
    head: str | None = None,
    initial: Callable[[str, tuple[int, ...], np.random.Generator], np.ndarray | None] | None = None,
    source: str = "",
) -> Callable[[Factory], Factory]:
    """Add a model, which a suite names by `model: {name: NAME}`.

    The class or function is called with the shape (C, H, W) of an image, the number of classes and the width, and gives
    an nn.Module from images [B, C, H, W] to logits [B, classes]. Its weights are then drawn as those of all models are,
    each from a stream of its own: what it draws itself is not used. Images may lie channels last in memory, so that
    they are flattened by `flatten` or `reshape`, not by `view`. In training it may draw from torch's generator, as
    nn.Dropout does, which every step seeds anew.

    Args:
        width: what it is called with unless a suite gives another.
        init: distribution of the weights of convolutions and linear layers; normalisation begins with scale 1, biases
            with 0.
        prunable: patterns of the parameters that pruning may touch; the default is every weight of a convolution or
            linear layer.
        head: the module that gives the logits, whose weight is among these; the default is the last of them.
        initial: name, shape and generator -> values of a parameter for which there is no such rule (None where there
            is).
        source: where the architecture comes from.

    Raises:
        PluginError: the name is taken, or no plugin is being loaded.
    """

    def register(factory: Factory) -> Factory:
        info = ModelInfo(
            "own", 0, width, init, source, factory=factory, prunable=tuple(prunable), head=head, initial=initial
        )
        registry.add("model", MODELS, name, info)
        return factory

    return register


class ModelSpec(BaseModel):
    """A model by name, with the choices that a recipe may make.

    Attributes:
        name: a key of MODELS.
        width: channels of the first stage (LeNet: units of the second hidden layer, the first has three times
            as many); None is the model's own.
        init: distribution of convolution and linear weights; None is the literature's for the model.
        batchnorm_weight: initial scale of batch normalisation, 1 or U(0, 1) as in open_lth.
        drop_path: stochastic depth of transformers: the last block's probability of being skipped in training,
            from which the others' fall linearly to 0 (Huang et al. 2016).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    width: int | None = Field(default=None, ge=1, le=100_000)
    init: Init | None = None
    batchnorm_weight: Literal["ones", "uniform"] = "ones"
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODELS:
            raise ValueError(registry.unknown_name("model", name, MODELS))
        return name

    @model_validator(mode="after")
    def _offered(self) -> ModelSpec:
        if self.width not in (None, self.info.width) and not self.info.any_width:
            raise ValueError(f"the width of {self.name} is {self.info.width} and cannot be {self.width}; leave it out")
        if self.info.family == "swin" and (self.width or 0) % 3:
            raise ValueError(f"the 3 heads of the first stage of {self.name} must divide its width of {self.width}")
        if self.drop_path and not self.info.has_drop_path:
            offered = ", ".join(name for name, info in MODELS.items() if info.has_drop_path)
            raise ValueError(f"{self.name} has no drop_path (only {offered}); leave it out")
        return self

    def values_of_one_image(self, image_shape: tuple[int, int, int]) -> int | None:
        """The number of values per channel that an image of shape (C, H, W) has in the batch normalisation with the
        fewest.

        None without batch normalisation. One value alone has no variance, and torch refuses it in training.
        """
        sides = image_shape[1:]
        match self.info.family:
            case "vgg":
                return math.prod(side // 16 for side in sides)
            case "resnet":
                return math.prod(-(-side // 4) for side in sides)
            case "resnet_imagenet":
                return math.prod(-(-side // (8 if max(sides) <= SMALL_SIDE else 32)) for side in sides)
            case "own":
                return self.own_facts(image_shape).values_of_one_image
        return None

    @property
    def is_own(self) -> bool:
        """Whether a plugin makes it."""
        return self.info.factory is not None

    def own_facts(self, image_shape: tuple[int, int, int], num_classes: int = 10) -> ModelFacts:
        """What is known of a plugin's model; raises ValueError where it is none that can be used."""
        from lthbench.models.own import model_facts

        return model_facts(self, image_shape, num_classes)

    def has_batchnorm(self, images: DataInfo) -> bool:
        """Whether it normalises by the statistics of batches."""
        if self.is_own:
            return self.own_facts(images.image_shape, images.num_classes).values_of_one_image is not None
        return self.info.has_batchnorm

    @property
    def info(self) -> ModelInfo:
        """The static facts of this model."""
        return MODELS[self.name]

    def faults(self, images: DataInfo) -> Iterator[Fault]:
        """Why it cannot be built for the images of a data set."""
        if self.is_own:
            try:
                self.own_facts(images.image_shape, images.num_classes)
            except ValueError as error:
                yield Fault(("name",), str(error))
            return
        least = 2**self.info.halvings
        if min(images.image_shape[1:]) < least:
            height, width = images.image_shape[1:]
            yield Fault(
                ("name",),
                f"{self.name} halves its input {self.info.halvings} times and needs images of at least {least} "
                f"pixels, but they are {height} x {width}",
            )
