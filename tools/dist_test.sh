#!/usr/bin/env bash
# Evaluate a checkpoint with several processes: one for each GPU, or without GPUs on the cores.
#
#     tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# On several machines, run it on each of them with NNODES=their number, NODE_RANK=0 on the first
# machine, 1 on the second and so on, MASTER_ADDR=address of the first machine, and PORT.
set -euo pipefail
tools=$(dirname "${BASH_SOURCE[0]}")
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
meet=(--standalone)  # on a free port
if [ "${NNODES:-1}" -gt 1 ]; then
    meet=(--nnodes "$NNODES" --node-rank "${NODE_RANK:-0}")
    meet+=(--master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$tools/launch.py" "${meet[@]}" --nproc-per-node "$3" \
    "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
