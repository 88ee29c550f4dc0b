#!/usr/bin/env bash
# What needs a GPU, in parts: ci/gpu.sh PART..., each within $LIMIT seconds (520), the most valuable first:
#   kernels    doctor, and the operators' tests on the device
#   suite      the quick suite twice on the device: the digests of all weights and masks are equal
#   micro      every pair in small on the device, against the recorded results by the statistical test
#   speed      kernels as fractions of the device's measured limits; training steps of every pair
#   hours      calibration of `plan` for every pair
#   resume     trainings by SGD and AdamW, killed and resumed: their digests are those of trainings left alone
#   build      the CUDA part from source for this device, and what nvcc made of it
#   sanitizer  memcheck, racecheck and initcheck, and counters of the kernels, where this machine allows them
# $PYTHON (default .venv/bin/python, else python3) is taken as it is; $PACKAGES (default build/packages) is a folder of
# packages that it lacks, filled by ci/gpu_packages.sh. What the parts find is in $OUT/results.tar.gz (default
# gpu-results), with those of earlier calls, and $OUT/summary.txt tells what passed. Kernels that are not there, or
# not for this Python, are compiled first. REHEARSE=1 takes the smallest sizes, which only show that each part runs (on
# the stand-in of tests/fake_cuda, say, whose `sim` needs a longer LIMIT). The exit status counts the commands that
# failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v "${PYTHON:-python3}") || { echo "there is no $PYTHON" >&2; exit 1; }
packages=${PACKAGES:-build/packages}
mkdir -p "${OUT:=gpu-results}"
OUT=$(realpath "$OUT")
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
[ ! -d "$packages" ] || PYTHONPATH+=:$(realpath "$packages")
work=$(mktemp -d)
found=$work/found  # what is packed; only the archive and the summary are written to OUT, as few files may come back
mkdir "$found"
export PYTHONPATH LTHBENCH_CACHE=$found/cache LTHBENCH_REPORT=0
failed=0 deadline=0 limit=${LIMIT:-520}
[ ! -e "$OUT/results.tar.gz" ] || tar -C "$found" -xzf "$OUT/results.tar.gz"

pack() {
  cp "$found/summary.txt" "$OUT/summary.txt" 2>/dev/null
  tar -C "$found" --exclude '*.safetensors' -czf "$work/results.tar.gz" . && mv "$work/results.tar.gz" "$OUT/results.tar.gz"
  rm -rf "$work"
}
trap pack EXIT

note() {  # name, outcome, seconds
  printf '%-10s %-22s %-10s %5s s\n' "$part" "$1" "$2" "$3" >>"$found/summary.txt"
}

try() {  # name, command...: within what is left of the part's time
  local name=$1 left=$((deadline - SECONDS)) status=0 start=$SECONDS outcome=passed
  shift
  echo "== $part: $name"
  if [ "$left" -gt 0 ]; then
    timeout -k 5 "$left" "$@" >"$found/$part-$name.log" 2>&1 || status=$?
  else
    echo "no time left" >"$found/$part-$name.log"
    status=124
  fi
  case $status in 0) ;; 124 | 137) outcome="no time" ;; *) outcome="failed $status" ;; esac
  [ $status -eq 0 ] || failed=$((failed + 1))
  note "$name" "$outcome" $((SECONDS - start))
  tail -n 15 "$found/$part-$name.log"
  return $status
}

leave_out() {  # name, reason
  echo "== $part: $1: $2: left out" | tee -a "$found/$part-$1.log"
  note "$1" "left out" 0
}

lthbench() { try "$1" "$python" -m lthbench "${@:2}"; }

# The suites, whole or as little of them as there is.
quick=(suites/quick.yaml) micro=(suites/micro.yaml) paper=(suites/paper.yaml) bench=() tests=() length="40ep" width=16 images=4000
if [ -n "${REHEARSE:-}" ]; then
  quick+=(--replicates 1 --arm early --only imp --levels 1)
  micro+=(--pair lenet-mnist --replicates 1)
  paper=(suites/quick.yaml) bench=(--seconds 0.01 --pair lenet-garments) tests=(-k "cuda and masks") length="2ep" width=2 images=256
fi

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

kill_in_training() {  # store, command...: with all its processes, as soon as there is a checkpoint
  local store=$1 process
  shift
  setsid "$@" &
  process=$!
  until [ -n "$(find "$store" -name checkpoint.safetensors -print -quit 2>/dev/null)" ]; do
    kill -0 $process 2>/dev/null || { echo "it ended before it could be killed"; return 1; }
    sleep 0.05
  done
  kill -KILL -- -$process
  wait $process
  echo "killed in training: $(find "$store" -name checkpoint.safetensors | wc -l) checkpoints"
}
export -f equal_digests kill_in_training
export python

kernels() {
  # Without the CUDA part the tests would try the reference, and pass.
  try loaded "$python" -c 'from lthbench.ops._library import build_info as b; assert b()["cuda"] == "loaded", b()'
  lthbench doctor doctor
  # Without the options of plugins that need not be there.
  try tests "$python" -m pytest tests/kernels -o addopts=-q -k cuda "${tests[@]}" --ignore tests/kernels/test_cuda_on_host.py
}

suite() {
  for i in 1 2; do lthbench "run-$i" run "${quick[@]}" --store "$work/quick-$i" --device cuda --per-device 4; done
  try equal bash -c 'equal_digests "$@"' - "$work/quick-1" "$work/quick-2"
  lthbench verify verify "${quick[@]}" --store "$work/quick-1"
}

micro() {
  lthbench run run "${micro[@]}" --store "$found/micro" --device cuda --per-device 4
  lthbench verify verify "${micro[@]}" --store "$found/micro"
}

speed() {
  try training "$python" ci/gpu_speed.py "$found/training.json" "${paper[0]}" --limit 280 "${bench[@]}"
  try kernels "$python" ci/gpu_bench.py "$found/benchmarks.json"
}

hours() { lthbench plan plan "${paper[0]}" --calibrate --device cuda; }

resume() {
  cat >"$work/resume.yaml" <<YAML
title: resumed
replicates: 1
pairs:
  resnet20:
    model: {name: resnet20, width: $width}
    data: {name: fashion-mnist-10k, num_train: $images}
    pruning: {rate: 0.36}
    recipe:
      steps: $length
      batch_size: 128
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-4}
      augment: {crop: 2, flip: true}
    arms: {sgd: {}, adamw: {recipe: {optimizer: {name: adamw, lr: 1.0e-3}}}}
    experiments: {imp: {levels: 1}}
YAML
  local run=("$python" -m lthbench run "$work/resume.yaml" --device cuda --per-device 2 --checkpoint-every 0)
  try straight "${run[@]}" --store "$work/straight"
  try killed bash -c 'kill_in_training "$@"' - "$work/killed" "${run[@]}" --store "$work/killed"
  try resumed "${run[@]}" --store "$work/killed"
  try equal bash -c 'equal_digests "$@"' - "$work/straight" "$work/killed"
}

build() {
  local arch
  arch=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
  mkdir "$work/source"
  cp -r setup.py pyproject.toml README.md LICENSE csrc ci lthbench "$work/source"
  # In a copy: the libraries that are there are those that the other parts measure.
  try compile env -C "$work/source" FORCE_CUDA=1 "TORCH_CUDA_ARCH_LIST=$arch" "$python" setup.py build_ext --inplace --force
  try sass env -C "$work/source" "$python" ci/sass.py --arch "sm_${arch/./}" --json "$found/sass.json"
}

tool() {  # name: where the CUDA toolkit's program is
  command -v "$1" || ls "${CUDA_HOME:-/usr/local/cuda}/bin/$1" 2>/dev/null
}

sanitizer() {
  local path check
  if ! path=$(tool compute-sanitizer); then
    leave_out memcheck "compute-sanitizer is not found; it comes with the CUDA toolkit"
  elif ! timeout 60 "$path" "$python" -c 'import torch; torch.ones(1, device="cuda")' >"$found/sanitizer-memcheck.log" 2>&1; then
    leave_out memcheck "this machine does not let compute-sanitizer look at its GPU"
  else
    for check in memcheck racecheck initcheck; do
      # Each tensor has memory of its own: the caching allocator would hide an access beyond it.
      try "$check" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$path" --tool "$check" --error-exitcode 1 "$python" ci/gpu_exercise.py
    done
  fi
  if ! path=$(tool ncu); then
    leave_out counters "ncu is not found; it comes with the CUDA toolkit"
  elif ! timeout 60 "$path" --launch-count 1 "$python" -c 'import torch; torch.ones(1, device="cuda")' 2>&1 |
    tee "$found/sanitizer-counters.log" | grep -q "Duration"; then
    leave_out counters "this machine does not let ncu read its GPU's counters"
  else
    try counters "$path" --kernel-name regex:lth --section SpeedOfLight --csv "$python" ci/gpu_exercise.py
  fi
}

for part in "${@:?"usage: ci/gpu.sh PART..."}"; do
  case $part in
    kernels | suite | micro | speed | hours | resume | build | sanitizer) ;;
    *) echo "ci/gpu.sh: no part $part; parts are kernels, suite, micro, speed, hours, resume, build, sanitizer" >&2; exit 2 ;;
  esac
done
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "torch sees no GPU; this needs one, and a torch that is built for CUDA" >&2
  exit 1
}
built='import sys; from lthbench.ops._library import build_info; sys.exit(build_info()["cuda"] != "loaded")'
begun=0  # what came before the first part is of its time
for part in "$@"; do
  deadline=$((begun + limit))
  "$python" -c "$built" || try compiled "$python" setup.py build_ext --inplace
  "$part"
  begun=$SECONDS
done
cat "$found/summary.txt"
exit "$failed"
