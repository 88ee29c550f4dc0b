"""What is known of a model without static facts, such as a plugin's: its module is built and run, once for every width
and shape of images."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lthbench import registry
from lthbench.models.build import Shape, build, initialise, prunable
from lthbench.models.spec import ModelSpec

_BatchNorm = nn.modules.batchnorm._BatchNorm
_IMAGES = 2


class ModelFacts(NamedTuple):
    """What its networks are.

    Attributes:
        layers: names of the prunable weights, the output layer's last.
        norm_pixels: the fewest values per channel that an image has at a batch normalisation; None without any.
        place: where the module can be run without weights: "meta", or "cpu" where its code needs numbers.
    """

    layers: list[str]
    norm_pixels: int | None
    place: str


@cache
def model_facts(spec: ModelSpec, image_shape: Shape, num_classes: int) -> ModelFacts:
    """Make a plugin's model, run it on two images, and look.

    Raises:
        ValueError: it cannot be made, trained, pruned or evaluated as all models are; the message names the plugin, the
            model and what to change.
    """
    try:
        return _look(spec, image_shape, num_classes, "meta")
    except _Unfit as unfit:
        raise ValueError(f"{registry.told('model', spec.name)} {unfit}") from unfit
    except Exception:
        try:  # its code may need numbers
            return _look(spec, image_shape, num_classes, "cpu")
        except _Unfit as unfit:
            raise ValueError(f"{registry.told('model', spec.name)} {unfit}") from unfit
        except Exception as error:
            text = (str(error).strip() or "no message").splitlines()[0]
            raise ValueError(
                f"{registry.told('model', spec.name)} fails on {_IMAGES} images of {image_shape} (channels last in "
                f"memory), {num_classes} classes, width {spec.width or spec.info.width}: {type(error).__name__}: {text}"
            ) from error


class _Unfit(Exception):
    """What a model must be and is not."""


def _look(spec: ModelSpec, image_shape: Shape, num_classes: int, place: str) -> ModelFacts:
    with torch.device(place):
        model = build(spec, image_shape, num_classes)
        if not isinstance(model, nn.Module):
            raise _Unfit(f"is a {type(model).__name__}; its factory must return an nn.Module")
        images = torch.zeros(_IMAGES, *image_shape)
    if image_shape[0] > 1:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    layers = prunable(model, spec)
    _check_layers(spec, model, layers, num_classes)
    try:
        initialise(model, spec, lambda name: np.random.default_rng(0))
    except TypeError as error:
        raise _Unfit(f"has a weight of its own kind: {error}") from error
    values: list[int] = []
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        if not norm.track_running_stats:
            raise _Unfit("has a batch normalisation without running statistics; give it track_running_stats=True")
        norm.register_forward_pre_hook(
            lambda module, inputs: values.append(inputs[0].numel() // (inputs[0].shape[0] * inputs[0].shape[1]))
        )
    logits = [model.eval()(images) for _ in range(2)]
    expected = (_IMAGES, num_classes)
    for each in logits:
        if not isinstance(each, Tensor) or each.shape != expected:
            found = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise _Unfit(
                f"makes {found} of {_IMAGES} images, expected logits {expected}; its factory is given the number of "
                "classes"
            )
    if place == "cpu" and not torch.equal(*logits):
        raise _Unfit("gives other logits for the same images in evaluation mode; let it draw in training alone")
    return ModelFacts(layers, min(values, default=None), place)


def _check_layers(spec: ModelSpec, model: nn.Module, layers: list[str], num_classes: int) -> None:
    if not layers:
        raise _Unfit(
            "has no weight that can be pruned; name some by prunable=, as patterns of parameter names"
            if spec.info.prunable
            else "has no weight of a convolution or linear layer; name what is to be pruned by prunable="
        )
    output = layers[-1].removesuffix(".weight")
    modules = dict(model.named_modules())
    if output == layers[-1] or output not in modules:
        raise _Unfit(f"ends in {layers[-1]}, which is no layer's weight; name the output layer by head=")
    if spec.info.head is not None and output != spec.info.head:
        raise _Unfit(f"has no weight {spec.info.head}.weight that can be pruned; head= names the module of its logits")
    outputs = getattr(modules[output], "out_features", getattr(modules[output], "out_channels", num_classes))
    if outputs != num_classes:
        raise _Unfit(
            f"ends in {output} with {outputs} outputs for {num_classes} classes; name the output layer by head="
        )
