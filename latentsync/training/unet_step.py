"""One step of the denoiser's training: a batch of clips to its losses (LatentSync, arXiv 2412.09262, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentsync.constants import VAE_FACTOR
from latentsync.data.batches import UNetBatch
from latentsync.diffusion import Conditions, Denoiser, make_scheduler, one_step_x0, unet_input
from latentsync.errors import ConfigError
from latentsync.faces.mask import latent_mask, masked_pixels, mouth_weights, to_pixels
from latentsync.losses.perceptual import LowerHalfLPIPS
from latentsync.losses.reader import ReaderLoss
from latentsync.losses.sync import SyncJudge
from latentsync.losses.trepa import TREPALoss
from latentsync.models.vae import LatentCodec, sample_latents
from latentsync.training.draws import Chance, Draws, draw

LOSSES = ("recon", "sync", "sync_source", "lpips", "trepa", "reader", "reader_motion", "reader_points")
SYNC = frozenset({"sync", "sync_source"})
READER = {"reader": "appearance", "reader_motion": "motion", "reader_points": "points"}  # losses of one judge -> what it calls them


@dataclass(frozen=True)
class Judges:
    """Frozen networks that look at what the denoiser makes; None where their loss is not wanted."""

    sync: SyncJudge | None = None  # do mouth and sound belong together
    lpips: LowerHalfLPIPS | None = None  # does the lower half of the face look right
    trepa: TREPALoss | None = None  # does it move right
    reader: ReaderLoss | None = None  # does the mouth look and move right, where the networks of the two above cannot be had


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
        chance: Chance,
        judges: Judges,
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
            judges: see `Judges`.
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

    def losses(self, unet: Denoiser, batch: UNetBatch, draws: Draws) -> dict[str, Tensor]:
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
            noise: see `Draws.posterior`.
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


def wanted_losses(weights: Mapping[str, float], judges: Judges) -> frozenset[str]:
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
    """Which of `Judges` a loss needs."""
    return "reader" if loss in READER else "sync" if loss in SYNC else loss


def decode_slices(codec: LatentCodec, latents: Tensor) -> Tensor:
    """Latents n 4 h w -> pixels n 3 8h 8w, float32, with the activations of one slice of the codec alive at once.

    On the way back each slice is decoded again, so that the autoencoder costs half as much time again and little memory.
    """
    parts = latents.to(codec.dtype).split(codec.slice_size or len(latents))
    decoded = [checkpoint(codec.decode, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(decoded).float()
