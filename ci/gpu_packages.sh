#!/usr/bin/env bash
# Fill a folder with the packages that a machine with a GPU and no package index may lack beside torch's own and those
# of a scientific Python 3.12 on Linux: ci/gpu_packages.sh [FOLDER], where ci/gpu.sh looks for them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-build/packages}
packages=(pydantic pydantic-core annotated-types typing-extensions typing-inspection submitit cloudpickle pybind11)
versions=$("${VENV:-.venv}/bin/python" -m pip freeze | grep -iE "^($(IFS='|'; echo "${packages[*]}" | sed 's/-/[-_]/g'))==")
# shellcheck disable=SC2086 (a word a package)
"${VENV:-.venv}/bin/python" -m pip install --quiet --target "$folder" --upgrade --no-deps --only-binary :all: \
  --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 $versions
echo "$folder holds" $versions
