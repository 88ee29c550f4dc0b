"""From a ModelSpec to a module, and from random streams to its initial weights."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lthbench.models.spec import Init, ModelInfo, ModelSpec

Shape = tuple[int, int, int]
_BatchNorm = nn.modules.batchnorm._BatchNorm
_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def build(spec: ModelSpec, image_shape: Shape, num_classes: int) -> nn.Module:
    """Make the module with undefined weights on the default device (`with torch.device("meta")` works).

    Args:
        spec: the model.
        image_shape: (C, H, W) of one image.
        num_classes: length of a logits row.

    Raises:
        ValueError: the model cannot be built for images of this shape; the message names both.
    """
    info = spec.info
    _check_shape(spec, image_shape)
    options = {**info.options, **({"drop_path": spec.drop_path} if info.has_drop_path else {})}
    with _SkipInit():
        network: nn.Module = _factory(info)(image_shape, num_classes, spec.width or info.width, **options)
    return network


def _factory(info: ModelInfo) -> Callable[..., Any]:
    """What makes a model; its file is imported here, since importing torchvision takes longer than a small step."""
    if not isinstance(info.factory, str):
        return info.factory
    file, _, name = info.factory.partition(":")
    factory: Callable[..., Any] = getattr(importlib.import_module(f"lthbench.models.{file}"), name)
    return factory


@torch.no_grad()
def initialise(model: nn.Module, spec: ModelSpec, rng_for: Callable[[str], np.random.Generator]) -> None:
    """Give every parameter its initial value and reset every running statistic, in place.

    A weight is drawn on the host from `rng_for(its name)` in float64 and rounded, so its value depends on its
    name, its shape and that generator alone: not on other layers, the device or the thread count.
    Biases and the shift of normalisation are 0, its scale is 1 (of batches: `spec.batchnorm_weight`).

    Raises:
        TypeError: a module holds parameters that no rule here covers.
    """
    init = spec.init or spec.info.init
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            kind = name.rpartition(".")[2]
            own = spec.info.initial(name, tuple(parameter.shape), rng_for(name)) if spec.info.initial else None
            if own is not None:
                _assign(parameter, np.broadcast_to(own, parameter.shape))
            elif isinstance(module, (*_Conv, nn.Linear)) and kind == "weight":
                _assign(parameter, _draw(init, parameter.shape, rng_for(name)))
            elif isinstance(module, _BatchNorm) and kind == "weight" and spec.batchnorm_weight == "uniform":
                _assign(parameter, rng_for(name).random(parameter.shape))
            elif isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)) and kind == "weight":
                parameter.fill_(1.0)
            elif kind == "bias":
                parameter.zero_()
            elif kind == "relative_position_bias_table":
                _assign(parameter, _draw("trunc_normal", parameter.shape, rng_for(name)))
            else:
                raise TypeError(
                    f"no rule initialises {name} of a {type(module).__name__}; give one by initial= where the model is "
                    "registered"
                )
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()


def prunable(model: nn.Module, spec: ModelSpec | None = None) -> list[str]:
    """Return the names of the weights that pruning may touch, in parameter order, the output layer's last.

    They are the weights of convolutions and linear layers; never biases, normalisation or positional tables
    (Frankle et al. 2020; open_lth).

    Args:
        spec: of the model, where it may be a plugin's, which may say other ones.
    """
    weights = {
        f"{prefix}.weight" for prefix, module in model.named_modules() if isinstance(module, (*_Conv, nn.Linear))
    }
    names = [name for name, _ in model.named_parameters()]
    if spec is not None and spec.info.prunable:
        names = [name for name in names if any(fnmatchcase(name, pattern) for pattern in spec.info.prunable)]
    else:
        names = [name for name in names if name in weights]
    output = f"{spec.info.head}.weight" if spec is not None and spec.info.head else ""
    return sorted(names, key=lambda name: name == output)


def stem(model: nn.Module, spec: ModelSpec | None = None) -> str:
    """Return the name of the first layer's weight."""
    return prunable(model, spec)[0]


def head(model: nn.Module, spec: ModelSpec | None = None) -> str:
    """Return the name of the output layer, the prefix of its weight and bias."""
    return prunable(model, spec)[-1].removesuffix(".weight")


def _check_shape(spec: ModelSpec, image_shape: Shape) -> None:
    """Refuse images that are too small for the pooling of a model."""
    halvings = spec.info.halvings
    if min(image_shape[1:]) < 2**halvings:
        raise ValueError(
            f"{spec.name} halves its input {halvings} times and needs images of at least {2**halvings} pixels, "
            f"but image_shape is {image_shape}"
        )


def _assign(parameter: Tensor, value: np.ndarray) -> None:
    """Copy float64 draws into a parameter, rounded once."""
    parameter.copy_(torch.from_numpy(value.astype(np.float32)))


def _draw(init: Init, shape: torch.Size, rng: np.random.Generator) -> np.ndarray:
    """Draw a weight of shape [out, in, ...].

    Source: He et al. 2015 (kaiming, fan-in), Glorot & Bengio 2010 (glorot), Liu et al. 2021 (trunc_normal).
    """
    receptive = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * receptive, shape[0] * receptive
    if init == "trunc_normal":
        if len(shape) == 4:
            # Swin leaves its only convolution, the patch embedding, at PyTorch's default.
            return rng.uniform(-1, 1, shape) / math.sqrt(fan_in)
        # Swin's code truncates at +-2, a hundred standard deviations: a plain normal distribution.
        return rng.standard_normal(shape) * 0.02
    scheme, distribution = init.split("_")
    variance = 2.0 / fan_in if scheme == "kaiming" else 2.0 / (fan_in + fan_out)
    if distribution == "normal":
        return rng.standard_normal(shape) * math.sqrt(variance)
    bound = math.sqrt(3.0 * variance)
    return rng.uniform(-bound, bound, shape)


class _SkipInit(TorchFunctionMode):
    """Leave out the random draws that torch's layers make when constructed; `initialise` makes its own."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func in (Tensor.uniform_, Tensor.normal_):
            # Zeros, not whatever memory holds: truncated draws are repeated until they lie within their bounds.
            return args[0].zero_()
        return func(*args, **kwargs)
