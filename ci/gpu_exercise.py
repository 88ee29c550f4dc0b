"""One small run of every CUDA kernel, for compute-sanitizer."""

from __future__ import annotations

import torch
from torch import nn

from lthbench.ops import MaskedAdamW, MaskedSGD, prune_lowest
from lthbench.ops._library import kernels_available
from lthbench.ops.interpolation import count_errors, lerp_relu, lerp_stacked

assert kernels_available("cuda")

device = torch.device("cuda")
torch.manual_seed(0)
shapes = [(64, 32, 3, 3), (33,), (10, 301), (1,), (5000,)]  # more weights than a sample has places
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    scores = [torch.randn(s).round(decimals=1).to(device, dtype) for s in shapes]
    masks = [torch.ones(s, dtype=torch.bool, device=device) for s in shapes]
    for groups, num_pruned in ((None, 5000), (range(len(shapes)), [9, 3, 500, 0, 4000])):
        for magnitude in (True, False):
            pruned = prune_lowest(scores, masks, num_pruned, groups=groups, magnitude=magnitude)
for make in (
    lambda p, m, a: MaskedSGD(p, 0.1, momentum=0.9, nesterov=True, masks=m, anchors=a, pull=0.01),
    lambda p, m, a: MaskedAdamW(p, 0.1, masks=m, anchors=a, pull=0.01),
    lambda p, m, a: MaskedAdamW(p, torch.tensor(0.1, device=device), capturable=True, masks=m),
):
    params = [nn.Parameter(torch.randn(s, device=device)) for s in shapes]
    optimizer = make(params, dict(zip(params, pruned.masks, strict=True)), {p: p.detach().clone() for p in params[:3]})
    for _ in range(2):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
    optimizer.squared_distance()
alphas = torch.tensor([0.0, 0.3, 1.0], device=device)
ends = [[torch.randn(s, device=device) for s in shapes] for _ in range(2)]
lerp_stacked(*ends, alphas)
lerp_relu(ends[0][2], ends[1][2], alphas)
for num_classes in (10, 1000):
    labels = torch.randint(num_classes, (67,), device=device)
    count_errors(torch.randn(3, 67, num_classes, device=device), labels)
torch.cuda.synchronize()
print("done")
