"""Swin transformers (Liu et al. 2021, 2103.14030) from torchvision: Swin-T, and a small one for 64 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.swin_transformer import SwinTransformerBlock

from lthbench.models.depth import StochasticDepth


@dataclass(frozen=True)
class _Form:
    """Blocks and attention heads of each stage, pixels of a patch, patches of a window, hidden width of the MLP."""

    depths: tuple[int, ...]
    heads: tuple[int, ...]
    patch: int
    window: int
    mlp_ratio: float


_FORMS = {
    # Lee et al. 2021 (2112.13492), code SPT_LSA_ViT: three stages, so that the last has one window of 4 x 4 patches.
    "swin-small64": _Form((2, 6, 4), (3, 6, 12), patch=4, window=4, mlp_ratio=2.0),
    "swin-t": _Form((2, 2, 6, 2), (3, 6, 12, 24), patch=4, window=7, mlp_ratio=4.0),
}


class _Block(SwinTransformerBlock):
    """torchvision's block, whose two branches take their stochastic depth from draws made outside."""

    def __init__(self, *args: Any, stochastic_depth_prob: float, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.stochastic_depth
        self.depth_attn = StochasticDepth(stochastic_depth_prob)
        self.depth_mlp = StochasticDepth(stochastic_depth_prob)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.depth_attn(self.attn(self.norm1(x)))
        return x + self.depth_mlp(self.mlp(self.norm2(x)))


def swin(
    image_shape: tuple[int, int, int], num_classes: int, width: int, name: str, drop_path: float
) -> SwinTransformer:
    """Make a Swin transformer; `width` is the dimension of the patch embedding."""
    form = _FORMS[name]
    model = SwinTransformer(
        patch_size=[form.patch, form.patch],
        embed_dim=width,
        depths=list(form.depths),
        num_heads=list(form.heads),
        window_size=[form.window, form.window],
        mlp_ratio=form.mlp_ratio,
        stochastic_depth_prob=drop_path,
        num_classes=num_classes,
        block=_Block,
    )
    if image_shape[0] != 3:
        model.features[0][0] = nn.Conv2d(image_shape[0], width, form.patch, stride=form.patch)
    return model
