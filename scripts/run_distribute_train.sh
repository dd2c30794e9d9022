#!/bin/bash
# Train on several devices of one machine: run_distribute_train.sh DATA_PATH PLATFORM DEVICES [CHECKPOINT_PATH] [more arguments of train.py]
# $MASTER_PORT (8118) and $LOG_DIR (msrun_log) are msrun's; device 0's output is shown, all are kept in $LOG_DIR.
set -euo pipefail
usage="usage: $0 DATA_PATH {Ascend,GPU,CPU} DEVICES [CHECKPOINT_PATH] [train.py arguments]"
[ $# -ge 3 ] && [[ $3 =~ ^[1-9][0-9]*$ ]] || { echo "$usage" >&2; exit 2; }
data=$(realpath -m "$1") devices=$3
arguments=(--data_url "$data" --device_target "$2")
shift 3
if [ $# -ge 1 ] && [[ $1 != --* && $1 != *=* ]]; then
    arguments+=(--pre_trained "$(realpath -m "$1")")
    shift
fi
cd "$(dirname "$0")/.."
exec msrun --worker_num="$devices" --local_worker_num="$devices" --master_port="${MASTER_PORT:-8118}" \
    --log_dir="${LOG_DIR:-msrun_log}" --join=True --tail_worker_log=0 train.py "${arguments[@]}" "$@"
