#!/usr/bin/env bash
# Record a suite's golden results here, and in what this machine can imitate of other environments: two threads,
# narrower vectors, no kernels (with LTHBENCH_ENGINE=blocked, which needs kernels, those of an older instruction set).
# How far those differ is the tolerance for all environments that are not recorded.
# Leave out a file that tests/integration/test_golden_elsewhere.py finds unlike the others where a mask of it differs in
# a weight at the threshold: what is trained behind that goes another way than rounding alone would take it.
# Usage: ci/golden.sh SUITE REASON [STORES], the last a folder where a run that was stopped goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lthbench=${VENV:-.venv}/bin/lthbench
suite=$1 reason=$2 stores=${3:-$(mktemp -d)}

record() {  # name, threads, variables...
  local store=$stores/$1 threads=$2
  shift 2
  env "$@" "$lthbench" run "$suite" --store "$store" --device cpu --threads "$threads" --workers "${WORKERS:-1}" >/dev/null
  "$lthbench" verify "$suite" --store "$store" --update --reason "$reason" ${keep:-}
  keep=--keep-others  # the first recording alone may remove those of other code
}

record plain 1
record threads 2
record narrow 1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE
record narrowest 1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX
if [ "${LTHBENCH_ENGINE:-torch}" = blocked ]; then
  record v3 1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 LTHBENCH_CPU_ISA=v3
else
  record reference 1 LTHBENCH_REFERENCE=1
fi
