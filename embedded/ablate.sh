#!/usr/bin/env bash
# What each part of the embedded model's training is worth: its second stage, shortened, with one part left out at a time, all measured alike.
#   embedded/ablate.sh [WORK_DIR [STEPS [CLIPS [VARIANT...]]]]      (default outputs/embedded, 150 steps, 8 clips, all variants)
# The variant latent_sync has to be named, and wants a SyncNet of embedded/configs/syncnet_latent.yaml in WORK_DIR/syncnet_latent.pt.
# WORK_DIR is that of embedded/train.sh after its first stage. The same command goes on where it stopped; finished tables stay.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
case "${1:-}" in -h | --help)
    sed -n '2,5s/^# *//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
work="$(realpath -m -- "${1:-$here/outputs/embedded}")" steps="${2:-150}" clips="${3:-8}"
export LATENTSYNC_DOWNLOAD=0
source "$here/setup_env.sh"
export PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
configs="$here/embedded/configs" out="$work/ablation"
variants=("${@:4}")
[ ${#variants[@]} -gt 0 ] || variants=(everything no_sync no_sync_source no_landmark_network no_temporal no_reference)

left_out() { # VARIANT: the settings that leave it out, one a line
    case "$1" in
        everything) ;;
        no_sync) printf "%s\n" run.loss_weights.sync=0 run.loss_weights.sync_source=0 ;;
        no_sync_source) printf "%s\n" run.loss_weights.sync_source=0 ;;
        latent_sync) printf "%s\n" data.syncnet_config_path="$configs/syncnet_latent.yaml" weights.syncnet="$work/syncnet_latent.pt" ;;
        no_landmark_network | no_reader) printf "%s\n" run.loss_weights.landmark_feature=0 run.loss_weights.temporal_feature=0 run.loss_weights.landmarks=0 ;;
        no_temporal) printf "%s\n" model.use_motion_module=false ;;
        no_reference) printf "%s\n" run.use_reference=false ;;
        *)
            echo "embedded/ablate.sh: there is no variant '$1'" >&2
            exit 2
            ;;
    esac
}

for variant in "${variants[@]}"; do left_out "$variant" >/dev/null; done
for variant in "${variants[@]}"; do
    [ ! -f "$out/$variant/results.md" ] || continue
    mapfile -t settings < <(left_out "$variant")
    echo "embedded/ablate.sh: $variant" >&2
    "$here/train_unet.sh" --unet_config_path "$configs/unet.yaml" data.train_data_dir="$work/pairs" \
        data.val_data_dir="$work/unseen pairs" data.cache_dir="$work/cache" weights.vae="$work/vae" \
        weights.syncnet="$work/syncnet_1.pt" weights.landmark_network="$work/landmarks.pt" \
        ckpt.resume_ckpt_path="$work/unet_stage1.pt" data.train_output_dir="$out/$variant/training" run.max_train_steps="$steps" \
        run.validation_steps="$steps" optimizer.lr_warmup_steps=20 "${settings[@]}"
    checkpoint="$(find "$out/$variant/training/checkpoints" -name 'checkpoint-*.pt' | sort | tail -n 1)"
    python -m embedded.evaluate --clips "$work/test" --output_dir "$out/$variant" --limit "$clips" --silent_clips 0 \
        --unet_config_path "$configs/unet.yaml" --inference_ckpt_path "$checkpoint" --vae_path "$work/vae" \
        --syncnet_config "$configs/syncnet.yaml" --syncnet "$work/syncnet_1.pt" --second_syncnet_config "$configs/syncnet.yaml" \
        --second_syncnet "$work/syncnet_2.pt" "${settings[@]}" >/dev/null
done
echo "The tables are $out/*/results.md"
