#!/bin/bash
# run.sh FOLDER count|guard|sim COMMAND...: runs a command on the stand-in built in FOLDER; see README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case ${2:-} in count | guard | sim) ;; *) sed -n 2p "$0" >&2; exit 2 ;; esac
built=$(cd "$1" && pwd)
export FAKE_CUDA=$2 FAKE_CUDA_BUILT=$built
export LD_LIBRARY_PATH=$built/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PYTHONPATH=$here/..:$here/hook${PYTHONPATH:+:$PYTHONPATH}
export TORCH_CUDNN_V8_API_DISABLED=1 PYTHONFAULTHANDLER=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
shift 2
export LD_PRELOAD=$built/libfakecuda.so${LD_PRELOAD:+:$LD_PRELOAD}
exec "$@"
