#!/usr/bin/env bash
# Runs the tests on all processors; arguments go to pytest, such as ./run_tests.sh -k config (-n 0: in one process). Downloads no weights.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
export LATENTSYNC_DOWNLOAD=0
./setup_env.sh --with-dev >/dev/null
source ./setup_env.sh
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # waiting threads leave the cores to others
exec python -m pytest -n auto --dist worksteal "$@"
