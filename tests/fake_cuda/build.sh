#!/bin/bash
# build.sh FOLDER: builds the stand-in for the torch of $PYTHON (default: python) and the kernels of csrc into FOLDER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?"usage: build.sh FOLDER"}
csrc=$(realpath "$here/../../csrc")
python=${PYTHON:-python}
site=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
[ -e "$site/lib/libtorch_cuda.so" ] || { echo "the torch of $python is built without CUDA" >&2; exit 2; }
mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/kernels"

"$python" "$here/src/names.py" kernels "$csrc" "$work/kernels"
cp "$here/src/emulator.cpp" "$work/kernels"
jobs=()
for source in "$work/kernels"/*.cpp; do
  g++ -std=c++20 -O2 -fPIC -fvisibility=hidden -w -ffp-contract=off -fno-strict-aliasing \
    "-I$here/src" "-I$csrc" -iquote "$csrc/cuda" -c "$source" -o "${source%.cpp}.o" &
  jobs+=($!)
done

# The headers that came with torch; crt/ is with triton alone. A CUDA toolkit's serve where those are missing.
headers=()
for folder in "$site"/../nvidia/*/include; do headers+=("-isystem$folder"); done
for folder in "$site"/../triton/backends/nvidia/include "${CUDA_HOME:-/usr/local/cuda}"/include; do headers+=(-idirafter "$folder"); done
g++ -std=c++20 -O1 -fPIC -fvisibility=hidden -w "${headers[@]}" -c "$here/src/runtime.cpp" -o "$work/runtime.o"
"$python" "$here/src/names.py" rest "$site/lib" "$work/runtime.o" > "$work/rest.c"
gcc -O1 -fPIC -fvisibility=hidden -w -c "$work/rest.c" -o "$work/rest.o"
g++ -shared -o "$work/libfakecuda.so" "$work/runtime.o" "$work/rest.o" -ldl

for job in "${jobs[@]}"; do wait "$job"; done
g++ -shared -o "$work/libemulator.so" "$work/kernels"/*.o -lpthread
mv "$work"/lib*.so "$out"
mkdir -p "$out/driver"
ln -sf ../libfakecuda.so "$out/driver/libcuda.so.1"
echo "built $out"
