"""What a suite says of a model, and what is known of each model without building it (no torch here)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lthbench import registry
from lthbench.data.spec import DataInfo
from lthbench.fault import Fault
from lthbench.models import layers

if TYPE_CHECKING:
    import numpy as np

    from lthbench.models.measured import ModelFacts

Init = Literal["kaiming_normal", "kaiming_uniform", "glorot_normal", "glorot_uniform", "trunc_normal"]

# Images of up to so many pixels a side keep their resolution in the stem of ResNet-18 and -50.
SMALL_SIDE = 64


@dataclass(frozen=True)
class ModelInfo:
    """The static facts of one model, and how its module is made.

    Attributes:
        factory: called with the shape (C, H, W) of an image, the number of classes, the width and `options`; for the
            models that ship with the package `FILE:NAME`, a file of lthbench/models/ that is imported when the module
            is made.
        width: its standard width, the value of `ModelSpec.width` when that is None.
        init: the distribution of its weights in the literature.
        source: where the architecture and the initialisation come from.
        options: further arguments of the factory.
        any_width: whether `ModelSpec.width` may differ from `width`.
        width_multiple: the attention heads of the first stage, which must divide the width.
        has_drop_path: whether `ModelSpec.drop_path` may be above 0; the factory then takes it.
        layers: the layers whose weights pruning may touch, in parameter order, the output layer last. Where they are
            None, the module is made and run once to find them, and the next two as well.
        halvings: how often pooling halves the sides of its images.
        norm_pixels: height and width of an image -> pixels of the smallest plane that a batch normalisation sees; None
            without batch normalisation.
        prunable, head, initial: as in `register_model`.
    """

    factory: str | Callable[..., Any]
    width: int
    init: Init
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    any_width: bool = True
    width_multiple: int = 1
    has_drop_path: bool = False
    layers: tuple[str, ...] | None = None
    halvings: int = 0
    norm_pixels: Callable[[int, int], int] | None = None
    prunable: tuple[str, ...] = ()
    head: str | None = None
    initial: Callable[[str, tuple[int, ...], np.random.Generator], np.ndarray | None] | None = None

    @property
    def family(self) -> str:
        """The file of lthbench/models/ that makes it; empty for a plugin's."""
        return self.factory.partition(":")[0] if isinstance(self.factory, str) else ""


_LENET = "LeCun et al. 1998; Frankle & Carbin 2019 (1803.03635); initialised as in open_lth"
_CONV = "Frankle & Carbin 2019 (1803.03635), figure 2, Glorot normal"
_RESNET = "He et al. 2016 (1512.03385), section 4.2; projection shortcuts and initialisation as in open_lth"
_VGG = "Simonyan & Zisserman 2015 with batch normalisation, one linear layer, as in open_lth; Kaiming normal"
_IMAGENET = "He et al. 2016 (1512.03385), torchvision's; 3x3 stem up to 64 pixels as in weiaicunzai/pytorch-cifar100"
_SWIN64 = "Swin (2103.14030) for 64 pixels: Lee et al. 2021 (2112.13492) and their code, SPT_LSA_ViT"
_SWIN = "Swin-T (2103.14030), torchvision's"


def _conv(depth: int) -> ModelInfo:
    return ModelInfo(
        "conv:Conv", 64, "glorot_normal", _CONV, {"depth": depth}, layers=layers.conv(depth), halvings=depth // 2
    )


def _resnet(depth: int) -> ModelInfo:
    def pixels(height: int, width: int) -> int:
        return -(-height // 4) * -(-width // 4)

    return ModelInfo(
        "resnet:ResNet", 16, "kaiming_normal", _RESNET, {"depth": depth}, layers=layers.resnet(depth),
        norm_pixels=pixels,
    )  # fmt: skip


def _vgg(depth: int) -> ModelInfo:
    def pixels(height: int, width: int) -> int:
        return height // 16 * (width // 16)

    return ModelInfo(
        "vgg:VGG", 64, "kaiming_normal", _VGG, {"depth": depth}, layers=layers.vgg(depth), halvings=4,
        norm_pixels=pixels,
    )  # fmt: skip


def _resnet_imagenet(depth: int) -> ModelInfo:
    def pixels(height: int, width: int) -> int:
        stride = 8 if max(height, width) <= SMALL_SIDE else 32
        return -(-height // stride) * -(-width // stride)

    return ModelInfo(
        "resnet_imagenet:resnet_imagenet", 64, "kaiming_normal", _IMAGENET, {"depth": depth}, any_width=False,
        layers=layers.resnet_imagenet(depth), norm_pixels=pixels,
    )  # fmt: skip


def _swin(name: str, source: str, depths: tuple[int, ...]) -> ModelInfo:
    return ModelInfo(
        "swin:swin", 96, "trunc_normal", source, {"name": name}, width_multiple=3, has_drop_path=True,
        layers=layers.swin(depths),
    )  # fmt: skip


MODELS: dict[str, ModelInfo] = {
    "lenet-300-100": ModelInfo("lenet:LeNet", 100, "kaiming_normal", _LENET, layers=layers.LENET),
    "conv-2": _conv(2),
    "conv-4": _conv(4),
    "conv-6": _conv(6),
    "resnet8": _resnet(8),
    "resnet20": _resnet(20),
    "resnet56": _resnet(56),
    "vgg11": _vgg(11),
    "vgg16": _vgg(16),
    "vgg19": _vgg(19),
    "resnet18": _resnet_imagenet(18),
    "resnet50": _resnet_imagenet(50),
    "swin-small64": _swin("swin-small64", _SWIN64, (2, 6, 4)),
    "swin-t": _swin("swin-t", _SWIN, (2, 2, 6, 2)),
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
        info = ModelInfo(factory, width, init, source, prunable=tuple(prunable), head=head, initial=initial)
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
        if (self.width or 0) % self.info.width_multiple:
            raise ValueError(
                f"the {self.info.width_multiple} heads of the first stage of {self.name} must divide its width of "
                f"{self.width}"
            )
        if self.drop_path and not self.info.has_drop_path:
            offered = ", ".join(name for name, info in MODELS.items() if info.has_drop_path)
            raise ValueError(f"{self.name} has no drop_path (only {offered}); leave it out")
        return self

    def layers(self, images: DataInfo) -> list[str]:
        """The names of the weights that pruning may touch, in parameter order, the output layer's last.

        Raises:
            ValueError: a plugin's model cannot be used on the images of the data set.
        """
        if self.info.layers is None:
            return self.measured(images).layers
        return [f"{name}.weight" for name in self.info.layers]

    def norm_pixels(self, images: DataInfo) -> int | None:
        """The number of values per channel that an image has in the batch normalisation with the fewest.

        None without batch normalisation. One value alone has no variance, and torch refuses it in training.
        """
        if self.info.layers is None:
            return self.measured(images).norm_pixels
        return self.info.norm_pixels(*images.image_shape[1:]) if self.info.norm_pixels else None

    def has_batchnorm(self, images: DataInfo) -> bool:
        """Whether it normalises by the statistics of batches."""
        return self.norm_pixels(images) is not None

    @property
    def is_measured(self) -> bool:
        """Whether what is known of it is found by making and running it, as for a plugin's model."""
        return self.info.layers is None

    def measured(self, images: DataInfo) -> ModelFacts:
        """What making the model and running it shows.

        Raises:
            ValueError: it cannot be made, trained, pruned or evaluated as all models are.
        """
        from lthbench.models.measured import model_facts

        return model_facts(self, images.image_shape, images.num_classes)

    @property
    def info(self) -> ModelInfo:
        """The static facts of this model."""
        return MODELS[self.name]

    def faults(self, images: DataInfo) -> Iterator[Fault]:
        """Why it cannot be built for the images of a data set."""
        if self.is_measured:
            try:
                self.measured(images)
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
