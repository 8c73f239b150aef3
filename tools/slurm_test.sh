#!/usr/bin/env bash
# Evaluate a checkpoint in a job of Slurm with GPUS processes, GPUS_PER_NODE of them on each machine.
#
#     GPUS=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
#
# CPUS_PER_TASK is the number of cores of each process, and SRUN_ARGS has more arguments of srun.
set -euo pipefail
tools=$(dirname "${BASH_SOURCE[0]}")
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun --partition "$1" --job-name "$2" --gres "gpu:$GPUS_PER_NODE" --ntasks "$GPUS" \
    --ntasks-per-node "$GPUS_PER_NODE" --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/test.py" "$3" "$4" --launcher slurm "${@:5}"
