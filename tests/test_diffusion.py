"""The diffusion process against the numbers of the published code."""

from collections.abc import Callable

import pytest
import torch
from golden_recipe import load_case

from latentsync.config import SAMPLERS, Sampling
from latentsync.diffusion import Conditions, denoise, make_scheduler, mixed_noise, one_step_x0, predict_noise

CASE, NUMBERS = load_case("sampling")
TOLERANCE = CASE["tolerance"]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def toy_denoiser(sample: torch.Tensor, timestep: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """The stand-in denoiser of the case: it weighs every group of channels and the audio differently."""
    noisy, mask, masked, reference = sample[:, 0:4], sample[:, 4:5], sample[:, 5:9], sample[:, 9:13]
    sound = audio.reshape(sample.shape[0], sample.shape[2], -1).mean(-1)[:, None, :, None, None]
    return 0.3 * noisy + 0.1 * mask + 0.2 * masked - 0.1 * reference + 0.5 * sound + 0.1 * timestep / 1000


def counting(batches: list[int]) -> Callable[..., torch.Tensor]:
    return lambda sample, *rest: batches.append(len(sample)) or toy_denoiser(sample, *rest)


def toy_inputs() -> tuple[Conditions, torch.Tensor]:
    return Conditions(NUMBERS["ddim_mask"], NUMBERS["ddim_masked"], NUMBERS["ddim_ref"]), NUMBERS["ddim_ehs"][None]


@pytest.mark.parametrize("steps", [3, 20, 25, 50])
def test_timesteps(steps: int) -> None:
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == CASE["timesteps_by_steps"][str(steps)]


def test_schedule() -> None:
    scheduler = make_scheduler()
    close(scheduler.alphas_cumprod, NUMBERS["alphas_cumprod"])
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(CASE["final_alpha_cumprod"], abs=1e-7)
    assert float(scheduler.init_noise_sigma) == 1.0


def test_added_noise_and_one_step_estimate() -> None:
    scheduler = make_scheduler()
    close(scheduler.add_noise(NUMBERS["x0"], NUMBERS["noise"], NUMBERS["timesteps"]), NUMBERS["noisy"])
    alphas = scheduler.alphas_cumprod[NUMBERS["timesteps"]]
    close(one_step_x0(NUMBERS["noisy"], NUMBERS["pred_noise"], alphas), NUMBERS["one_step_x0"])
    half = one_step_x0(NUMBERS["noisy"].half(), NUMBERS["pred_noise"].half(), alphas)
    close(half.float(), NUMBERS["one_step_x0_float16"].float())


def test_mixed_noise() -> None:
    close(mixed_noise(NUMBERS["mixed_noise_z_shared"], NUMBERS["mixed_noise_z_ind"]), NUMBERS["mixed_noise"])


def test_mixed_noise_has_variance_one_and_half_correlated_frames() -> None:
    generator = torch.Generator().manual_seed(3)
    shared, independent = (torch.randn(4, 4, 2, 64, 64, generator=generator) for _ in range(2))
    first, second = mixed_noise(shared, independent).unbind(2)
    assert first.var().item() == pytest.approx(1, abs=0.03)
    assert (first * second).mean().item() == pytest.approx(0.5, abs=0.03)


def test_guided_denoising_step_by_step() -> None:
    scheduler, (conditions, audio) = make_scheduler(), toy_inputs()
    scheduler.set_timesteps(3)
    latents = NUMBERS["ddim_init_latents"]
    for k, timestep in enumerate(scheduler.timesteps):
        epsilon = predict_noise(toy_denoiser, latents, timestep, conditions, audio, CASE["guidance"])
        close(epsilon, NUMBERS["ddim_eps_after_cfg"][k])
        latents = scheduler.step(epsilon, timestep, latents).prev_sample
        close(latents, NUMBERS["ddim_trajectory"][k + 1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_sampling_loop_starts_afresh_in_every_call(sampler: str) -> None:
    (conditions, audio), steps = toy_inputs(), []
    sampling = Sampling(3, CASE["guidance"], sampler)
    first, second = (
        denoise(toy_denoiser, NUMBERS["ddim_init_latents"], conditions, audio, sampling, on_step=steps.append) for _ in range(2)
    )
    assert steps == [1, 2, 3] * 2 and torch.equal(first, second)
    if sampler == "ddim":
        close(first, NUMBERS["ddim_trajectory"][-1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_end_where_the_exact_solution_does(sampler: str) -> None:
    """Data of one known point: the ideal noise prediction leads every sampler there in any number of steps."""
    (conditions, audio), alphas = toy_inputs(), make_scheduler().alphas_cumprod
    target = torch.full_like(conditions.masked, 0.7)

    def ideal(sample: torch.Tensor, timestep: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        alpha = alphas[int(timestep)]
        assert sample[:, :4].std() < 1.5  # the scale that the denoiser is trained on, whatever that of the sampler
        return (sample[:, :4] - alpha**0.5 * target) / (1 - alpha) ** 0.5

    for steps in (4, 20):
        end = denoise(ideal, NUMBERS["ddim_init_latents"], conditions, audio, Sampling(steps, 1.0, sampler))
        assert (end - target).abs().max() < 0.15, steps  # what noise the last level of the schedule leaves


def test_guidance_in_a_part_of_the_steps_alone() -> None:
    (conditions, audio), batches = toy_inputs(), []
    sampling = Sampling(inference_steps=8, guidance_start=0.25, guidance_stop=0.75)
    denoise(counting(batches), NUMBERS["ddim_init_latents"], conditions, audio, sampling)
    assert batches == [1, 1, 2, 2, 2, 2, 1, 1] and sampling.is_guided
    assert not Sampling(inference_steps=8, guidance_start=0.95).is_guided
    assert Sampling(inference_steps=1, guidance_start=0.2).is_guided  # the middle of a step counts


def test_without_guidance_the_denoiser_runs_on_a_single_batch() -> None:
    (conditions, audio), batches = toy_inputs(), []
    plain = predict_noise(counting(batches), NUMBERS["ddim_init_latents"], torch.tensor(5), conditions, audio, 1.0)
    barely = predict_noise(counting(batches), NUMBERS["ddim_init_latents"], torch.tensor(5), conditions, audio, 1.0 + 1e-7)
    assert batches == [1, 2]
    torch.testing.assert_close(plain, barely)
