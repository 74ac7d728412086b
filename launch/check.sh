#!/usr/bin/env bash
# Lint, types and every test, set-up included. Arguments go to pytest:
#
#   bash launch/check.sh
#   bash launch/check.sh tests/test_report.py -k axes
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install_check
cd "$root"
# All three speak, whichever fails.
status=0
"$venv/bin/ruff" check . || status=1
"$venv/bin/mypy" || status=1
"$venv/bin/python" -m pytest "$@" || status=1
exit $status
