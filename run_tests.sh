#!/usr/bin/env bash
# Runs the tests on all cores; arguments go to pytest, such as ./run_tests.sh -k config (-n 0: one process). Downloads no weights.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n 2p "${BASH_SOURCE[0]}" | cut -c3-
    exit
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
export LATENTSYNC_DOWNLOAD=0
./setup_env.sh --with-dev >/dev/null
source ./setup_env.sh
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # waiting threads leave the cores to others
exec python -m pytest -n auto --dist worksteal "$@"
