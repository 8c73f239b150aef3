#!/usr/bin/env bash
# Train with several processes on this machine: one for each GPU, or without GPUs on its cores.
#
#     tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# On several machines, run it on each of them with NNODES=their number, NODE_RANK=0 on the first
# machine, 1 on the second and so on, MASTER_ADDR=address of the first machine, and PORT.
set -euo pipefail
tools=$(dirname "${BASH_SOURCE[0]}")
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
meet=(--standalone)  # on a free port
if [ "${NNODES:-1}" -gt 1 ]; then
    meet=(--nnodes "$NNODES" --node-rank "${NODE_RANK:-0}")
    meet+=(--master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$tools/launch.py" "${meet[@]}" --nproc-per-node "$2" \
    "$tools/train.py" "$1" --launcher pytorch "${@:3}"
