#!/usr/bin/env bash
# Compiles what includes torch's headers, of csrc and csrc/cuda, against those of the oldest torch that pyproject.toml
# promises. Its wheel is downloaded (0.9 GB), or given: ci/oldest_torch.sh [WHEEL].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${VENV:-.venv}/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
oldest=$(sed -n 's/^  "torch>=\([0-9.]*\)",$/\1/p' pyproject.toml)
wheel=${1:-}
if [ -z "$wheel" ]; then
  "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "torch==$oldest.*"
  wheel=$(ls "$work"/torch-*.whl)
fi
"$python" - "$wheel" "$work" <<'PYTHON'
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith("torch/include/")])
PYTHON
target=$(sed -n 's/^TARGET = "\(0x[0-9a-f]*\)".*/\1/p' setup.py)
includes() { "$python" -c "import pybind11, sysconfig; print($1)"; }
flags=(-std=c++17 -fsyntax-only -fvisibility=hidden -Wno-psabi "-DTORCH_TARGET_VERSION=$target"
  -Icsrc "-I$(includes 'pybind11.get_include()')" "-I$work/torch/include" "-I$(includes 'sysconfig.get_paths()["include"]')")
# The CUDA runtime's headers, of a toolkit or of the wheels that torch depends on.
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
for folder in "${CUDA_HOME:-/usr/local/cuda}/include" "$packages"/nvidia/cu1*/include; do flags+=("-isystem$folder"); done
mapfile -t sources < <(ls csrc/*.cpp csrc/cuda/*.cpp)  # csrc/cpu and the .cu files include none of torch's
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} g++ "${flags[@]}" -DUSE_CUDA {}
echo "${#sources[@]} files compile against torch $oldest"
