#!/usr/bin/env bash
# Check a report in headless Chromium, light and dark, 400 and 1,200 pixels wide: axe-core's rules (alternative texts,
# contrast, headings, labels), console errors, sideways scrolling. Usage: ci/report_check.sh PAGE
# Skips where Chromium, npm or the registry is missing.
set -euo pipefail
page=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
skip() { echo "report_check: skipped: $1"; exit 0; }
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || skip "no Chromium (apt-get install chromium)"
command -v npm >/dev/null || skip "no npm"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent axe-core@4 >/dev/null && tar -xzf axe-core-*.tgz package/axe.min.js) ||
  skip "axe-core cannot be had from the npm registry"
"${VENV:-.venv}/bin/python" ci/report_check.py "$page" "$work/package/axe.min.js" "$chromium"
