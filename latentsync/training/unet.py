"""Training of the U-Net: noise sampling, one step and its losses, what is built."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.config import Config
from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR
from latentsync.data.clip_index import Catalog
from latentsync.data.features import Features, LatentStore, Mels
from latentsync.data.sampling import UNET_LENGTHS, UNetBatch, fixed_batches, sample_generator
from latentsync.data.unet_dataset import UNetDataset
from latentsync.diffusion import Conditions, Denoiser, make_scheduler, mixed_noise, one_step_x0, unet_input
from latentsync.errors import ConfigError
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, mouth_weights, to_pixels
from latentsync.losses.landmarks import LandmarkLoss
from latentsync.losses.lpips import LowerHalfLPIPS, load_lpips
from latentsync.losses.sync import SyncJudge
from latentsync.losses.trepa import TREPALoss
from latentsync.models.landmark_network import load_mouth_reader
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import start_from_stable_diffusion
from latentsync.models.vae import LatentCodec, load_vae, sample_latents
from latentsync.third_party.videomae import load_videomae
from latentsync.training.logging import History
from latentsync.training.syncnet import load_judge
from latentsync.training.trainer import (
    Problems,
    TrainingTask,
    ValidationSum,
    Validator,
    cache_folder,
    clip_namer,
    default_weights,
    freeze,
    half_precision,
    open_catalogs,
    seed_everything,
    start_weights,
    whisper_weights,
)

logger = logging.getLogger(__name__)

COARSE_SIDES = (1, 2, 4)  # values on a side of each wave of coarse noise
NOISY_PART = 4  # the noisy timesteps are the last of so many equal parts
ENCODED = 3  # pictures of each frame that become latents: target, masked target, reference


@dataclass(frozen=True)
class NoiseSampling:
    """How chance is drawn; the defaults are the published ones.

    Attributes:
        alpha: weight of the noise that all frames share against each frame's own; None: all frames have the same noise.
        coarse: standard deviation of `coarse_noise`, which is added where it is not 0.
        noisy_share: share of the samples that are drawn from the noisiest quarter of the timesteps, besides those that fall there.
    """

    alpha: float | None = 1.0
    coarse: float = 0.0
    noisy_share: float = 0.0


@dataclass(frozen=True)
class NoiseSamples:
    """All chance of a step."""

    timestep: Tensor  # int64 b, 0..999
    noise: Tensor  # float32 b 4 f h/8 w/8: what is added to the target's latents and is to be predicted
    posterior: Tensor  # float32 b f 3 4 h/8 w/8: what the latents of target, masked target and reference are sampled with

    def to(self, device: torch.device) -> "NoiseSamples":
        """The same on a device."""
        return NoiseSamples(*(value.to(device, non_blocking=True) for value in (self.timestep, self.noise, self.posterior)))


def draw(seed: int, positions: Sequence[int], frames: int, latent_size: int, chance: NoiseSampling, timesteps: int) -> NoiseSamples:
    """The chance of the samples at these positions of a training, on the CPU.

    Each sample's is drawn from (seed, position) alone, so that it does not matter which process meets it in which batch, or whether
    the training was stopped in between.

    Args:
        timesteps: length of the diffusion process.
    """
    samples = [_draw_one(sample_generator(seed, position), frames, latent_size, chance, timesteps) for position in positions]
    return NoiseSamples(*(torch.cat(parts) for parts in zip(*samples, strict=True)))


def coarse_noise(generator: torch.Generator, size: int) -> Tensor:
    """Normal noise of 1, 2 x 2 and 4 x 4 values, stretched to a frame and added up: 1 4 1 h w.

    Even at the noisiest step a little of the picture is left in its largest waves, for there is less noise in those than in single cells.
    A denoiser learns to read colour and light off them, and inference, which begins with nothing but noise, gives it a wrong colour to
    read (Lin et al. 2023, arXiv 2305.08891). With this on top there is nothing to be read, and it has to look at the reference.
    """
    waves = [torch.randn((1, LATENT_CHANNELS, side, side), generator=generator) for side in COARSE_SIDES]
    return torch.stack([F.interpolate(wave, size=(size, size), mode="bilinear") for wave in waves]).sum(0)[:, :, None]


def _draw_one(generator: torch.Generator, frames: int, size: int, chance: NoiseSampling, timesteps: int) -> tuple[Tensor, Tensor, Tensor]:
    timestep = torch.randint(timesteps, (1,), generator=generator)
    if chance.noisy_share and float(torch.rand(1, generator=generator)) < chance.noisy_share:
        timestep = timesteps - 1 - timestep // NOISY_PART
    shared = torch.randn((1, LATENT_CHANNELS, 1, size, size), generator=generator)
    independent = torch.randn((1, LATENT_CHANNELS, frames, size, size), generator=generator)
    noise = shared.expand_as(independent) if chance.alpha is None else mixed_noise(shared, independent, chance.alpha)
    posterior = torch.randn((1, frames, ENCODED, LATENT_CHANNELS, size, size), generator=generator)
    return timestep, noise + chance.coarse * coarse_noise(generator, size) if chance.coarse else noise, posterior


LOSSES = ("recon", "sync", "sync_source", "lpips", "trepa", "reader", "reader_motion", "reader_points")
SYNC = frozenset({"sync", "sync_source"})
READER = {"reader": "appearance", "reader_motion": "motion", "reader_points": "points"}  # losses of one judge -> what it calls them


@dataclass(frozen=True)
class LossNetworks:
    """Frozen networks that look at what the denoiser makes; None where their loss is not wanted."""

    sync: SyncJudge | None = None  # do mouth and sound belong together
    lpips: LowerHalfLPIPS | None = None  # does the lower half of the face look right
    trepa: TREPALoss | None = None  # does it move right
    reader: LandmarkLoss | None = None  # does the mouth look and move right, where the networks of the two above cannot be had


class UNetStep:
    """Calls the denoiser once on a batch and says how wrong it was.

    Noise, schedule and losses are computed in float32, the autoencoder and the judges in the type of their weights, whatever
    precision the denoiser is called in.
    """

    def __init__(
        self,
        codec: LatentCodec,
        mask: Tensor,
        *,
        weights: Mapping[str, float],
        seed: int,
        chance: NoiseSampling,
        judges: LossNetworks,
        noisy_weight: float = 1.0,
        mouth_weight: float = 1.0,
        use_reference: bool = True,
    ) -> None:
        """What the losses are made of.

        Args:
            codec: the autoencoder, frozen; it holds the activations of `codec.slice_size` faces at once.
            mask: h w at the clips' resolution, 1 = keep, 0 = generate.
            weights: loss -> weight; losses whose weight is not above 0 are not computed.
            seed: of timesteps and noise.
            chance: how timesteps and noise are drawn.
            judges: see `LossNetworks`.
            noisy_weight: see `step_weights`.
            mouth_weight: see `mouth_weights`.
            use_reference: False shows zeros in the place of the reference.

        Raises:
            ConfigError: a loss is unknown or lacks its judge, or no loss is wanted.
        """
        self.codec = codec.eval().requires_grad_(False)
        self.mask = mask
        self.seed = seed
        self.chance = chance
        self.noisy_weight, self.use_reference = noisy_weight, use_reference
        self.cells = mouth_weights(mask.shape[-1] // VAE_FACTOR, mouth_weight).to(mask.device)
        self.judges = judges
        self.wanted = wanted_losses(weights, judges)
        self.scheduler = make_scheduler()

    def __call__(self, unet: Denoiser, batch: UNetBatch) -> dict[str, Tensor]:
        """Loss -> its scalar, for each loss of weight above 0; the batch lies on the denoiser's device."""
        frames, size = batch.audio.shape[1], self.mask.shape[-1] // VAE_FACTOR
        draws = draw(self.seed, batch.position.tolist(), frames, size, self.chance, self.scheduler.config.num_train_timesteps)
        return self.losses(unet, batch, draws.to(batch.audio.device))

    def losses(self, unet: Denoiser, batch: UNetBatch, draws: NoiseSamples) -> dict[str, Tensor]:
        """The same with chance given: nothing in here is random."""
        device = batch.audio.device.type
        with torch.autocast(device, enabled=False), torch.no_grad():
            target, conditions = self.encode(batch, draws.posterior)
            noisy = self.scheduler.add_noise(target, draws.noise, draws.timestep)
        epsilon = unet(unet_input(noisy, conditions), draws.timestep, batch.audio)
        with torch.autocast(device, enabled=False):
            alphas_cumprod = self.scheduler.alphas_cumprod.to(epsilon.device)[draws.timestep]
            errors = (F.mse_loss(epsilon.float(), draws.noise, reduction="none") * self.cells).flatten(1).mean(1)  # b
            found = {"recon": (errors * step_weights(alphas_cumprod, self.noisy_weight)).mean()} if "recon" in self.wanted else {}
            if self.wanted - {"recon"}:
                found |= self.judge(one_step_x0(noisy, epsilon.float(), alphas_cumprod), batch)
        return {name: found[name] for name in LOSSES if name in found}

    def encode(self, batch: UNetBatch, noise: Tensor) -> tuple[Tensor, Conditions]:
        """The target's latents, b 4 f h/8 w/8, and what the denoiser is shown beside them; all float32.

        Args:
            batch: with cached moments the autoencoder is not called.
            noise: see `NoiseSamples.posterior`.
        """
        if batch.moments is not None:
            latents = sample_latents(batch.moments, noise)
        else:
            pixels, reference = to_pixels(batch.faces), to_pixels(batch.reference)  # b f 3 h w
            source = pixels if batch.source is None else to_pixels(batch.source)
            pictures = torch.stack([pixels, masked_pixels(source, self.mask), reference], dim=2).to(self.codec.dtype)
            latents = sample_latents(self.codec.moments(pictures.flatten(0, 2)).unflatten(0, noise.shape[:3]), noise)
        target, masked, reference = latents.permute(2, 0, 3, 1, 4, 5)  # each b 4 f h/8 w/8
        mask = latent_mask(self.mask).to(target).expand_as(target[:, :1])
        return target, Conditions(mask, masked, reference if self.use_reference else torch.zeros_like(reference))

    def judge(self, latents: Tensor, batch: UNetBatch) -> dict[str, Tensor]:
        """The judges' losses of generated latents b 4 f h/8 w/8; they are decoded only if a judge wants pixels.

        SyncNet is not asked about samples that heard nothing (`data.audio_dropout`): they cannot know what to say.
        """
        heard = batch.audio.flatten(1).any(1).float()  # b
        found, latents = {}, latents.transpose(1, 2)  # b f 4 h/8 w/8
        sync = self.judges.sync if self.wanted & SYNC else None
        if sync is not None and sync.latent_space:
            found |= self.fit(sync, latents, batch, heard)
        if self.wanted - {"recon"} - found.keys():
            predicted = decode_slices(self.codec, latents.flatten(0, 1)).unflatten(0, latents.shape[:2])  # b f 3 h w
            if sync is not None and not sync.latent_space:
                found |= self.fit(sync, predicted, batch, heard)
            for name in ("lpips", "trepa"):
                if name in self.wanted:
                    found[name] = getattr(self.judges, name)(predicted, to_pixels(batch.faces))
            if self.wanted & READER.keys():
                difference = self.judges.reader(predicted, to_pixels(batch.faces))
                found |= {name: getattr(difference, part) for name, part in READER.items() if name in self.wanted}
        return found

    def fit(self, sync: SyncJudge, made: Tensor, batch: UNetBatch, heard: Tensor) -> dict[str, Tensor]:
        """Whether what was made fits its sound, and not that of the source it is painted over; heard: b, 1 where the denoiser had sound."""
        source = batch.source_mel if "sync_source" in self.wanted else None
        misfit, source_fit = sync(made, batch.mel, source)
        found = {"sync": average(misfit, heard)} if "sync" in self.wanted else {}
        if source_fit is not None:
            found["sync_source"] = average(source_fit, heard * source.flatten(1).any(1))
        return found


def step_weights(alphas_cumprod: Tensor, largest: float) -> Tensor:
    """How much each sample's noise counts: the weight that makes its error one of the latents, kept between 1 and `largest`; b -> b.

    The error of the noise is alpha / (1 - alpha) times the error of the latents that it implies, so that the noisy steps, which settle
    the shape of the mouth, hardly count (the other way round than in Hang et al., arXiv 2303.09556, who count clean steps less).
    """
    return ((1 - alphas_cumprod) / alphas_cumprod).clamp(1.0, largest)


def average(losses: Tensor, share: Tensor) -> Tensor:
    """The mean of losses b over the samples that have a share (b, 0 or 1); 0 where none has."""
    return (losses * share).sum() / share.sum().clamp(min=1)


def wanted_losses(weights: Mapping[str, float], judges: LossNetworks) -> frozenset[str]:
    """Names of the losses to compute; ConfigError where they cannot be."""
    unknown = [name for name in weights if name not in LOSSES]
    if unknown:
        raise ConfigError(f"run.loss_weights.{unknown[0]} is no loss of the denoiser: use {', '.join(LOSSES)}.")
    wanted = frozenset(name for name, weight in weights.items() if weight > 0)
    if not wanted:
        raise ConfigError("run.loss_weights are all 0, so that nothing would be learnt: give one of them a weight.")
    for name in LOSSES[1:]:
        if name in wanted and getattr(judges, judge_of(name)) is None:
            raise ConfigError(f"run.loss_weights.{name} is {weights[name]} but the network that judges it was not given: set it to 0.")
    return wanted


def judge_of(loss: str) -> str:
    """Which of `LossNetworks` a loss needs."""
    return "reader" if loss in READER else "sync" if loss in SYNC else loss


def decode_slices(codec: LatentCodec, latents: Tensor) -> Tensor:
    """Latents n 4 h w -> pixels n 3 8h 8w, float32, with the activations of one slice of the codec alive at once.

    On the way back each slice is decoded again, so that the autoencoder costs half as much time again and little memory.
    """
    parts = latents.to(codec.dtype).split(codec.slice_size or len(latents))
    decoded = [checkpoint(codec.decode, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(decoded).float()


COMPARED = ("lpips", "trepa", *READER)  # losses that look at true faces
SYNCNET, VGG16, VIDEOMAE = "syncnet", "vgg16", "videomae"


def build_unet(config: Config, codec: LatentCodec, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that the denoiser's training needs, but for the validation video.

    Raises:
        InputError, ConfigError, WeightsError: clips or weights cannot be used, in one sentence.
    """
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, UNET_LENGTHS * data.num_frames, accelerator, show_progress, data.resolution)
    mask = fixed_mask(data.resolution, data.mask).to(accelerator.device)
    builder = Datasets(config, codec, mask, accelerator, show_progress)
    seed_everything(run, accelerator)
    unet = start_unet(config)
    numbers = freeze(unet, run.trainable_modules)
    unet.enable_gradient_checkpointing(run.enable_gradient_checkpointing)
    logger.info("Training %.1f of %.1f million parameters", numbers / 1e6, sum(part.numel() for part in unet.parameters()) / 1e6)
    step = UNetStep(
        codec,
        mask,
        weights=run.loss_weights,
        seed=run.seed,
        chance=NoiseSampling(run.mixed_noise_alpha if run.use_mixed_noise else None, run.coarse_noise, run.noisy_share),
        judges=load_judges(config, accelerator),
        noisy_weight=run.noisy_weight,
        mouth_weight=run.mouth_weight,
        use_reference=run.use_reference,
    )
    validators: list[Validator] = []
    if held_out is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
        batches = fixed_batches(builder(held_out, 0.0), run.num_val_clips, data.batch_size, rank, world, data.num_workers)
        validators.append(UNetValidator(step, batches))
    return TrainingTask(
        model=unet,
        step=step,
        dataset=builder(train, data.audio_dropout),
        num_clips=len(train.clips),
        publish=publish,
        clip_name=clip_namer(train),
        validators=validators,
        prepare=builder.fill,
    )


class Datasets:
    """Catalogs to data sets that share caches; where latents are cached, `fill` computes them."""

    def __init__(self, config: Config, codec: LatentCodec, mask: Tensor, accelerator: Accelerator, show_progress: bool) -> None:
        cache = cache_folder(config.data)
        self.config, self.codec, self.mask = config, codec, mask
        self.accelerator, self.show_progress = accelerator, show_progress
        self.catalogs: list[Catalog] = []  # of the data sets so far
        self.mels = Mels(cache)
        self.features = Features(cache, whisper_weights(config), tuple(config.data.audio_feat_length))
        if self.features.width != config.model.cross_attention_dim:
            raise ConfigError(
                f"{whisper_weights(config)} gives audio tokens {self.features.width} wide and model.cross_attention_dim is "
                f"{config.model.cross_attention_dim}: name another file in weights.whisper, or change the width."
            )
        self.latents = LatentStore(cache, config.data.resolution, config.data.mask) if config.data.cache_latents else None

    def __call__(self, catalog: Catalog, audio_dropout: float) -> UNetDataset:
        """The data set of a catalog."""
        data = self.config.data
        self.catalogs.append(catalog)
        return UNetDataset(
            catalog,
            self.mels,
            self.features,
            num_frames=data.num_frames,
            resolution=data.resolution,
            seed=self.config.run.seed,
            audio_dropout=audio_dropout,
            latents=self.latents,
            counterfactual=data.counterfactual,
            with_faces=any(self.config.run.loss_weights.get(name, 0) > 0 for name in COMPARED),
            faces_cache=cache_folder(data) if data.cache_faces else None,
        )

    def fill(self) -> None:
        """Compute the latents of all clips, where they are cached; called on every process."""
        if self.latents is None:
            return
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for catalog in self.catalogs:
            self.latents.fill(self.codec, catalog, self.mask, rank, world, show_progress=self.show_progress)
        self.accelerator.wait_for_everyone()


def load_training_codec(config: Config, accelerator: Accelerator) -> LatentCodec:
    """The autoencoder, on the training's device."""
    codec = load_vae(config.weights.vae or default_weights("vae").parent, half_precision(accelerator)).to(accelerator.device)
    codec.slice_size = config.run.vae_slice_size or None
    return codec


def start_unet(config: Config) -> UNet3DConditionModel:
    """The denoiser that training starts from: fresh, or with what a file has for it.

    Raises WeightsError where the file belongs to another network, ConfigError where frozen parts would never be trained at all.
    """
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


def load_judges(config: Config, accelerator: Accelerator) -> LossNetworks:
    """The networks behind the losses that have a weight.

    Raises ConfigError or WeightsError where one of them is not named or not there.
    """
    weights, files = config.run.loss_weights, config.weights
    sync = lpips = trepa = reader = None
    if any(weights.get(name, 0) > 0 for name in SYNC):
        if config.data.syncnet_config_path is None:
            raise ConfigError("run.loss_weights.sync has a weight, but data.syncnet_config_path names no SyncNet: name its YAML file.")
        if weights.get("sync_source", 0) > 0 and not config.data.counterfactual:
            raise ConfigError(
                "run.loss_weights.sync_source asks about what the source says, and without data.counterfactual the source is the target: "
                "set data.counterfactual=true and train on clips with twins, or run.loss_weights.sync_source=0."
            )
        sync = load_judge(config.data.syncnet_config_path, judge_weights(files.syncnet, SYNCNET, "sync"), accelerator)
        sync.check(config.data.num_frames, config.data.resolution)
    if weights.get("lpips", 0) > 0:
        lpips = load_lpips(judge_weights(files.vgg16, VGG16, "lpips")).to(accelerator.device)
        lpips.slice_size = config.run.vae_slice_size or None
    if weights.get("trepa", 0) > 0:
        network = load_videomae(config.videomae, judge_weights(files.videomae, VIDEOMAE, "trepa"))
        network.gradient_checkpointing = config.run.enable_gradient_checkpointing
        trepa = TREPALoss(network.to(accelerator.device, half_precision(accelerator)))
    if wanted := [name for name in READER if weights.get(name, 0) > 0]:
        if files.mouth_reader is None:
            raise ConfigError(f"run.loss_weights.{wanted[0]} has a weight, but weights.mouth_reader names no file: train one first.")
        reader = LandmarkLoss(load_mouth_reader(files.mouth_reader), config.run.vae_slice_size or None).to(accelerator.device)
    return LossNetworks(sync, lpips, trepa, reader)


def judge_weights(named: Path | None, name: str, loss: str) -> Path:
    """The file of a judge: the one that is named, or the one in its default place. Raises ConfigError where it is missing."""
    path = named or default_weights(name)
    if not path.is_file():
        raise ConfigError(
            f"The loss '{loss}' needs {path}, which is missing: run `python -m scripts.download_weights --training`, name another file "
            f"with weights.{name}, or set run.loss_weights.{loss}=0."
        )
    return path


class UNetValidator:
    """The losses on fixed held-out clips, each with the noise it had at the validation before."""

    name = "held-out clips"

    def __init__(self, step: UNetStep, batches: Any) -> None:
        self.step, self.batches = step, batches
        self._problems = Problems()

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
        """Loss -> its sum over the clips, and their number."""
        sums: dict[str, float] = {}
        count = 0
        device = next(model.parameters()).device
        for batch in self.batches:
            self._problems.tell(batch.problems)
            for name, loss in self.step(model, batch.to(device)).items():
                sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.clip)
            count += len(batch.clip)
        return {name: ValidationSum(total, count) for name, total in sums.items()}


def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
    """The published file of a denoiser."""
    return {"global_step": step, "state_dict": {name: value.contiguous() for name, value in weights.items()}}
