#!/usr/bin/env bash
# What needs a GPU, a part a call: ci/gpu.sh PART..., each at most 9 minutes, the most valuable first:
#   kernels    doctor, and the operators' tests on the device
#   suite      the quick suite twice on the device: the digests of all weights and masks are equal
#   micro      every pair in small on the device, against the recorded results by the statistical test
#   speed      kernels as fractions of the device's measured limits; training steps of every pair
#   hours      calibration of `plan` for every pair
#   build      the CUDA part from source for this device, and what nvcc made of it
#   sanitizer  memcheck, racecheck and initcheck, where this machine allows them
# $PYTHON (default .venv/bin/python) is taken as it is; $PACKAGES is a folder of packages that it lacks, filled by
# ci/gpu_packages.sh. Everything that a part finds is in $OUT (default gpu-results), and all of it so far in
# $OUT/results.tar.gz. The exit status counts the commands that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
OUT=${OUT:-gpu-results}
export PYTHONPATH=$PWD${PACKAGES:+:$(realpath "$PACKAGES")}${PYTHONPATH:+:$PYTHONPATH}
export LTHBENCH_CACHE=${LTHBENCH_CACHE:-$OUT/cache}
mkdir -p "$OUT"
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "torch sees no GPU; this needs one, and a torch that is built for CUDA" >&2
  exit 1
}

try() {  # name, command...: within what is left of the part's 9 minutes
  local name=$1 left=$((deadline - SECONDS)) status=0
  shift
  echo "== $part: $name"
  if [ "$left" -gt 0 ]; then
    timeout "$left" "$@" >"$OUT/$part-$name.log" 2>&1 || status=$?
  else
    echo "no time left" >"$OUT/$part-$name.log"
    status=124
  fi
  [ $status -eq 0 ] || failed=$((failed + 1))
  echo "{\"part\": \"$part\", \"name\": \"$name\", \"exit_status\": $status}" >>"$OUT/parts.jsonl"
  tail -n 15 "$OUT/$part-$name.log"
}

lthbench() { try "$1" "$python" -m lthbench "${@:2}"; }

equal_digests() {  # two stores
  "$python" - "$@" <<'PYTHON'
import json
import sys
from pathlib import Path

found = [{p.parent.name: json.loads(p.read_text()) for p in Path(s).rglob("result.json")} for s in sys.argv[1:]]
a, b = ({key: (result["artefacts"], result["metrics"]) for key, result in each.items()} for each in found)
differ = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
print(f"{len(a)} tasks, of which {len(differ)} differ", *differ[:10])
sys.exit(bool(differ) or not a)
PYTHON
}

kernels() {
  # Without the CUDA part the tests would try the reference, and pass.
  try loaded "$python" -c 'from lthbench.ops._library import build_info as b; assert b()["cuda"] == "loaded", b()'
  lthbench doctor doctor
  try tests "$python" -m pytest tests/kernels -q -k cuda --ignore tests/kernels/test_cuda_on_host.py
}

suite() {
  for i in 1 2; do lthbench "run-$i" run suites/quick.yaml --store "$work/quick-$i" --device cuda --per-device 4; done
  export -f equal_digests
  export python
  try equal bash -c 'equal_digests "$@"' - "$work/quick-1" "$work/quick-2"
  lthbench verify verify suites/quick.yaml --store "$work/quick-1"
}

micro() {
  lthbench run run suites/micro.yaml --store "$OUT/micro" --device cuda --per-device 4
  lthbench verify verify suites/micro.yaml --store "$OUT/micro"
}

speed() {
  try kernels "$python" ci/gpu_bench.py "$OUT/benchmarks.json"
  lthbench training bench training suites/paper.yaml --device cuda --json
}

hours() { lthbench plan plan suites/paper.yaml --calibrate --device cuda; }

build() {
  local arch
  arch=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
  cp -r . "$work/source"
  # In a copy: the libraries that are there are those that the other parts measure.
  try compile env -C "$work/source" FORCE_CUDA=1 "TORCH_CUDA_ARCH_LIST=$arch" "$python" setup.py build_ext --inplace --force
  try sass env -C "$work/source" "$python" ci/sass.py --arch "sm_${arch/./}" --json "$(realpath "$OUT")/sass.json"
}

sanitizer() {
  local tool path
  path=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null) || {
    echo "compute-sanitizer is not found; it comes with the CUDA toolkit" | tee "$OUT/sanitizer.log"
    return
  }
  "$path" "$python" -c 'import torch; torch.ones(1, device="cuda")' >"$OUT/sanitizer.log" 2>&1 || {
    echo "this machine does not let compute-sanitizer look at its GPU: left out" | tee -a "$OUT/sanitizer.log"
    return
  }
  for tool in memcheck racecheck initcheck; do
    # Each tensor has memory of its own: the caching allocator would hide an access beyond it.
    try "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$path" --tool "$tool" --error-exitcode 1 "$python" ci/gpu_exercise.py
  done
}

for part in "${@:?"usage: ci/gpu.sh PART..."}"; do
  case $part in
    kernels | suite | micro | speed | hours | build | sanitizer) ;;
    *) echo "ci/gpu.sh: no part $part; parts are kernels, suite, micro, speed, hours, build, sanitizer" >&2; exit 2 ;;
  esac
  deadline=$((SECONDS + 530))
  "$part"
  tar -C "$OUT" --exclude results.tar.gz --exclude '*.safetensors' -czf "$work/results.tar.gz" .
  mv "$work/results.tar.gz" "$OUT/results.tar.gz"
done
exit "$failed"
