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
"$venv/bin/ruff" check .
"$venv/bin/mypy"
exec "$venv/bin/python" -m pytest "$@"
