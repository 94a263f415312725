#!/usr/bin/env bash
# Runs the tests; arguments go to pytest, such as ./run_tests.sh -k config. Nothing is downloaded but missing packages.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
export LATENTSYNC_DOWNLOAD=0
source ./setup_env.sh
exec python -m pytest "$@"
