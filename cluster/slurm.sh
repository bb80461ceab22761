#!/usr/bin/env bash
#SBATCH --job-name=raymeta
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=raymeta-%j.log
# A run on whole Slurm nodes, from the repository's root with raymeta's environment active:
#   sbatch --nodes=2 --gpus-per-node=4 cluster/slurm.sh --preset omniglot-5w1s-maml --workers 8
# Whole nodes, for `ray symmetric-run` ends with `ray stop`, which ends every Ray of this user on them.
set -euo pipefail

run=results/slurm-$SLURM_JOB_ID
: "${HEAD_ADDRESS:=$(hostname -I | cut -d' ' -f1)}" # set it where the other nodes reach this one at another address
port=$((20000 + SLURM_JOB_ID % 10000))

RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN           # of this job alone; srun hands it to the other nodes
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300   # its default, 30 s, is short for a loaded file server
export RAY_USAGE_STATS_ENABLED=0

# symmetric-run exits 0 when Ray itself did not start, so the training leaves its exit code here.
marker=$(mktemp)
trap 'rm -f "$marker"' EXIT

srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray symmetric-run --address "$HEAD_ADDRESS:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --dashboard-host=127.0.0.1 -- \
    bash -c 'code=0; "${@:2}" || code=$?; echo "$code" >"$1"; exit "$code"' - "$marker" \
    bash cluster/train.sh "$run" "$@" || true

if [[ ! -s $marker ]]; then
    echo "slurm.sh: Ray did not start, so nothing was trained; its message stands above" >&2
    exit 3
fi
exit "$(<"$marker")"
