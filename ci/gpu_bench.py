"""The kernels on a GPU by CUDA events, as fractions of its measured copy bandwidth; writes JSON.

python ci/gpu_bench.py FILE
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lthbench.bench.optimizer_speed import ADAMW_OPTIONS, DENSITY, OPTIONS, PULL, parameter_shapes
from lthbench.bench.path_speed import linear_path_work
from lthbench.bench.timing import interleaved, matmul_probe, table
from lthbench.ops import MaskedAdamW, MaskedSGD
from lthbench.ops.masks import pack_mask
from lthbench.runner.environment import environment, make_deterministic
from lthbench.tasks.atomic import write_atomically

DEVICE = torch.device("cuda")
COPY_FLOATS = 1 << 28


def limits() -> dict[str, float]:
    """Copy bandwidth (bytes read and written per second) and float32 matrix rate (operations per second)."""
    source, target = (torch.ones(COPY_FLOATS, device=DEVICE) for _ in range(2))
    product, operations = matmul_probe(4096, device=DEVICE)
    seconds = interleaved({"copy": lambda: target.copy_(source), "matmul": product}, 15, device=DEVICE)
    return {
        "copy_bytes_per_second": 8.0 * COPY_FLOATS / seconds["copy"],
        "matmul_operations_per_second": operations / seconds["matmul"],
    }


def network(name: str) -> dict[str, object]:
    """Seconds of ours and of torch, and ours' fraction of the copy bandwidth by the bytes that must move."""
    torch.manual_seed(0)
    shapes = parameter_shapes(name)
    num_weights = sum(torch.Size(s).numel() for s in shapes)

    def parameters() -> list[nn.Parameter]:
        params = [nn.Parameter(torch.randn(s, device=DEVICE)) for s in shapes]
        for p in params:
            p.grad = torch.randn_like(p)
        return params

    plain, full, adam, stock = parameters(), parameters(), parameters(), parameters()
    masks = [torch.rand(s, device=DEVICE) < DENSITY for s in shapes]
    floats = [m.float() for m in masks]
    ours = MaskedSGD(plain, **OPTIONS, masks=dict(zip(plain, masks, strict=True)))
    anchored = MaskedSGD(
        full,
        **OPTIONS,
        masks=dict(zip(full, masks, strict=True)),
        anchors={p: p.detach().clone() for p in full},
        pull=PULL,
    )
    adamw = MaskedAdamW(adam, **ADAMW_OPTIONS, masks=dict(zip(adam, masks, strict=True)))
    fused = torch.optim.SGD(stock, **OPTIONS, fused=True)

    def torch_step() -> None:
        fused.step()
        with torch.no_grad():
            torch._foreach_mul_(stock, floats)

    weights = [p.detach() for p in plain if p.dim() > 1]
    words = [pack_mask(m) for p, m in zip(plain, masks, strict=True) if p.dim() > 1]
    num_scores = sum(w.numel() for w in weights)
    k = int(0.2 * int(torch.ops.lthbench.count_survivors(words).sum()))
    groups = [0] * len(words)

    def kthvalue() -> torch.Tensor:
        return torch.cat([w.reshape(-1) for w in weights]).abs_().kthvalue(k).values

    # A captured step is the kernels' own time; an eager one includes the launches.
    graph = torch.cuda.CUDAGraph()
    for _ in range(3):
        ours.step()
    with torch.cuda.graph(graph):
        ours.step()
    seconds = interleaved(
        {
            "masked SGD": ours.step,
            "masked SGD, captured": graph.replay,
            "masked SGD + pull + distance": anchored.step,
            "masked AdamW": adamw.step,
            "torch fused + mask": torch_step,
            "threshold + masks": lambda: torch.ops.lthbench.prune_lowest(weights, words, groups, [k], True),
            "kthvalue alone": kthvalue,
        },
        21,
        device=DEVICE,
    )
    moved = {
        "masked SGD": 20.125 * num_weights,
        "masked SGD, captured": 20.125 * num_weights,
        "masked SGD + pull + distance": 24.125 * num_weights,
        "masked AdamW": 28.125 * num_weights,
        "threshold + masks": 4.25 * num_scores,
    }
    return {"seconds": seconds, "bytes": moved}


def network_row(name: str, copy_bytes_per_second: float) -> dict[str, object]:
    """What `network` measures, with fractions of the copy bandwidth."""
    measured = network(name)
    seconds, moved = measured["seconds"], measured["bytes"]
    assert isinstance(seconds, dict) and isinstance(moved, dict)
    fractions = {work: b / seconds[work] / copy_bytes_per_second for work, b in moved.items()}
    print(name, {work: f"{s * 1e3:.3f} ms" for work, s in seconds.items()})
    print(name, "of the copy bandwidth:", {work: f"{f:.2f}" for work, f in fractions.items()})
    return {**measured, "of_copy_bandwidth": fractions}


def line(name: str, num_images: int) -> dict[str, object]:
    """A linear path of 30 networks."""
    (row,) = linear_path_work(name, num_images=num_images, num_points=30, device="cuda").rows(3, DEVICE)
    print(table([row]))
    return row._asdict()


def main() -> int:
    """Measure, and write after every measurement what there is; returns how many failed."""
    make_deterministic(1)  # as tasks run: TF32 off
    limit = limits()
    result: dict[str, object] = {"environment": environment(DEVICE), "limits": limit}
    measurements: dict[str, Callable[[], dict[str, object]]] = {
        name: partial(network_row, name, limit["copy_bytes_per_second"])
        for name in ("resnet20", "resnet18", "resnet50")
    }
    measurements["resnet20 line"] = partial(line, "resnet20", 2000)
    measurements["lenet-300-100 line"] = partial(line, "lenet-300-100", 10_000)
    failed = 0
    for name, measure in measurements.items():
        try:
            result[name] = measure()
        except Exception as error:  # the other measurements are wanted all the same
            traceback.print_exc()
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
            failed += 1
        write_atomically(Path(sys.argv[1]), (json.dumps(result, indent=1) + "\n").encode())
    return failed


if __name__ == "__main__":
    sys.exit(main())
