#!/usr/bin/env bash
# Measure a model on rendered heads of unseen people; eval/eval_talking_heads.sh --help lists the options. Relative paths count from where you stand.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export LATENTSYNC_DOWNLOAD="${LATENTSYNC_DOWNLOAD:-0}"
source "$here/setup_env.sh"
PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec python -m embedded.evaluate "$@"
