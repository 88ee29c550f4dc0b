"""What a suite says of a model, and what is known of each model without building it (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lthbench.names import unknown

Init = Literal["kaiming_normal", "kaiming_uniform", "glorot_normal", "glorot_uniform"]
INITS: tuple[str, ...] = get_args(Init)


@dataclass(frozen=True)
class ModelInfo:
    """The static facts of one model.

    Attributes:
        family: the file of lthbench/models/ that builds it.
        depth: the number in its name: weighted layers.
        width: its standard width, the value of `ModelSpec.width` when that is None.
        init: the distribution of its weights in the literature.
        source: where the architecture and the initialisation come from.
    """

    family: str
    depth: int
    width: int
    init: Init
    source: str


_LENET = "LeCun et al. 1998; Frankle & Carbin 2019 (1803.03635); initialised as in open_lth"
_CONV = "Frankle & Carbin 2019 (1803.03635), figure 2, Glorot normal"
_RESNET = "He et al. 2016 (1512.03385), section 4.2; projection shortcuts and initialisation as in open_lth"

MODELS: dict[str, ModelInfo] = {
    "lenet-300-100": ModelInfo("lenet", 3, 100, "kaiming_normal", _LENET),
    "conv-2": ModelInfo("conv", 2, 64, "glorot_normal", _CONV),
    "conv-4": ModelInfo("conv", 4, 64, "glorot_normal", _CONV),
    "conv-6": ModelInfo("conv", 6, 64, "glorot_normal", _CONV),
    "resnet8": ModelInfo("resnet", 8, 16, "kaiming_normal", _RESNET),
    "resnet20": ModelInfo("resnet", 20, 16, "kaiming_normal", _RESNET),
    "resnet56": ModelInfo("resnet", 56, 16, "kaiming_normal", _RESNET),
}


class ModelSpec(BaseModel):
    """A model by name, with the choices that a recipe may make.

    Attributes:
        name: a key of MODELS.
        width: channels of the first stage (LeNet: units of the second hidden layer, the first has three times
            as many); None is the model's own.
        init: distribution of convolution and linear weights; None is the literature's for the model.
        batchnorm_weight: initial scale of batch normalisation, 1 or U(0, 1) as in open_lth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    width: int | None = Field(default=None, ge=1)
    init: Init | None = None
    batchnorm_weight: Literal["ones", "uniform"] = "ones"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODELS:
            raise ValueError(unknown("model", name, MODELS))
        return name

    @property
    def info(self) -> ModelInfo:
        """The static facts of this model."""
        return MODELS[self.name]
