#!/usr/bin/env bash
# The same binary under two versions of torch: takes the CPU library as it was built here, and runs it beside the
# torch given by $OTHER_TORCH (default 2.13.0) in a throwaway environment, where nothing is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(realpath -s "${VENV:-.venv}")/bin/python
other=${OTHER_TORCH:-2.13.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The CPU part stands in a library of its own, so that the CUDA part's libraries are not needed to load it.
"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" "torch==$other" numpy
mkdir -p "$work/site/lthbench"
cp -r lthbench/__init__.py lthbench/ops lthbench/_C.abi3.so lthbench/_optimizer_cache.*.so "$work/site/lthbench/"
sha256sum lthbench/_C.abi3.so lthbench/_optimizer_cache.*.so
for interpreter in "$python" "$work/venv/bin/python"; do
  (cd "$work" && PYTHONPATH="$work/site" "$interpreter" - <<'PYTHON'
import torch
from torch import nn

from lthbench.ops._library import build_info
from lthbench.ops.pruning import prune_lowest
from lthbench.ops.optimizers import MaskedSGD

assert build_info()["cpu"] == "loaded", build_info()
torch.manual_seed(0)
weights = [torch.randn(100, 300), torch.randn(40, 7, 3, 3)]
masks = prune_lowest(weights, [torch.ones_like(w, dtype=torch.bool) for w in weights], 10_000).masks
assert sum(int(m.sum()) for m in masks) == sum(w.numel() for w in weights) - 10_000
ours = [nn.Parameter(w.clone()) for w in weights]
theirs = [nn.Parameter(w * m) for w, m in zip(weights, masks)]
mine = MaskedSGD(ours, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, masks=dict(zip(ours, masks)))
stock = torch.optim.SGD(theirs, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
for _ in range(5):
    for a, b in zip(ours, theirs):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    mine.step()
    stock.step()
    for p, m in zip(theirs, masks):
        p.data.masked_fill_(~m, 0.0)
        stock.state[p]["momentum_buffer"].masked_fill_(~m, 0.0)
assert len(mine._caches) == 1 and all(map(torch.equal, ours, theirs))
print(f"torch {torch.__version__}: loaded, and equal to torch.optim.SGD bit for bit")
PYTHON
  )
done
