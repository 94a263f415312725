#!/usr/bin/env bash
# Make training clips of a folder of raw video; ./data_processing_pipeline.sh --help lists the options. Relative paths count from where you stand.
# The weights of its filters are not downloaded by this: the command says what is missing and where it comes from.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
export LATENTSYNC_DOWNLOAD="${LATENTSYNC_DOWNLOAD:-0}"
"$here/setup_env.sh" --with-training >/dev/null
source "$here/setup_env.sh"
PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec python -m preprocess.data_processing_pipeline "$@"
