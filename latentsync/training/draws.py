"""All chance of a step of the denoiser's training: timesteps, noise, samples of posteriors; each sample's own, whoever meets it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.constants import LATENT_CHANNELS
from latentsync.diffusion import mixed_noise

COARSE_SIDES = (1, 2, 4)  # values on a side of each wave of coarse noise
NOISY_PART = 4  # the noisy timesteps are the last of so many equal parts
ENCODED = 3  # pictures of each frame that become latents: target, masked target, reference


@dataclass(frozen=True)
class Chance:
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
class Draws:
    """All chance of a step."""

    timestep: Tensor  # int64 b, 0..999
    noise: Tensor  # float32 b 4 f h/8 w/8: what is added to the target's latents and is to be predicted
    posterior: Tensor  # float32 b f 3 4 h/8 w/8: what the latents of target, masked target and reference are sampled with

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(*(value.to(device, non_blocking=True) for value in (self.timestep, self.noise, self.posterior)))


def draw(seed: int, positions: Sequence[int], frames: int, latent_size: int, chance: Chance, timesteps: int) -> Draws:
    """The chance of the samples at these positions of a training, on the CPU.

    Each sample's is drawn from (seed, position) alone, so that it does not matter which process meets it in which batch, or whether
    the training was stopped in between.

    Args:
        timesteps: length of the diffusion process.
    """
    samples = [_draw_one(sample_generator(seed, position), frames, latent_size, chance, timesteps) for position in positions]
    return Draws(*(torch.cat(parts) for parts in zip(*samples, strict=True)))


def sample_generator(seed: int, position: int) -> torch.Generator:
    """A source of chance for one sample of a training."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def coarse_noise(generator: torch.Generator, size: int) -> Tensor:
    """Normal noise of 1, 2 x 2 and 4 x 4 values, stretched to a frame and added up: 1 4 1 h w.

    Even at the noisiest step a little of the picture is left in its largest waves, for there is less noise in those than in single cells.
    A denoiser learns to read colour and light off them, and inference, which begins with nothing but noise, gives it a wrong colour to
    read (Lin et al. 2023, arXiv 2305.08891). With this on top there is nothing to be read, and it has to look at the reference.
    """
    waves = [torch.randn((1, LATENT_CHANNELS, side, side), generator=generator) for side in COARSE_SIDES]
    return torch.stack([F.interpolate(wave, size=(size, size), mode="bilinear") for wave in waves]).sum(0)[:, :, None]


def _draw_one(generator: torch.Generator, frames: int, size: int, chance: Chance, timesteps: int) -> tuple[Tensor, Tensor, Tensor]:
    timestep = torch.randint(timesteps, (1,), generator=generator)
    if chance.noisy_share and float(torch.rand(1, generator=generator)) < chance.noisy_share:
        timestep = timesteps - 1 - timestep // NOISY_PART
    shared = torch.randn((1, LATENT_CHANNELS, 1, size, size), generator=generator)
    independent = torch.randn((1, LATENT_CHANNELS, frames, size, size), generator=generator)
    noise = shared.expand_as(independent) if chance.alpha is None else mixed_noise(shared, independent, chance.alpha)
    posterior = torch.randn((1, frames, ENCODED, LATENT_CHANNELS, size, size), generator=generator)
    return timestep, noise + chance.coarse * coarse_noise(generator, size) if chance.coarse else noise, posterior
