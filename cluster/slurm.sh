#!/usr/bin/env bash
#SBATCH --job-name=raymeta
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --open-mode=append
#SBATCH --output=raymeta-%j.log
# A run on whole Slurm nodes, from the repository's root with raymeta's environment active:
#   sbatch --nodes=2 --gpus-per-node=4 --time=04:00:00 cluster/slurm.sh --preset glyphs-5w1s-maml --workers auto
# Five minutes before its time is up it saves and queues again, and goes on where it was; preempted, it does too.
# Whole nodes, for `ray symmetric-run` ends with `ray stop`, which ends every Ray of this user on them.
set -euo pipefail

run=results/slurm-$SLURM_JOB_ID
: "${HEAD_ADDRESS:=$(hostname -I | cut -d' ' -f1)}" # set it where the other nodes reach this one at another address
port=$((20000 + SLURM_JOB_ID % 10000))

RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN         # of this attempt alone; srun hands it to the other nodes
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # its default, 30 s, is short for a loaded file server
export RAY_USAGE_STATS_ENABLED=0

# Here the training, which runs on this node, leaves its process id and its exit code: symmetric-run itself ends with 0
# when Ray did not start.
marks=$(mktemp -d)
trap 'rm -rf "$marks"' EXIT
asked_to_stop=
trap 'asked_to_stop=1; if [[ -s $marks/pid ]]; then kill -TERM "$(<"$marks/pid")"; fi' TERM

# shellcheck disable=SC2016 # the inner shell expands these
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray symmetric-run --address "$HEAD_ADDRESS:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --dashboard-host=127.0.0.1 -- \
    bash -c 'bash cluster/train.sh "${@:2}" & echo "$!" >"$1/pid"; wait "$!"; echo "$?" >"$1/code"' - "$marks" \
    "$run" "$@" &
while kill -0 "$!" 2>/dev/null; do
    wait "$!" || true # ends early when the signal comes
done

if [[ ! -s $marks/code ]]; then
    echo "slurm.sh: Ray did not start, so nothing was trained; its message stands above" >&2
    exit 3
fi
code=$(<"$marks/code")
if [[ $asked_to_stop && ($code == 130 || $code == 143) ]]; then # saved and stopped, or not begun yet
    rm -rf "$marks"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
