"""SyncNet's configuration to what its training needs; and a trained SyncNet to a judge of others."""

import logging
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from latentsync.constants import LATENT_CHANNELS, RGB, VAE_FACTOR
from latentsync.data.catalog import Catalog
from latentsync.data.clips import SYNCNET_LENGTHS
from latentsync.data.loader import fixed_batches
from latentsync.data.mouth import read_mouth
from latentsync.data.sound import Mels
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import ConfigError, InputError, first_line
from latentsync.losses.sync import SyncJudge, syncnet_frames
from latentsync.models.syncnet_choice import load_syncnet, make_syncnet
from latentsync.models.vae import LatentCodec, load_vae
from latentsync.spectrogram import BANDS, window_length
from latentsync.training.build import (
    cache_folder,
    clip_namer,
    default_weights,
    half_precision,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.training.parts import Parts
from latentsync.training.syncnet_step import MOUTH, ChanceWatch, SyncNetStep, SyncNetTrainee, SyncNetValidator, publish
from latentsync.training_config import SyncNetConfig
from latentsync.weights import load_strict, read_state_dict

logger = logging.getLogger(__name__)

SCALE_CLIPS = 64  # clips whose mouths say how much each channel varies
LEAST_SCALE = 1e-2  # channels that hardly move are not blown up
VAE_SLICE = 64  # faces that go through the autoencoder at once


def build_syncnet(config: SyncNetConfig, accelerator: Accelerator, show_progress: bool = True) -> Parts:
    """Everything that SyncNet's training needs.

    Raises:
        InputError, ConfigError, WeightsError: clips or weights cannot be used, in one sentence.
    """
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, SYNCNET_LENGTHS * data.num_frames, accelerator, show_progress, data.resolution)
    mels = Mels(cache_folder(data))
    faces = cache_folder(data) if data.cache_faces else None
    with_mouth = run.loss_weights.get(MOUTH, 0) > 0

    def dataset(catalog: Catalog, with_mouth: bool = False) -> SyncNetDataset:
        return SyncNetDataset(
            catalog, mels, num_frames=data.num_frames, resolution=data.resolution, seed=run.seed, with_mouth=with_mouth, faces_cache=faces
        )

    training_set = dataset(train, with_mouth)
    seed_everything(run, accelerator)
    scale = mouth_scale(train) if with_mouth else None
    check_sizes(config)
    network = make_syncnet(config.model)
    trainee = SyncNetTrainee(network, scale, data.num_frames)
    if (start := start_weights(config.ckpt, data)) is not None:
        load_strict(network, read_state_dict(start)[0], start, _HINT)
    codec = load_codec(config, accelerator) if data.latent_space else None
    step = SyncNetStep(run.loss_weights, lower_half=data.lower_half, codec=codec, seed=run.seed)
    validators = []
    if held_out is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
        batches = fixed_batches(dataset(held_out), run.num_val_clips, data.batch_size, rank, world, data.num_workers)
        validators.append(SyncNetValidator(step, batches))
    batch = data.batch_size * run.gradient_accumulation_steps * accelerator.num_processes
    return Parts(
        model=trainee,
        step=step,
        dataset=training_set,
        num_clips=len(train.clips),
        publish=publish,
        clip_name=clip_namer(train),
        validators=validators,
        publishes_curves=True,
        watches=[ChanceWatch(run.chance_steps, batch, len(train.clips))],
    )


_HINT = "name the configuration that it was trained with"


def check_sizes(config: SyncNetConfig) -> None:
    """Try the network out, without weights and without computing, on what the data are going to be; ConfigError where they do not fit."""
    data = config.data
    side, channels = (data.resolution // VAE_FACTOR, LATENT_CHANNELS) if data.latent_space else (data.resolution, RGB)
    frames = torch.empty(2, data.num_frames, channels, side, side, device="meta")
    mel = torch.empty(2, 1, BANDS, window_length(data.num_frames), device="meta")
    try:
        with torch.device("meta"):
            make_syncnet(config.model)(syncnet_frames(frames, data.lower_half), mel)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"SyncNet's blocks (model) do not fit {data.num_frames} faces of {data.resolution} pixels: {first_line(error)}; change "
            "data.resolution, data.num_frames or the factors."
        ) from None


def load_judge(config_path: Path, weights: Path, accelerator: Accelerator) -> SyncJudge:
    """A trained SyncNet as a judge, on the training's device.

    Raises ConfigError or WeightsError where configuration and weights do not belong together or cannot be read.
    """
    config, network = load_syncnet(config_path, weights)
    data = config.data
    judge = SyncJudge(
        network, resolution=data.resolution, num_frames=data.num_frames, latent_space=data.latent_space, lower_half=data.lower_half
    )
    return judge.to(accelerator.device)


def load_codec(config: SyncNetConfig, accelerator: Accelerator) -> LatentCodec:
    """The autoencoder for a SyncNet that looks at latents."""
    codec = load_vae(config.weights.vae or default_weights("vae").parent, half_precision(accelerator)).to(accelerator.device)
    codec.slice_size = VAE_SLICE
    return codec


def mouth_scale(catalog: Catalog) -> torch.Tensor:
    """Mean and standard deviation of each mouth channel over the first clips: 2 k. Raises InputError."""
    tables = [read_mouth(clip.path) for clip in catalog.clips[:SCALE_CLIPS]]
    if len({table.shape[1] for table in tables}) > 1:
        raise InputError("The clips tell different numbers of mouth channels: render them again with one version of the talking heads")
    values = np.concatenate(tables)
    return torch.from_numpy(np.stack([values.mean(0), values.std(0).clip(LEAST_SCALE)])).float()
