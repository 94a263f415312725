#!/usr/bin/env bash
# Accuracy of a trained SyncNet; eval/eval_syncnet_acc.sh --help lists the options. Relative paths count from where you stand.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export LATENTSYNC_DOWNLOAD="${LATENTSYNC_DOWNLOAD:-0}"
"$here/setup_env.sh" --with-training >/dev/null
source "$here/setup_env.sh"
PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec python -m eval.eval_syncnet_acc "$@"
