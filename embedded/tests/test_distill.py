"""Distillation: points on the way of a sampler that starts from zeros, and a step whose student knows the teacher's result."""

import pytest
import torch
from torch import Tensor, nn

from embedded.distill import DistillationStep, points_on_way, share_on_way
from latentsync.config import UNetRunConfig
from latentsync.data.sampling import UNetBatch
from latentsync.diffusion import make_scheduler
from latentsync.faces.mask import fixed_mask

SIZE, FRAMES = 64, 2  # pixels, frames
CLEAN = torch.randn((1, 4, 1, SIZE // 8, SIZE // 8), generator=torch.Generator().manual_seed(0))


class Knowing(nn.Module):
    """A denoiser that finds the noise which leaves `clean`, whatever it is shown."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean, self.alphas_cumprod = clean, make_scheduler().alphas_cumprod

    def forward(self, sample: Tensor, timestep: Tensor, audio: Tensor) -> Tensor:
        alpha = self.alphas_cumprod[timestep].reshape(-1, 1, 1, 1, 1)
        return (sample[:, :4] - alpha**0.5 * self.clean) / (1 - alpha) ** 0.5


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_points_on_the_way_are_those_of_the_sampler(steps: int) -> None:
    scheduler, know = make_scheduler("ddim"), Knowing(CLEAN)
    scheduler.set_timesteps(steps, device="cpu")
    first, alphas = int(scheduler.timesteps[0]), scheduler.alphas_cumprod
    latents = torch.zeros_like(CLEAN)
    for timestep in scheduler.timesteps:
        torch.testing.assert_close(latents, share_on_way(alphas, first, int(timestep)) * CLEAN, atol=1e-5, rtol=1e-5)
        latents = scheduler.step(know(latents, timestep, None), timestep, latents).prev_sample


def test_most_samples_lie_at_the_single_step_and_all_in_the_schedule() -> None:
    alphas = make_scheduler().alphas_cumprod
    timesteps, shares = points_on_way(3, range(200), 501, alphas)
    assert 100 < int((timesteps == 501).sum()) < 150 and timesteps.min() >= 1 and timesteps.max() < len(alphas)
    assert (shares[timesteps == 501] < 1e-6).all() and shares.min() > -1e-6 and shares.max() < 1
    assert 20 < int((shares > 1e-3).sum()) < 60
    again = points_on_way(3, range(100, 200), 501, alphas)
    assert torch.equal(timesteps[100:], again[0]) and torch.equal(shares[100:], again[1])


def test_a_student_that_knows_the_result_makes_no_error() -> None:
    run = UNetRunConfig(inference_steps=1, guidance_scale=1.0, sampler="dpm++", mouth_weight=4)
    step = DistillationStep(nn.Identity(), fixed_mask(SIZE), run, Knowing(CLEAN), torch.float32)
    shape = (4, FRAMES, 3, 8, SIZE // 8, SIZE // 8)
    batch = UNetBatch(
        clip=torch.zeros(4),
        problems=[],
        position=torch.arange(4),
        audio=torch.zeros(4, FRAMES, 5, 16),
        mel=torch.zeros(4, 1, 80, 4),
        moments=torch.zeros(shape),
    )
    assert step.single == 501
    (right,) = step(Knowing(CLEAN), batch).values()
    (wrong,) = step(Knowing(CLEAN + 0.1), batch).values()
    assert float(right) < 1e-4 < 3e-3 < float(wrong) < 0.2
