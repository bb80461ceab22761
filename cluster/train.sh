#!/usr/bin/env bash
# Start a run in a folder of its own, or go on with the run that is there: train.sh FOLDER [OPTION ...]
# For jobs that something starts again (preempted, requeued, head lost): they continue at their last checkpoint.
set -euo pipefail

folder=$1
shift
if compgen -G "$folder/*/run.json" >/dev/null; then
    set -- "$@" --resume
fi
exec python -u -m raymeta.train --output "$folder" --address auto "$@"
