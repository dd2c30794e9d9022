#!/bin/bash
# Install into .venv-test, then lint and test: run_tests.sh [PYTEST_ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh .venv-test tests/requirements.txt
source .venv-test/bin/activate
ruff check .
ruff format --check .
python -m pytest "$@"
