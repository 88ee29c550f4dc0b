#!/usr/bin/env bash
# Format, lint and types of Python, format of C++, spelling; with --fix, formats in place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${VENV:-.venv}/bin
mapfile -t sources < <(git ls-files --cached --others --exclude-standard 'csrc/*' 'tests/*' | grep -E '\.(cpp|cu|h|cuh)$')
if [ "${1:-}" = --fix ]; then
  "$bin/ruff" format . && "$bin/ruff" check --fix .
  "$bin/clang-format" -i "${sources[@]}"
else
  "$bin/ruff" format --check . && "$bin/ruff" check .
  "$bin/clang-format" --dry-run -Werror "${sources[@]}"
fi
"$bin/codespell"
"$bin/mypy"
