#!/usr/bin/env bash
# Runs the tests; arguments go to pytest, such as ./run_tests.sh -k config. Nothing is downloaded but missing packages (chromium, too).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
export LATENTSYNC_DOWNLOAD=0
./setup_env.sh --with-browser >/dev/null
source ./setup_env.sh
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # threads that wait leave the cores to others
exec python -m pytest "$@"
