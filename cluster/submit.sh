#!/usr/bin/env bash
# Train on a Ray cluster whose dashboard is forwarded to this machine: submit.sh [OPTION ...]
# Follows the run and ends with 0 if it succeeded; Ctrl-C only stops following. Needs the cluster's token.
set -euo pipefail

export RAY_AUTH_MODE=token
exec ray job submit --address "${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" -- \
    python -u -m raymeta.train --address auto "$@"
