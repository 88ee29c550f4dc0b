#!/usr/bin/env bash
# Everything that needs a GPU, in one call: build for this device, kernel tests on it against the reference,
# compute-sanitizer, benchmarks as fractions of its measured limits. Results: $OUT/gpu.json, logs beside it.
# Stops after 8 minutes. Every part runs, whatever became of the ones before it; the exit status counts the failures.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
OUT=${OUT:-gpu-results}
mkdir -p "$OUT"
deadline=$(($(date +%s) + 480))
failed=0
python=$VENV/bin/python
# Known before torch is there, so that nothing is ever built for other devices.
TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
[ -n "$TORCH_CUDA_ARCH_LIST" ] || { echo "nvidia-smi lists no GPU; run this on a machine with one" >&2; exit 1; }
export TORCH_CUDA_ARCH_LIST
[ -x "$python" ] || VENV=$VENV timeout 300 ci/install.sh || exit 1
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "torch sees no GPU; this needs a torch that is built for CUDA" >&2
  exit 1
}

part() {  # name, seconds at most, command...
  local name=$1 limit=$2 left=$((deadline - $(date +%s)))
  shift 2
  [ "$left" -gt 0 ] || { echo "$name: no time left" | tee "$OUT/$name.log"; failed=$((failed + 1)); return; }
  [ "$limit" -lt "$left" ] || limit=$left
  echo "== $name"
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1
  local status=$?
  [ $status -eq 0 ] || failed=$((failed + 1))
  echo "{\"part\": \"$name\", \"exit_status\": $status}" >>"$OUT/parts.jsonl"
  tail -n 15 "$OUT/$name.log"
}

: >"$OUT/parts.jsonl"
part build 180 env FORCE_CUDA=1 "$python" -m pip install -v --no-deps --no-build-isolation -e .
# Without the CUDA part the tests would try the reference, and pass.
part loaded 30 "$python" -c 'from lthbench.ops._library import build_info as b; assert b()["cuda"] == "loaded", b()'
part tests 150 "$python" -m pytest tests/kernels -q -k cuda --ignore tests/kernels/test_cuda_on_host.py
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
  for tool in memcheck racecheck initcheck; do
    # Each tensor has memory of its own: the caching allocator would hide an access beyond it.
    part "$tool" 60 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 1 "$python" ci/gpu_exercise.py
  done
else
  echo "compute-sanitizer is not found; it comes with the CUDA toolkit" | tee "$OUT/memcheck.log"
  failed=$((failed + 1))
fi
part sass 30 "$python" ci/sass.py --arch "sm_${TORCH_CUDA_ARCH_LIST/./}" --json "$OUT/sass.json"
part benchmarks 120 "$python" ci/gpu_bench.py "$OUT/benchmarks.json"
"$python" - "$OUT" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch

out = Path(sys.argv[1])
read = lambda name: json.loads((out / name).read_text()) if (out / name).exists() else None
result = {
    "device": torch.cuda.get_device_name(),
    "torch": torch.__version__,
    "parts": [json.loads(line) for line in (out / "parts.jsonl").read_text().splitlines()],
    "benchmarks": read("benchmarks.json"),
    "sass": read("sass.json"),
}
part = out / "gpu.json.part"
part.write_text(json.dumps(result, indent=1) + "\n")
part.replace(out / "gpu.json")
print(f"written: {out}/gpu.json")
PYTHON
exit "$failed"
