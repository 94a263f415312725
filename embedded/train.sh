#!/usr/bin/env bash
# Makes the model in assets/embedded: renders people, cuts recorded ones, trains small networks on both, evaluates, packs.
#   embedded/train.sh PEOPLE_DIR [WORK_DIR]      (default outputs/embedded)
# PEOPLE_DIR holds recorded people, a folder a person, as the GRID corpus does (s1, s2, ...). Run the same command again to resume, also within
# a step. It takes about a day on two CPU cores; on a GPU each training takes minutes, but rendering runs on the CPU. Each command has a --help.
set -euo pipefail
case "${1:--h}" in -*)
    sed -n "2,5p" "${BASH_SOURCE[0]}" | cut -c3-
    exit
    ;;
esac
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
people="$(realpath -- "$1")" work="$(realpath -m -- "${2:-$here/outputs/embedded}")"
held_out=" s20 s22 s25 s27 s32 s33 s34 " # people that nothing is trained on
export LATENTSYNC_DOWNLOAD=0
bash "$here/setup_env.sh" --with-speech >/dev/null
source "$here/setup_env.sh"
export PYTHONSAFEPATH=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
configs="$here/embedded/configs" recorded="$work/recorded" singles="$work/singles" pairs="$work/pairs" unseen="$work/unseen"

say() { echo "embedded/train.sh: $*" >&2; }

render() { # FOLDER SPLIT SEED NUMBER [--pairs]: clips of 3 s with aligned faces of 128 pixels
    say "rendering $4 people into $1"
    python -m embedded.talking_heads aligned --output_dir "$1" --split "$2" --seed "$3" --number "$4" --seconds 3 --resolution 128 "${@:5}"
}

newest() { # FOLDER: the last checkpoint of a training
    find "$1/checkpoints" -name 'checkpoint-*.pt' | sort | tail -n 1
}

keep() { # FOLDER FILE: the last checkpoint of a training under a name of its own
    cp -- "$(newest "$1")" "$2.part" && mv -- "$2.part" "$2"
}

list() { # FOLDER FILE: its clips, one a line
    find "$1" -name '*.mp4' | sort >"$2.part" && mv -- "$2.part" "$2"
}

link_people() { # the clips of recorded people into "$recorded": train and validation
    local clip name
    while read -r clip; do
        name="${clip#"$work/people/affine_transformed/"}"
        case "$held_out" in *" ${name%%/*} "*) name="validation/$name" ;; *) name="train/plain/$name" ;; esac
        mkdir -p "$(dirname -- "$recorded/$name")"
        ln -sf -- "$clip" "$recorded/$name"
    done < <(find "$work/people/affine_transformed" -name '*.mp4')
}

say "cutting recorded people"
"$here/data_processing_pipeline.sh" --input_dir "$people" --output_dir "$work/people" --min_seconds 2.5 --max_seconds 6 --resolution 128 \
    --skip high_resolution,av_sync,visual_quality
link_people
python -m embedded.augment --clips "$recorded/train/plain" --output_dir "$recorded/train/varied"

render "$singles" train 1 320
render "$singles" train 2 384
render "$pairs" train 3 360 --pairs
render "$pairs" train 5 320 --pairs
render "$unseen" validation 1 40
render "$work/unseen pairs" validation 4 32 --pairs

say "autoencoder: rendered people, everything alike; then pixels of the mouth count five times; then recorded people, too"
list "$pairs" "$work/pairs.txt"
python -m embedded.autoencoder data.train_data_dir="$singles" data.val_data_dir="$unseen" data.train_output_dir="$work/autoencoder"
python -m embedded.autoencoder data.train_data_dir="$singles" data.val_data_dir="$unseen" data.train_output_dir="$work/autoencoder_mouths" \
    ckpt.resume_ckpt_path="$(newest "$work/autoencoder")" data.mouth_weight=5 data.general_share=0.1 \
    run.max_train_steps=4000 run.discriminator_start=2800 optimizer.lr=1.5e-3
both=(data.train_data_dir="$recorded/train" data.train_fileslist="$work/pairs.txt" data.val_data_dir="$recorded/validation" data.cache_faces=true)
python -m embedded.autoencoder "${both[@]}" data.train_output_dir="$work/autoencoder_people" ckpt.resume_ckpt_path="$(newest "$work/autoencoder_mouths")" \
    data.crop=96 data.num_frames=3 data.mouth_weight=4 data.general_share=0.06 run.max_train_steps=1200 run.discriminator_start=300 optimizer.lr=1e-3 \
    run.loss_weights.perceptual=0.15 run.loss_weights.adversarial=0.03 run.loss_weights.discriminator=0.03
python -m embedded.autoencoder --export "$(newest "$work/autoencoder_people")" "$work/vae_plain" --clips "$recorded/train"
say "autoencoder: a decoder that is shown the picture around the mouth; the latents stay"
python -m embedded.autoencoder "${both[@]}" data.train_output_dir="$work/decoder" ckpt.resume_ckpt_path="$work/vae_plain/diffusion_pytorch_model.safetensors" \
    data.crop=96 data.num_frames=3 data.mouth_weight=4 data.general_share=0 data.masked_share=0 run.decoder_only=true run.latent_noise=0.03 \
    run.max_train_steps=2000 optimizer.lr=5e-4 run.loss_weights.{perceptual=0.3,texture=3,kl=0,adversarial=0,features=0,discriminator=0}
python -m embedded.autoencoder --export "$(newest "$work/decoder")" "$work/vae" --clips "$recorded/train"

say "landmark network for the losses"
python -m embedded.landmarks data.train_data_dir="$singles" data.val_data_dir="$unseen" data.train_output_dir="$work/landmarks"
keep "$work/landmarks" "$work/landmarks.pt"

say "SyncNets: one for training, one for evaluation"
for seed in 1 2; do # first mouth channels from both encoders, then synchronisation too
    shared=(--config_path "$configs/syncnet.yaml" data.train_data_dir="$singles" data.train_fileslist="$work/pairs.txt" data.val_data_dir="$unseen" run.seed="$seed")
    "$here/train_syncnet.sh" "${shared[@]}" data.train_output_dir="$work/syncnet_${seed}_mouth" run.max_train_steps=1500 optimizer.lr=1.5e-3 \
        run.loss_weights.sync=0 run.loss_weights.infonce=0
    "$here/train_syncnet.sh" "${shared[@]}" data.train_output_dir="$work/syncnet_$seed" ckpt.resume_ckpt_path="$(newest "$work/syncnet_${seed}_mouth")"
    keep "$work/syncnet_$seed" "$work/syncnet_$seed.pt"
done

say "denoiser, first stage"
shared=(data.train_data_dir="$pairs" data.val_data_dir="$work/unseen pairs" data.cache_dir="$work/cache" weights.vae="$work/vae")
"$here/train_unet.sh" --unet_config_path "$configs/unet_stage1.yaml" "${shared[@]}" data.train_output_dir="$work/unet_stage1"
keep "$work/unet_stage1" "$work/unet_stage1.pt"
say "denoiser, second stage"
"$here/train_unet.sh" --unet_config_path "$configs/unet.yaml" "${shared[@]}" data.train_output_dir="$work/unet" weights.syncnet="$work/syncnet_1.pt" \
    weights.landmark_network="$work/landmarks.pt" ckpt.resume_ckpt_path="$work/unet_stage1.pt"
keep "$work/unet" "$work/unet_rendered.pt"
say "denoiser, third stage: recorded people, too, without loss networks"
"$here/train_unet.sh" --unet_config_path "$configs/unet.yaml" "${both[@]}" data.cache_dir="$work/cache" weights.vae="$work/vae" \
    data.train_output_dir="$work/unet_people" ckpt.resume_ckpt_path="$work/unet_rendered.pt" data.num_frames=8 data.batch_size=6 data.cache_faces=false \
    run.loss_weights.{sync,sync_source,landmark_feature,temporal_feature,landmarks}=0 optimizer.lr_warmup_steps=100
keep "$work/unet_people" "$work/unet.pt"
say "denoiser, last stage: its guided steps become a single one"
python -m embedded.distill data.train_data_dir="$recorded/train" data.train_fileslist="$work/pairs.txt" data.val_data_dir="$recorded/validation" \
    data.cache_dir="$work/cache" weights.vae="$work/vae" data.train_output_dir="$work/unet_distilled" ckpt.resume_ckpt_path="$work/unet.pt"
keep "$work/unet_distilled" "$work/unet_distilled.pt"

say "packing"
python -m embedded.pack --unet "$work/unet_distilled.pt" --unet_config "$configs/unet_distilled.yaml" --vae "$work/vae" \
    --syncnet "$work/syncnet_1.pt" --syncnet_config "$configs/syncnet.yaml"

say "measuring"
python -m embedded.talking_heads clips --output_dir "$work/test" --split test --pairs --number 24 --seconds 3 --size 384 --seed 9
python -m embedded.evaluate --clips "$work/test" --output_dir "$work/measured" --syncnet_config "$configs/syncnet.yaml" --syncnet "$work/syncnet_1.pt" \
    --second_syncnet_config "$configs/syncnet.yaml" --second_syncnet "$work/syncnet_2.pt"
