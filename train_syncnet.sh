#!/usr/bin/env bash
# Train the SyncNet; ./train_syncnet.sh --help lists the options. Relative paths count from where you stand.
# On several GPUs: NUM_PROCESSES=8 ./train_syncnet.sh ...; docs/training.md shows accelerate's own command for many machines.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
export LATENTSYNC_DOWNLOAD="${LATENTSYNC_DOWNLOAD:-0}"
"$here/setup_env.sh" --with-training >/dev/null
source "$here/setup_env.sh"
export PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
if [[ "${NUM_PROCESSES:-1}" == 1 ]]; then exec python -m scripts.train_syncnet "$@"; fi
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-3600}" # seconds to finish a step, a validation, a save
exec python -m torch.distributed.run --standalone --nproc_per_node "$NUM_PROCESSES" -m scripts.train_syncnet "$@"
