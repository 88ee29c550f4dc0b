#!/usr/bin/env bash
# Builds a source distribution and, from it alone, two wheels, one with kernels and one where no compiler is found;
# installs each in a new environment, from whose empty folder it plans and runs what ships with the package.
#
# The new environments take the packages that lthbench needs from those of $VENV (.venv). With --dependencies they are
# installed from the package index instead, gigabytes, by which the list of them is tested too; pip's options follow,
# as in: ci/distribution.sh --dependencies --constraint FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(realpath -s "${VENV:-.venv}")/bin/python
dependencies=
[ "${1:-}" != --dependencies ] || { dependencies=yes; shift; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME "${!LTHBENCH_@}"

build() { "$python" -c "from setuptools import build_meta as b; b.build_$1('$work/$2')"; }

mkdir "$work/source" "$work/nothing"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$work/source"
(cd "$work/source" && LTHBENCH_NO_EXTENSION=1 build sdist sources) >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
tar -C "$work" -xzf "$work"/sources/lthbench-*.tar.gz
rm -r "$work/source"
mv "$work"/lthbench-* "$work/unpacked"
cd "$work/unpacked"
PATH=$work/nothing build wheel without >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
FORCE_CUDA=${FORCE_CUDA:-0} build wheel with >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cd "$work/nothing"
rm -r "$work/unpacked"

for kind in without with; do
  new=$work/environment
  "$python" -m venv --clear "$new"
  packages=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  if [ -n "$dependencies" ]; then
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check "$@" "$work/$kind"/*.whl
    "$new/bin/python" -m pip check
  else
    # A path in a .pth file: what lies there is found, and an editable lthbench's own .pth file is not read.
    "$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$packages/borrowed.pth"
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index "$work/$kind"/*.whl
  fi
  lthbench=$new/bin/lthbench
  "$new/bin/python" -c "import lthbench; assert lthbench.__file__.startswith('$packages'), lthbench.__file__"
  mkdir "$work/$kind/run"
  cd "$work/$kind/run"
  "$lthbench" --version | tee version
  "$lthbench" doctor
  "$lthbench" plan quick >plan
  part=(micro --pair lenet-garments --store store)
  "$lthbench" run "${part[@]}" >results 2>said
  "$lthbench" verify "${part[@]}"
  "$lthbench" verdicts quick --store store >verdicts  # its claims are found, though nothing of it is run
  if [ $kind = with ]; then
    grep -q "cpu [0-9a-f]\{12\}, .*used: kernels" version
  else
    grep -q "used: reference" version
    grep -q "no kernels (not built at install): the plain PyTorch reference computes" said
    grep -q "Computed by the plain PyTorch reference, without kernels: 12 of 12 tasks" results
  fi
  echo "the wheel $kind kernels: installed, planned, run and verified without its sources"
done
