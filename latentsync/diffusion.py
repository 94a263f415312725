"""The diffusion process, shared by training and inference: noise, samplers, guidance, the channels the denoiser sees, the sampling loop.

Denoising diffusion implicit models (arXiv 2010.02502) with Stable Diffusion's schedule (arXiv 2112.10752); classifier-free guidance
(arXiv 2207.12598), on request in an interval of the noise levels alone (arXiv 2404.07724); deep features kept for some steps
(arXiv 2312.00858); noise mixed from a part shared by all frames and a part of each frame's own (arXiv 2305.10474).
"""

from collections.abc import Callable
from dataclasses import dataclass

import diffusers
import torch
from diffusers import SchedulerMixin
from einops import rearrange
from torch import Tensor

from latentsync.config import SAMPLERS, Sampling
from latentsync.constants import LATENT_CHANNELS
from latentsync.models.unet import FeatureCache

FAST_BFLOAT16 = ("amx_bf16", "avx512_bf16")  # capabilities of processors that are fast at bfloat16
Denoiser = Callable[..., Tensor]  # (b 13 f h w), timestep, audio (b f) n d, and a `FeatureCache` where one is used -> (b 4 f h w)


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is shown beside the noisy latents; every tensor (b, c, f, h, w)."""

    mask: Tensor  # c = 1; 1 = keep, 0 = generate
    masked: Tensor  # latents of the faces with the region to generate blanked out
    reference: Tensor  # latents of the same person with the mouth visible


SCHEDULE = {  # of Stable Diffusion
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",  # linear in their square roots
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}


def is_fast_at_bfloat16() -> bool:
    """Whether this processor is: whether it has AMX or AVX512-BF16."""
    return any(torch.cpu.get_capabilities().get(name) for name in FAST_BFLOAT16)


def make_scheduler(sampler: str = "ddim") -> SchedulerMixin:
    """A fresh scheduler of `SAMPLERS` with Stable Diffusion's schedule."""
    name, settings = SAMPLERS[sampler]
    return getattr(diffusers, name)(**SCHEDULE, **settings)


def shared_noise(latent_size: int, generator: torch.Generator) -> Tensor:
    """One frame of standard normal noise, (1, 4, 1, h, w), to be repeated over every frame of a video."""
    return torch.randn((1, LATENT_CHANNELS, 1, latent_size, latent_size), generator=generator, device=generator.device)


def mixed_noise(shared: Tensor, independent: Tensor, alpha: float = 1.0) -> Tensor:
    """Noise of variance 1 whose frames correlate by alpha² / (1 + alpha²) (arXiv 2305.10474, section 4.1).

    Both parts are normal noise (b, c, f, h, w); frame 0 of the shared one serves all frames.
    """
    variance = 1 + alpha**2
    return independent * (1 / variance) ** 0.5 + (shared * (alpha**2 / variance) ** 0.5)[:, :, :1]


def unet_input(noisy: Tensor, conditions: Conditions) -> Tensor:
    """The 13 channels of the denoiser in the order of its checkpoints: noisy latents 4, mask 1, masked 4, reference 4."""
    return torch.cat([noisy, conditions.mask, conditions.masked, conditions.reference], dim=1)


def one_step_x0(noisy: Tensor, epsilon: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The clean latents that the predicted noise of x_t (b, c, f, h, w) implies (arXiv 2010.02502, equation 9), not clipped.

    `alphas_cumprod`, the running product at each item's timestep (b,), is taken to the precision of `epsilon`.
    """
    alpha = alphas_cumprod.to(epsilon)[:, None, None, None, None]
    return (noisy - (1 - alpha) ** 0.5 * epsilon) / alpha**0.5


def predict_noise(
    unet: Denoiser, noisy: Tensor, timestep: Tensor, conditions: Conditions, audio: Tensor, scale: float, cache: FeatureCache | None = None
) -> Tensor:
    """The guided noise prediction; without guidance (scale at most 1) the denoiser runs once, not twice.

    `noisy` are latents (b, 4, f, h, w), `audio` windows (b, f, n, d). The unconditional half, which is the first one, is given zeros.
    `cache` holds deep features of an earlier step, or takes those of this one.
    """
    more = () if cache is None else (cache,)
    sample = unet_input(noisy, conditions)
    if scale <= 1:
        return unet(sample, timestep, rearrange(audio, "b f n d -> (b f) n d"), *more)
    both = rearrange(torch.stack([torch.zeros_like(audio), audio]), "g b f n d -> (g b f) n d")
    unconditional, conditional = unet(torch.cat([sample, sample]), timestep, both, *more).chunk(2)
    return unconditional + scale * (conditional - unconditional)  # arXiv 2207.12598, equation 6 with w = scale - 1


def denoise(
    unet: Denoiser,
    noise: Tensor,
    conditions: Conditions,
    audio: Tensor,
    sampling: Sampling,
    *,
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """The sampling loop: noise (b, 4, f, h, w) and audio windows (b, f, n, d) to scaled latents, float32 (b, 4, f, h, w).

    The running latents stay in float32; the denoiser alone works in `dtype`. Scheduler and cache are made for this call, so that nothing of
    them passes on to the next clips. `on_step` is called with the number of steps done.
    """
    scheduler = make_scheduler(sampling.sampler)
    scheduler.set_timesteps(sampling.inference_steps)
    latents = noise.float() * scheduler.init_noise_sigma
    conditions = Conditions(conditions.mask.to(dtype), conditions.masked.to(dtype), conditions.reference.to(dtype))
    audio = audio.to(dtype)
    cache = FeatureCache(sampling.cache_branch) if sampling.cache_interval > 1 else None
    for step, timestep in enumerate(scheduler.timesteps):
        if cache is not None and step % sampling.cache_interval == 0:
            cache.features = None
        noisy = scheduler.scale_model_input(latents, timestep).to(dtype)
        epsilon = predict_noise(unet, noisy, timestep, conditions, audio, sampling.guidance_at(step), cache)
        latents = scheduler.step(epsilon.float(), timestep, latents).prev_sample
        if on_step is not None:
            on_step(step + 1)
    return latents
