"""Training of the U-Net: noise, the table of losses, one step, and everything that a training is built of."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.config import Config, UNetRunConfig
from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR
from latentsync.data.features import Features, LatentStore, Mels
from latentsync.data.sampling import UNET_LENGTHS, UNetBatch, sample_generator
from latentsync.data.unet_dataset import UNetDataset
from latentsync.diffusion import Conditions, Denoiser, make_scheduler, mixed_noise, one_step_x0, unet_input
from latentsync.errors import ConfigError
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, mouth_weights, to_pixels
from latentsync.losses.landmarks import load_landmark_loss
from latentsync.losses.lips import load_lip_loss
from latentsync.losses.lpips import load_lpips
from latentsync.losses.sync import SyncLoss, load_sync_loss
from latentsync.losses.trepa import load_trepa
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import start_from_stable_diffusion
from latentsync.models.vae import LatentCodec, sample_latents
from latentsync.third_party.face_mesh import FACE_MESH
from latentsync.training.logging import History
from latentsync.training.trainer import (
    BatchValidator,
    TrainingTask,
    ValidationSum,
    cache_folder,
    default_weights,
    half_precision,
    held_out_batches,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.weights import WEIGHTS, WHISPER_BY_WIDTH

logger = logging.getLogger(__name__)

WAVE_SIDES = (1, 2, 4)  # values on a side of each wave of low-frequency noise
NOISY_PART = 4  # the noisy timesteps are the last of so many equal parts
ENCODED = 3  # pictures of each frame that become latents: target, masked target, reference
RECON = "recon"  # the loss of the noise itself; all others are those of LOSS_NETWORKS


@dataclass(frozen=True)
class NoiseSamples:
    """Everything random in a step."""

    timestep: Tensor  # int64 b, 0..999
    noise: Tensor  # float32 b 4 f h/8 w/8: what is added to the target's latents and is to be predicted
    posterior: Tensor  # float32 b f 3 4 h/8 w/8: what the latents of target, masked target and reference are sampled with

    def to(self, device: torch.device) -> "NoiseSamples":
        return NoiseSamples(*(value.to(device, non_blocking=True) for value in (self.timestep, self.noise, self.posterior)))


def sample_noise(run: UNetRunConfig, positions: Sequence[int], frames: int, size: int, timesteps: int) -> NoiseSamples:
    """Timesteps and noise of samples, on the CPU, each from (run.seed, position) alone; `size` counts latent cells a side."""
    samples = []
    for position in positions:
        generator = sample_generator(run.seed, position)
        timestep = torch.randint(timesteps, (1,), generator=generator)
        if run.timestep_bias and float(torch.rand(1, generator=generator)) < run.timestep_bias:
            timestep = timesteps - 1 - timestep // NOISY_PART
        shared = torch.randn((1, LATENT_CHANNELS, 1, size, size), generator=generator)
        independent = torch.randn((1, LATENT_CHANNELS, frames, size, size), generator=generator)
        noise = mixed_noise(shared, independent, run.mixed_noise_alpha) if run.use_mixed_noise else shared.expand_as(independent)
        posterior = torch.randn((1, frames, ENCODED, LATENT_CHANNELS, size, size), generator=generator)
        if run.low_frequency_noise:
            noise = noise + run.low_frequency_noise * low_frequency_noise(generator, size)
        samples.append((timestep, noise, posterior))
    return NoiseSamples(*(torch.cat(parts) for parts in zip(*samples, strict=True)))


def low_frequency_noise(generator: torch.Generator, size: int) -> Tensor:
    """Normal noise of 1, 2 x 2 and 4 x 4 values, stretched to a frame and added up: 1 4 1 h w.

    Even at the noisiest step a little of the picture is left in its lowest frequencies, for there is less noise in those than in single
    cells. A denoiser learns to read colour and light off them, and inference, which begins with nothing but noise, gives it a wrong colour
    to read (Lin et al. 2023, arXiv 2305.08891). With this on top there is nothing to be read, and it has to use the reference.
    """
    waves = [torch.randn((1, LATENT_CHANNELS, side, side), generator=generator) for side in WAVE_SIDES]
    return torch.stack([F.interpolate(wave, size=(size, size), mode="bilinear") for wave in waves]).sum(0)[:, :, None]


class GeneratedClip:
    """What one prediction of the noise implies: latents b f 4 h/8 w/8 in float32, decoded when a loss first asks for pixels."""

    def __init__(self, codec: LatentCodec, latents: Tensor) -> None:
        self.codec, self.latents = codec, latents

    @cached_property
    def pixels(self) -> Tensor:
        """b f 3 h w in [-1, 1], float32."""
        return decode_slices(self.codec, self.latents.flatten(0, 1)).unflatten(0, self.latents.shape[:2])


def decode_slices(codec: LatentCodec, latents: Tensor) -> Tensor:
    """Latents n 4 h w -> pixels n 3 8h 8w, float32, by slices of the codec that are decoded again on the way back, to save memory."""
    parts = latents.to(codec.dtype).split(codec.slice_size or len(latents))
    decoded = [checkpoint(codec.decode, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(decoded).float()


def sync_losses(network: SyncLoss, generated: GeneratedClip, batch: UNetBatch) -> dict[str, Tensor]:
    """How badly the mouth fits its sound (`sync`), how well the source's (`sync_source`); samples with dropped audio do not count."""
    with_audio = batch.audio.flatten(1).any(1).float()  # b
    frames = generated.latents if network.latent_space else generated.pixels
    misfit, source_fit = network(frames, batch.mel, batch.source_mel)
    losses = {"sync": masked_mean(misfit, with_audio)}
    if source_fit is not None:
        losses["sync_source"] = masked_mean(source_fit, with_audio * batch.source_mel.flatten(1).any(1))
    return losses


def masked_mean(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of losses b over the samples that count (b, 0 or 1); 0 where none does."""
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def build_sync(config: Config, path: Path, dtype: torch.dtype) -> SyncLoss:
    """SyncNet for the sync losses. Raises ConfigError or InputError where it does not fit the clips."""
    if config.data.syncnet_config_path is None:
        raise ConfigError("run.loss_weights.sync has a weight, but data.syncnet_config_path names no SyncNet: name its YAML file.")
    if config.run.loss_weights.get("sync_source", 0) > 0 and not config.data.counterfactual_pairs:
        raise ConfigError(
            "run.loss_weights.sync_source compares with the sound of the source, and without data.counterfactual_pairs the source is the "
            "target: set data.counterfactual_pairs=true and train on pairs of clips, or run.loss_weights.sync_source=0."
        )
    sync = load_sync_loss(config.data.syncnet_config_path, path)
    sync.check(config.data.num_frames, config.data.resolution)
    return sync


@dataclass(frozen=True)
class LossNetwork:
    """Losses, and the frozen network that they are computed with."""

    losses: tuple[str, ...]  # keys of `run.loss_weights`
    # Configuration, file of the weights, precision of frozen networks -> network on the CPU; None: the losses need no network.
    build: Callable[[Config, Path, torch.dtype], nn.Module] | None
    compute: Callable[[Any, GeneratedClip, UNetBatch], dict[str, Tensor]]  # network, generated clips, batch -> losses by name, scalars
    compares_faces: bool = True  # whether the losses use `batch.faces`, the target's


# Key of the network's file in `weights` (any other name where `build` is None, or in `SHIPPED`) -> its losses. A new loss is an entry here
# and its default weight in `UNetRunConfig.loss_weights` (latentsync/config.py); a network also needs a key in `WeightsConfig` there.
LOSS_NETWORKS = {
    "syncnet": LossNetwork(("sync", "sync_source"), build_sync, sync_losses, compares_faces=False),
    "vgg16": LossNetwork(
        ("lpips",),
        lambda config, path, dtype: load_lpips(path, config.run.vae_slice_size or None),
        lambda network, generated, batch: {"lpips": network(generated.pixels, to_pixels(batch.faces))},
    ),
    "videomae": LossNetwork(
        ("trepa",),
        lambda config, path, dtype: load_trepa(config.videomae, path, dtype, config.run.enable_gradient_checkpointing),
        lambda network, generated, batch: {"trepa": network(generated.pixels, to_pixels(batch.faces))},
    ),
    "landmark_network": LossNetwork(
        ("landmark_feature", "temporal_feature", "landmarks"),
        lambda config, path, dtype: load_landmark_loss(path, config.run.vae_slice_size or None),
        lambda network, generated, batch: network(generated.pixels, to_pixels(batch.faces))._asdict(),
    ),
    "face_mesh": LossNetwork(
        ("lips",),
        lambda config, path, dtype: load_lip_loss(path, config.run.vae_slice_size or None),
        lambda network, generated, batch: {"lips": network(generated.pixels, to_pixels(batch.faces))},
    ),
}
SHIPPED = {"face_mesh": FACE_MESH}  # networks whose weights come with the project
LOSSES = (RECON, *(name for entry in LOSS_NETWORKS.values() for name in entry.losses))


class UNetStep:
    """One call of the denoiser and its losses; noise, schedule and losses in float32, frozen networks in the type of their weights."""

    def __init__(self, codec: LatentCodec, mask: Tensor, run: UNetRunConfig, networks: Mapping[str, nn.Module]) -> None:
        """The mask is h w at the clips' resolution, 1 = keep; `networks` are those of `LOSS_NETWORKS` whose losses have a weight."""
        self.codec, self.mask, self.run = codec.eval().requires_grad_(False), mask, run
        self.networks, self.wanted = dict(networks), {name for name, weight in run.loss_weights.items() if weight > 0}
        self.cell_weights = mouth_weights(mask.shape[-1] // VAE_FACTOR, run.mouth_weight).to(mask.device)
        self.scheduler = make_scheduler()

    def __call__(self, unet: Denoiser, batch: UNetBatch) -> dict[str, Tensor]:
        """Loss -> its scalar, for each loss of weight above 0; the batch lies on the denoiser's device."""
        frames, size = batch.audio.shape[1], self.mask.shape[-1] // VAE_FACTOR
        timesteps = self.scheduler.config.num_train_timesteps
        samples = sample_noise(self.run, batch.position.tolist(), frames, size, timesteps)
        return self.losses(unet, batch, samples.to(batch.audio.device))

    def losses(self, unet: Denoiser, batch: UNetBatch, samples: NoiseSamples) -> dict[str, Tensor]:
        """The same with the noise given: nothing in here is random."""
        device = batch.audio.device.type
        with torch.autocast(device, enabled=False), torch.no_grad():
            target, conditions = self.encode(batch, samples.posterior)
            noisy = self.scheduler.add_noise(target, samples.noise, samples.timestep)
        epsilon = unet(unet_input(noisy, conditions), samples.timestep, batch.audio)
        with torch.autocast(device, enabled=False):
            alphas_cumprod = self.scheduler.alphas_cumprod.to(epsilon.device)[samples.timestep]
            errors = (F.mse_loss(epsilon.float(), samples.noise, reduction="none") * self.cell_weights).flatten(1).mean(1)  # b
            found = {RECON: (errors * x0_weights(alphas_cumprod, self.run.x0_weighting)).mean()}
            generated = GeneratedClip(self.codec, one_step_x0(noisy, epsilon.float(), alphas_cumprod).transpose(1, 2))
            for name, network in self.networks.items():
                found |= LOSS_NETWORKS[name].compute(network, generated, batch)
        return {name: found[name] for name in LOSSES if name in self.wanted}

    def encode(self, batch: UNetBatch, noise: Tensor) -> tuple[Tensor, Conditions]:
        """Latents of the target, b 4 f h/8 w/8, and its conditions, float32; `noise`: see `NoiseSamples.posterior`."""
        if batch.moments is not None:
            latents = sample_latents(batch.moments, noise)
        else:
            pixels, reference = to_pixels(batch.faces), to_pixels(batch.reference)  # b f 3 h w
            source = pixels if batch.source is None else to_pixels(batch.source)
            pictures = torch.stack([pixels, masked_pixels(source, self.mask), reference], dim=2).to(self.codec.dtype)
            latents = sample_latents(self.codec.moments(pictures.flatten(0, 2)).unflatten(0, noise.shape[:3]), noise)
        target, masked, reference = latents.permute(2, 0, 3, 1, 4, 5)  # each b 4 f h/8 w/8
        mask = latent_mask(self.mask).to(target).expand_as(target[:, :1])
        return target, Conditions(mask, masked, reference if self.run.use_reference else torch.zeros_like(reference))


def x0_weights(alphas_cumprod: Tensor, largest: float) -> Tensor:
    """How much each sample's noise counts: the weight that makes its error one of the latents, kept between 1 and `largest`; b -> b.

    The error of the noise is alpha / (1 - alpha) times the error of the latents that it implies, so that the noisy steps, which settle
    the shape of the mouth, hardly count (the other way round than in Hang et al., arXiv 2303.09556, who count clean steps less).
    """
    return ((1 - alphas_cumprod) / alphas_cumprod).clamp(1.0, largest)


class UNetValidator(BatchValidator):
    """The losses on fixed held-out clips, each with the noise it had at the validation before."""

    def measure(self, model: nn.Module, batch: UNetBatch) -> dict[str, ValidationSum]:
        count = len(batch.clip)
        return {name: ValidationSum(float(loss) * count, count) for name, loss in self.step(model, batch).items()}


def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {name: value.contiguous() for name, value in weights.items()}}


def build_unet(config: Config, codec: LatentCodec, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that the denoiser's training needs but the validation video. Raises InputError, ConfigError, WeightsError."""
    data, run, cache = config.data, config.run, cache_folder(config.data)
    train, held_out = open_catalogs(data, UNET_LENGTHS * data.num_frames, accelerator, show_progress, data.resolution)
    mask = fixed_mask(data.resolution, data.mask).to(accelerator.device)
    latents = LatentStore(cache, data.resolution, data.mask) if data.cache_latents else None
    comparing = {name for entry in LOSS_NETWORKS.values() if entry.compares_faces for name in entry.losses}
    dataset = partial(
        UNetDataset,
        mels=Mels(cache),
        features=load_features(config, cache),
        num_frames=data.num_frames,
        resolution=data.resolution,
        seed=run.seed,
        latents=latents,
        counterfactual_pairs=data.counterfactual_pairs,
        single_reference=data.single_reference,
        with_faces=any(weight > 0 for name, weight in run.loss_weights.items() if name in comparing),
        faces_cache=cache if data.cache_faces else None,
    )
    seed_everything(run, accelerator)
    unet = start_unet(config)
    trained = freeze(unet, run.trainable_modules)
    unet.enable_gradient_checkpointing(run.enable_gradient_checkpointing)
    logger.info("Training %.1f of %.1f million parameters", trained / 1e6, sum(value.numel() for value in unet.parameters()) / 1e6)
    step = UNetStep(codec, mask, run, load_loss_networks(config, accelerator))
    validators = [] if held_out is None else [UNetValidator(held_out_batches(dataset(held_out), config, accelerator), step)]

    def fill_latents() -> None:
        rank, world = accelerator.process_index, accelerator.num_processes
        for catalog in (train, held_out):
            if latents is not None and catalog is not None:
                latents.fill(codec, catalog, mask, rank, world, show_progress=show_progress)
        accelerator.wait_for_everyone()

    return TrainingTask(
        model=unet,
        step=step,
        dataset=dataset(train, audio_dropout=data.audio_dropout),
        publish=publish,
        validators=validators,
        prepare=fill_latents,
    )


def load_features(config: Config, cache: Path) -> Features:
    """The audio features. Raises ConfigError where the encoder is missing or of another width than the denoiser's audio tokens."""
    path, width = whisper_weights(config), config.model.cross_attention_dim
    features = Features(cache, path, tuple(config.data.audio_feat_length), config.data.audio_feat_limit)
    if features.width != width:
        raise ConfigError(
            f"{path} gives audio tokens {features.width} wide and model.cross_attention_dim is {width}: name another file in "
            "weights.whisper, or change the width."
        )
    return features


def whisper_weights(config: Config) -> Path:
    """The audio encoder's file or folder. Raises ConfigError where it is missing or none is known for the width of the audio tokens."""
    width = config.model.cross_attention_dim
    if config.weights.whisper is None and width not in WHISPER_BY_WIDTH:
        raise ConfigError(f"No published audio encoder is {width} wide (model.cross_attention_dim): name your own with weights.whisper.")
    path = config.weights.whisper or default_weights(WHISPER_BY_WIDTH[width])
    if not path.exists():
        raise ConfigError(f"The audio encoder {path} is missing: run `python -m scripts.download_weights`, or set weights.whisper.")
    return path


def start_unet(config: Config) -> UNet3DConditionModel:
    """The denoiser that training starts from: fresh, or with what a file has for it. Raises WeightsError, ConfigError."""
    if config.ckpt.resume_ckpt_path is None and config.run.trainable_modules:
        raise ConfigError(
            "run.trainable_modules leaves the rest of a network untrained that starts from nothing: name a checkpoint to start from in "
            "ckpt.resume_ckpt_path, such as one of stage 1, or set run.trainable_modules=[]."
        )
    start = start_weights(config.ckpt, config.data)
    if start is None:
        if config.ckpt.resume_ckpt_path is None:
            logger.info("Training starts from nothing: ckpt.resume_ckpt_path names no weights")
        unet = UNet3DConditionModel(config.model)
        nn.init.kaiming_uniform_(unet.conv_in.weight, a=5**0.5)  # at zero, as published networks start, nothing would be seen at first
    else:
        unet, report = start_from_stable_diffusion(config.model, start)
        logger.info("Training starts from %s: %s", start, report)
    return unet.to(memory_format=torch.channels_last)


def freeze(model: nn.Module, trainable: Sequence[str]) -> int:
    """Train parameters whose name contains one of `trainable` (all, where it is empty); their number. Raises ConfigError."""
    for part in trainable:
        if not any(part in name for name, _ in model.named_parameters()):
            raise ConfigError(f"run.trainable_modules holds '{part}', which is in no parameter's name: see the names in the checkpoint.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not trainable or any(part in name for part in trainable))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def load_loss_networks(config: Config, accelerator: Accelerator) -> dict[str, nn.Module]:
    """Those of `LOSS_NETWORKS` whose losses have a weight, on the device. Raises ConfigError, WeightsError where one cannot be had."""
    networks: dict[str, nn.Module] = {}
    for name, entry in LOSS_NETWORKS.items():
        wanted = [loss for loss in entry.losses if config.run.loss_weights.get(loss, 0) > 0]
        if not wanted:
            continue
        if entry.build is None:
            networks[name] = nn.Identity()
            continue
        path = SHIPPED.get(name) or getattr(config.weights, name) or (default_weights(name) if name in WEIGHTS else None)
        if path is None:
            raise ConfigError(f"run.loss_weights.{wanted[0]} has a weight, but weights.{name} names no file: train one first.")
        if not path.is_file():
            raise ConfigError(
                f"The loss '{wanted[0]}' needs {path}, which is missing: run `python -m scripts.download_weights --training`, name another "
                f"file with weights.{name}, or set run.loss_weights.{wanted[0]}=0."
            )
        networks[name] = entry.build(config, path, half_precision(accelerator)).to(accelerator.device)
    return networks
