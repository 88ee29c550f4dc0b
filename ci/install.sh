#!/usr/bin/env bash
# Make a virtual environment (in .venv, or in $VENV) with lthbench, its kernels and its tests' tools.
# Needs Python 3.10 or newer with venv, a C++ compiler, and the package index. Running it again brings it up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "ci/install.sh: ${PYTHON:-python3} is no Python 3.10 or newer; set PYTHON to one" >&2
  exit 2
}
# One without pip is what is left where Python's venv is not all there (of Debian's python3-venv, say).
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
# The kernels are compiled against the torch that will run them, so torch comes first and the build is not isolated.
pip torch==2.14.1 torchvision==0.29.1 "setuptools>=77" wheel ninja "pybind11>=2.13"
pip --no-build-isolation --editable ".[test]"
"$VENV/bin/lthbench" --version
echo "lthbench is installed in $VENV: try $VENV/bin/lthbench doctor"
