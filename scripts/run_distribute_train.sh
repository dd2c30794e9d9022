#!/bin/bash
# Train on several devices: run_distribute_train.sh DATA_PATH PLATFORM DEVICES [--nodes N --node I --master ADDRESS] [CHECKPOINT_PATH] [more arguments of train.py]
# DEVICES are those of each machine. $MASTER_PORT (8118) and $LOG_DIR (msrun_log) are msrun's; the first device's output is shown.
set -euo pipefail
usage="usage: $0 DATA_PATH {Ascend,GPU,CPU} DEVICES [--nodes N --node I --master ADDRESS] [CHECKPOINT_PATH] [train.py arguments]"
[ $# -ge 3 ] && [[ $3 =~ ^[1-9][0-9]*$ ]] || { echo "$usage" >&2; exit 2; }
arguments=(--data_url "$(realpath -m "$1")" --device_target "$2") devices=$3 nodes=1 node=0 master=127.0.0.1
shift 3
while [[ $# -ge 2 && $1 =~ ^--(nodes|node|master)$ ]]; do declare "${1#--}=$2"; shift 2; done
[[ $nodes =~ ^[1-9][0-9]*$ && $node =~ ^[0-9]+$ ]] && ((node < nodes)) || { echo "$usage" >&2; exit 2; }
if [ $# -ge 1 ] && [[ $1 != --* && $1 != *=* ]]; then
    checkpoint=$1
    if [[ -e $1 || $1 == */* || $1 == *.[a-z]* ]]; then checkpoint=$(realpath -m "$1"); fi  # else the name of fetched weights
    arguments+=(--pre_trained "$checkpoint")
    shift
fi
cd "$(dirname "$0")/.."
exec msrun --worker_num=$((devices * nodes)) --local_worker_num="$devices" --node_rank="$node" --master_addr="$master" \
    --master_port="${MASTER_PORT:-8118}" --log_dir="${LOG_DIR:-msrun_log}" --join=True --tail_worker_log=0 train.py "${arguments[@]}" "$@"
