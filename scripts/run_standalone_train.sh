#!/bin/bash
# Train on one device: run_standalone_train.sh DATA_PATH PLATFORM [CHECKPOINT_PATH] [more arguments of train.py]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 DATA_PATH {Ascend,GPU,CPU} [CHECKPOINT_PATH] [train.py arguments]" >&2; exit 2; }
data=$(realpath -m "$1")
arguments=(--data_url "$data" --device_target "$2")
shift 2
if [ $# -ge 1 ] && [[ $1 != --* && $1 != *=* ]]; then
    checkpoint=$1
    if [[ -e $1 || $1 == */* || $1 == *.[a-z]* ]]; then checkpoint=$(realpath -m "$1"); fi  # else the name of fetched weights
    arguments+=(--pre_trained "$checkpoint")
    shift
fi
cd "$(dirname "$0")/.."
exec python train.py "${arguments[@]}" "$@"
