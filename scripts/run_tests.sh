#!/bin/bash
# Install into .venv-test, then lint and test, a file of tests on each core at a time: run_tests.sh [PYTEST_ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh .venv-test tests/requirements.txt
source .venv-test/bin/activate
ruff check .
ruff format --check .
python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"  # a process takes up to 4 GB
