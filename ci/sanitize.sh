#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer, some twenty minutes: in a copy of the sources
# the CPU extension is built with both, with assertions of the standard library and checks of float conversions, and
# tests/kernels run on it. The CUDA kernels run on the host executor, which tests/kernels/host_compiler.py builds with
# these and with ThreadSanitizer.
# ci/sanitize.sh [pytest arguments]; $PYTHON (default .venv/bin/python) needs g++ and the package's test dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work"
cd "$work"

checks=(-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer)
FORCE_CUDA=0 CFLAGS="${checks[*]} -D_GLIBCXX_ASSERTIONS -g1" LDFLAGS="${checks[*]}" \
  "$python" setup.py build_ext --inplace >build.log 2>&1 || { tail -n 40 build.log >&2; exit 1; }

runtime() { gcc -print-file-name="$1"; }
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:verify_asan_link_order=0
export UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$work OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
export LD_PRELOAD="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so)"
"$python" -m pytest tests/kernels -q "$@"
