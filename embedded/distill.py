"""Distils the guided denoiser of several steps into one that needs a single unguided step (after arXiv 2210.03142, section 3).

Inference of the embedded model starts from no noise, so what its denoiser makes of a clip is settled by the conditions. The student starts
as its teacher and learns to name, from every point on the way from zero to the teacher's result, that result.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from latentsync.config import Config, Sampling, UNetRunConfig, load_config
from latentsync.data.sampling import UNetBatch, sample_generator
from latentsync.diffusion import Denoiser, denoise, make_scheduler, one_step_x0, unet_input
from latentsync.errors import ConfigError
from latentsync.faces.mask import fixed_mask
from latentsync.models.unet_weights import start_from_stable_diffusion
from latentsync.models.vae import LatentCodec
from latentsync.training.trainer import TrainingTask, half_precision, load_codec
from latentsync.training.unet import RECON, NoiseSamples, UNetStep, UNetValidator, build_unet
from scripts.train_unet import parse_arguments, train_command

DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "unet_distilled.yaml"
TEACHER = Sampling(inference_steps=4, guidance_scale=3.0, sampler="dpm++", guidance_start=0.2)
SINGLE_SHARE, FIRST_SHARE = 0.6, 0.8  # of the samples: at the one step of inference; that, or the first step of a sampler of more steps
LEAST_FIRST = 300  # samplers of a few steps start at this timestep or above


def share_on_way(alphas_cumprod: Tensor, first: int, now: int) -> Tensor:
    """How much of the clean latents x_0 there is at timestep `now`, a scalar.

    A deterministic sampler that starts from zeros at timestep T = `first` and is told the same x_0 all the way comes through
    (sqrt(a_t) - sqrt(a_T (1 - a_t) / (1 - a_T))) x_0 at timestep t (arXiv 2010.02502, equation 12 without noise).
    """
    begin, here = alphas_cumprod[first], alphas_cumprod[now]
    return here**0.5 - (begin * (1 - here) / (1 - begin)) ** 0.5


def points_on_way(seed: int, positions: Sequence[int], single: int, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps (b,) of samples and `share_on_way` there (b,), each from (seed, position) alone; most lie at timestep `single`."""
    timesteps, shares = [], []
    for position in positions:
        generator = sample_generator(seed, position)
        kind = float(torch.rand(1, generator=generator))
        first = int(torch.randint(LEAST_FIRST, len(alphas_cumprod), (1,), generator=generator)) if kind > SINGLE_SHARE else single
        now = int(torch.randint(1, first, (1,), generator=generator)) if kind > FIRST_SHARE else first
        timesteps.append(now)
        shares.append(share_on_way(alphas_cumprod, first, now))
    return torch.tensor(timesteps), torch.stack(shares)


class DistillationStep(UNetStep):
    """One call of the student, and how far its clean latents are from the teacher's result."""

    def __init__(self, codec: LatentCodec, mask: Tensor, run: UNetRunConfig, teacher: Denoiser, dtype: torch.dtype) -> None:
        """`run` holds the student's settings of inference; the teacher computes in `dtype`."""
        super().__init__(codec, mask, run, {})
        self.teacher, self.dtype = teacher, dtype
        student = make_scheduler(TEACHER.sampler)
        student.set_timesteps(run.inference_steps)
        self.single = int(student.timesteps[0])
        alpha = self.scheduler.alphas_cumprod[self.single]
        self.single_snr = float(alpha / (1 - alpha))

    def losses(self, unet: Denoiser, batch: UNetBatch, samples: NoiseSamples) -> dict[str, Tensor]:
        """The error of the student's clean latents, mean of squares, the mouth's counted more.

        Before the single step it is an error of the noise: there a small one of those makes a large one of the latents.
        """
        device = batch.audio.device
        alphas_cumprod = self.scheduler.alphas_cumprod
        timesteps, shares = points_on_way(self.run.seed, batch.position.tolist(), self.single, alphas_cumprod)
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            nothing, conditions = self.encode(batch, samples.posterior)
            result = denoise(self.teacher, torch.zeros_like(nothing), conditions, batch.audio, TEACHER, dtype=self.dtype)
            noisy = shares.to(device)[:, None, None, None, None] * result
        epsilon = unet(unet_input(noisy, conditions), timesteps.to(device), batch.audio)
        with torch.autocast(device.type, enabled=False):
            alphas = alphas_cumprod[timesteps].to(device)
            errors = ((one_step_x0(noisy, epsilon.float(), alphas) - result).square() * self.cell_weights).flatten(1).mean(1)  # b
            return {RECON: (errors * (alphas / (1 - alphas) / self.single_snr).clamp(max=1)).mean()}


def build(config: Config, accelerator: Accelerator, show_progress: bool) -> TrainingTask:
    """Everything the training needs; the teacher is what the student starts from. Raises InputError, ConfigError, WeightsError."""
    if config.ckpt.resume_ckpt_path is None:
        raise ConfigError("ckpt.resume_ckpt_path names no teacher: name the denoiser that is to be distilled.")
    codec = load_codec(config, accelerator, config.run.vae_slice_size or None)
    task, dtype = build_unet(config, codec, accelerator, show_progress), half_precision(accelerator)
    teacher, _ = start_from_stable_diffusion(config.model, config.ckpt.resume_ckpt_path)
    teacher = teacher.to(accelerator.device, dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
    mask = fixed_mask(config.data.resolution, config.data.mask).to(accelerator.device)
    step = DistillationStep(codec, mask, config.run, teacher, dtype)
    return replace(task, step=step, validators=[UNetValidator(validator.batches, step) for validator in task.validators])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Distil a trained denoiser into one that needs a single unguided step of inference."
    parsed = parse_arguments("python -m embedded.distill", description, DEFAULT_CONFIG, arguments)
    return train_command(parsed, load_config, build)


if __name__ == "__main__":
    sys.exit(main())
