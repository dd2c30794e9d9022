#!/bin/bash
# Evaluate a checkpoint: run_eval.sh DATA_PATH PLATFORM CHECKPOINT_PATH [more arguments of eval.py]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 DATA_PATH {Ascend,GPU,CPU} CHECKPOINT_PATH [eval.py arguments]" >&2; exit 2; }
data=$(realpath -m "$1") platform=$2 checkpoint=$3
if [[ -e $3 || $3 == */* || $3 == *.[a-z]* ]]; then checkpoint=$(realpath -m "$3"); fi  # else the name of fetched weights
shift 3
cd "$(dirname "$0")/.."
exec python eval.py --data_url "$data" --device_target "$platform" --checkpoint_path "$checkpoint" "$@"
