#!/usr/bin/env bash
# Lip sync one video to one recording; ./inference.sh --help lists the options. Relative paths count from where you stand.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$here/setup_env.sh"
PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec python -m scripts.inference "$@"
