#!/usr/bin/env bash
# Lip sync one video to one recording; ./inference.sh --help lists the options. Relative paths count from where you stand.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
for word in "$@"; do case "$word" in -h | --help | --version | --print_config) export LATENTSYNC_DOWNLOAD=0 ;; esac done
source "$here/setup_env.sh"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # threads that wait leave the cores to the decoder and the encoder
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"    # ... but not between two small operations: waking up takes longer than they do
PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec python -m scripts.inference "$@"
