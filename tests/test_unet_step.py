"""The denoiser's training step against reference numbers; noise that depends on the sample alone; memory, precision, gradients."""

import dataclasses
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from golden_recipe import load_case, seeded_normal, seeded_state_dict, weights_sha256
from test_losses import seeded_lpips, tiny_sync

from latentsync.config import Config, EncoderConfig, UNetConfig, UNetRunConfig, VideoMAEConfig
from latentsync.data.sampling import UNetBatch
from latentsync.diffusion import mixed_noise, unet_input
from latentsync.faces.mask import fixed_mask, masked_pixels, mouth_weights, to_pixels
from latentsync.losses.sync import SyncLoss
from latentsync.losses.trepa import TREPALoss
from latentsync.models.syncnet import StableSyncNet
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.third_party.videomae import VideoMAE
from latentsync.training import unet as unet_step
from latentsync.training.unet import (
    LOSSES,
    LossNetwork,
    NoiseSamples,
    UNetStep,
    decode_slices,
    load_loss_networks,
    low_frequency_noise,
    sample_noise,
    x0_weights,
)

WEIGHTS = {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 10.0}
CASE, NUMBERS = load_case("train_step_v16")
SIDE = 64


def seeded(network, seed):
    network.load_state_dict(seeded_state_dict(network.state_dict(), seed))
    return network.eval()


def case_unet() -> UNet3DConditionModel:
    config = CASE["config"]["unet"]
    unet = UNet3DConditionModel(UNetConfig(**{key: config[key] for key in UNetConfig.__dataclass_fields__ if key in config}))
    weights = seeded_state_dict(unet.state_dict(), CASE["seed"]["unet weights"])
    assert weights_sha256(weights) == CASE["weights_digest"]["sha256_sorted_key_then_f4_bytes"]
    unet.load_state_dict(weights)
    return unet.train()


@cache
def case_codec() -> LatentCodec:
    vae = seeded(AutoencoderKL(**load_case("vae_tiny")[0]["config"]), CASE["seed"]["vae"])
    return LatentCodec(vae.requires_grad_(False), slice_size=4)


@cache
def case_networks() -> dict[str, torch.nn.Module]:
    sizes = CASE["config"]["syncnet"]
    syncnet = seeded(
        StableSyncNet(EncoderConfig(**sizes["audio_encoder"]), EncoderConfig(**sizes["visual_encoder"])), CASE["seed"]["syncnet"]
    )
    videomae = seeded(VideoMAE(VideoMAEConfig(width=44, depth=1, num_heads=4, hidden=192), num_classes=5), CASE["seed"]["vit"])
    sync = SyncLoss(syncnet, resolution=SIDE, num_frames=16, latent_space=False, lower_half=True)
    return {"syncnet": sync, "vgg16": seeded_lpips(), "videomae": TREPALoss(videomae)}


def case_pixels(seed):
    pixels = F.interpolate(seeded_normal(seed, (16, 3, 8, 8)), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return pixels.clamp(-1, 1)[None]  # 1 f 3 h w


def make_step(weights=WEIGHTS, networks=None, **settings):
    networks = case_networks() if networks is None else networks
    return UNetStep(case_codec(), fixed_mask(SIDE), UNetRunConfig(seed=7, loss_weights=weights, **settings), networks)


def random_batch(size=2, frames=2, **changes) -> UNetBatch:
    torch.manual_seed(11)
    faces, reference = torch.randint(256, (2, size, frames, SIDE, SIDE, 3), dtype=torch.uint8)
    audio, mel = torch.randn(size, frames, 5, 64), torch.randn(size, 1, 80, 4)
    batch = UNetBatch(torch.arange(size) + 40, torch.zeros(size, dtype=torch.int64), [], audio, mel, faces, reference)
    return dataclasses.replace(batch, **changes)


@cache
def tiny_unet() -> UNet3DConditionModel:
    return seeded(UNet3DConditionModel(UNetConfig([32] * 4, 1, 32, 64, use_motion_module=True)), 3).train()


@cache
def tiny_networks() -> dict[str, torch.nn.Module]:
    """Loss networks for clips of two frames."""
    videomae = VideoMAE(VideoMAEConfig(28, 14, 2, 2, 16, 1, 4, 24), num_classes=3)
    return {"syncnet": tiny_sync(resolution=SIDE), "vgg16": seeded_lpips(), "videomae": TREPALoss(seeded(videomae, 4))}


def part(batch: UNetBatch, index: slice) -> UNetBatch:
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return UNetBatch(**{name: value[index] if isinstance(value, torch.Tensor) else value for name, value in values.items()})


def test_losses_and_gradients_equal_the_reference(monkeypatch):
    pixels, reference = case_pixels(13301), case_pixels(13302)
    given = {0: pixels, 1: reference}  # the case's pictures are not whole grey levels: they stand in for what uint8 would become
    monkeypatch.setattr(unet_step, "to_pixels", lambda faces: given[int(faces.flatten()[0])])
    faces = torch.zeros(1, 16, SIDE, SIDE, 3, dtype=torch.uint8)
    mel = (2 * seeded_normal(13332, (1, 1, 80, 52))).clamp(-4, 4)
    batch = UNetBatch(torch.zeros(1), torch.zeros(1), [], seeded_normal(13331, (1, 16, 30, 64)), mel, faces, faces + 1)
    shared, independent = (seeded_normal(seed, (1, 4, 16, 8, 8)) for seed in (13321, 13322))
    posterior = torch.stack([seeded_normal(seed, (16, 4, 8, 8)) for seed in (13311, 13312, 13313)], dim=1)[None]
    samples = NoiseSamples(torch.tensor([431]), mixed_noise(shared, independent), posterior)

    unet = case_unet()
    calls = []
    unet.register_forward_hook(lambda module, args, output: calls.append((args[0][:, :4], output)))
    losses = make_step().losses(unet, batch, samples)
    assert list(losses) == list(WEIGHTS)
    torch.testing.assert_close(calls[0][0], NUMBERS["noisy"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(calls[0][1], NUMBERS["pred_noise"], rtol=1e-3, atol=2e-3)  # rounding, amplified
    for name, loss in losses.items():
        torch.testing.assert_close(loss, NUMBERS[name], rtol=1e-3, atol=1e-7)
    total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
    torch.testing.assert_close(total, NUMBERS["loss"], rtol=1e-3, atol=0)

    total.backward()
    gradients = {name: parameter.grad for name, parameter in unet.named_parameters()}
    norm = torch.stack([gradient.double().norm() for gradient in gradients.values()]).norm()
    torch.testing.assert_close(norm, NUMBERS["grad_norm_total"], rtol=1e-2, atol=0)
    for key, expected in NUMBERS.items():
        kind, _, name = key.partition("::")
        if kind == "grad_norm":
            torch.testing.assert_close(gradients[name].norm(), expected, rtol=1e-2, atol=1e-6)
        elif kind.startswith("grad") and name:
            torch.testing.assert_close(gradients[name].flatten()[: len(expected)], expected, rtol=1e-2, atol=1e-4)


def test_noise_belongs_to_the_sample_alone():
    together = sample_noise(UNetRunConfig(seed=7), [3, 900_000, 5], 4, 8, 1000)
    alone = sample_noise(UNetRunConfig(seed=7), [5], 4, 8, 1000)
    assert together.noise.shape == (3, 4, 4, 8, 8) and together.posterior.shape == (3, 4, 3, 4, 8, 8)
    for field in dataclasses.fields(NoiseSamples):
        assert torch.equal(getattr(together, field.name)[2:], getattr(alone, field.name))
    state = torch.get_rng_state()
    assert not torch.equal(sample_noise(UNetRunConfig(seed=8), [5], 4, 8, 1000).noise, alone.noise)
    assert not torch.equal(together.noise[0], together.noise[1])
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    timesteps = sample_noise(UNetRunConfig(seed=7), range(400), 1, 2, 1000).timestep
    assert timesteps.min() >= 0 and timesteps.max() < 1000 and abs(timesteps.float().mean() - 499.5) < 60


def test_frames_share_half_of_their_noise_or_all_of_it():
    noise = sample_noise(UNetRunConfig(seed=7), range(60), 2, 16, 1000).noise
    assert abs(noise.var() - 1) < 0.03
    assert abs((noise[:, :, 0] * noise[:, :, 1]).mean() - 0.5) < 0.03
    same = sample_noise(UNetRunConfig(seed=7, use_mixed_noise=False), [1], 3, 8, 1000).noise
    assert torch.equal(same[:, :, 0], same[:, :, 2])


def test_low_frequency_noise_lies_in_large_waves_alone():
    many = torch.cat([low_frequency_noise(torch.Generator().manual_seed(seed), 16) for seed in range(200)])  # n c 1 h w
    assert many.shape == (200, 4, 1, 16, 16) and abs(many.mean()) < 0.1
    assert many.mean((-1, -2)).var() > 1 and many.diff(dim=-1).var() < 0.2 * many.var()
    plain, both = (sample_noise(UNetRunConfig(seed=7, low_frequency_noise=deviation), [3], 2, 16, 1000) for deviation in (0.0, 0.3))
    more = both.noise - plain.noise
    assert torch.allclose(more[:, :, 0], more[:, :, 1], atol=1e-5) and more.std() > 0.1  # the same for all frames
    assert torch.equal(plain.timestep, both.timestep) and torch.equal(plain.posterior, both.posterior)


def test_a_share_of_the_samples_is_noisy():
    for share, expected in ((0.0, 0.25), (0.5, 0.625), (1.0, 1.0)):
        timesteps = sample_noise(UNetRunConfig(seed=7, timestep_bias=share), range(400), 1, 2, 1000).timestep
        assert timesteps.max() < 1000 and (timesteps >= 750).float().mean() == pytest.approx(expected, abs=0.06)


def test_gradients_reach_the_denoiser_alone():
    unet, networks = tiny_unet(), tiny_networks()
    unet.zero_grad()
    losses = make_step(networks=networks)(unet, random_batch(size=1))
    assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    for name, loss in losses.items():
        gradient = torch.autograd.grad(loss, unet.conv_out.weight, retain_graph=True)[0]
        assert gradient.abs().sum() > 0, name
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())
    frozen = [case_codec(), *networks.values()]
    assert not any(parameter.requires_grad or parameter.grad is not None for module in frozen for parameter in module.parameters())


def test_the_same_step_twice_and_in_halves():
    batch, step = random_batch(size=2), make_step(networks=tiny_networks())
    with torch.no_grad():
        whole, again = step(tiny_unet(), batch), step(tiny_unet(), batch)
        halves = [step(tiny_unet(), part(batch, index)) for index in (slice(0, 1), slice(1, 2))]
    for name, loss in whole.items():
        assert torch.equal(loss, again[name])
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, loss, rtol=1e-4, atol=1e-7)
        assert not torch.equal(halves[0][name], halves[1][name])


def test_the_table_and_the_configuration_name_the_same_losses():
    assert set(LOSSES) == set(Config().run.loss_weights)


def test_a_loss_without_a_network(monkeypatch):
    entry = LossNetwork(("l1",), None, lambda network, generated, batch: {"l1": (generated.pixels - to_pixels(batch.faces)).abs().mean()})
    monkeypatch.setattr(unet_step, "LOSS_NETWORKS", {"pixels": entry})
    monkeypatch.setattr(unet_step, "LOSSES", ("recon", "l1"))
    config = Config()
    config.run.loss_weights["l1"] = 0.5
    networks = load_loss_networks(config, Accelerator(cpu=True))
    with torch.no_grad():
        losses = make_step(config.run.loss_weights, networks)(tiny_unet(), random_batch(size=1))
    assert list(losses) == ["recon", "l1"] and 0 < float(losses["l1"]) < 2


@pytest.mark.parametrize(("names", "decoded"), [(["recon"], 0), (["lpips"], 1), (["recon", "sync"], 1), (["trepa"], 1)])
def test_only_wanted_losses_are_computed(monkeypatch, names, decoded):
    calls = []
    monkeypatch.setattr(unet_step, "decode_slices", lambda codec, latents: calls.append(0) or decode_slices(codec, latents))
    weights = {name: float(name in names) for name in WEIGHTS}
    keys = {"sync": "syncnet", "lpips": "vgg16", "trepa": "videomae"}
    networks = {keys[name]: tiny_networks()[keys[name]] for name in names if name != "recon"}
    with torch.no_grad():
        losses = make_step(weights, networks)(tiny_unet(), random_batch(size=1))
    assert list(losses) == names and len(calls) == decoded


def test_a_syncnet_of_latents_needs_no_decoding(monkeypatch):
    monkeypatch.setattr(unet_step, "decode_slices", lambda *args: pytest.fail("nothing may be decoded"))
    syncnet = tiny_sync(latent_space=True, lower=False, resolution=SIDE)
    seen = []
    syncnet.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    losses = make_step({"recon": 1.0, "sync": 0.05}, {"syncnet": syncnet})(tiny_unet(), random_batch(size=1))
    assert seen[0].shape == (1, 2, 4, 8, 8) and seen[0].dtype == torch.float32
    assert torch.autograd.grad(losses["sync"], tiny_unet().conv_out.weight)[0].abs().sum() > 0


def test_slices_give_the_same_pixels_and_gradients_and_keep_little():
    codec, latents = case_codec(), seeded_normal(1, (6, 4, 8, 8)).requires_grad_(True)
    kept = []
    calls = []
    hook = codec.vae.decoder.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
            sliced = decode_slices(codec, latents)
            kept_in_slices = sum(kept)
            whole = codec.decode(latents)
        assert calls[:2] == [4, 2]
        torch.testing.assert_close(sliced, whole, rtol=0, atol=0)
        assert kept_in_slices < 0.01 * (sum(kept) - kept_in_slices)
        weight = seeded_normal(2, sliced.shape)
        gradients = [torch.autograd.grad((pixels * weight).sum(), latents)[0] for pixels in (sliced, whole)]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
        assert sorted(calls[4:]) == [2, 4]  # decoded again on the way back, and only in slices
    finally:
        hook.remove()


def moments_of(pixels):
    """Mean and log-variance of pictures b f 3 h w: b f 8 h/8 w/8."""
    with torch.no_grad():
        return case_codec().vae.encode(pixels.flatten(0, 1)).latent_dist.parameters.unflatten(0, pixels.shape[:2])


@torch.no_grad()
def test_cached_moments_replace_the_encoder(monkeypatch):
    batch, step = random_batch(), make_step({"recon": 1.0}, {})
    without = step(tiny_unet(), batch)["recon"]
    pixels, reference = unet_step.to_pixels(batch.faces), unet_step.to_pixels(batch.reference)
    moments = torch.stack([moments_of(kind) for kind in (pixels, masked_pixels(pixels, fixed_mask(SIDE)), reference)], dim=2)
    monkeypatch.setattr(LatentCodec, "moments", lambda *args: pytest.fail("the encoder may not be called"))
    cached = step(tiny_unet(), dataclasses.replace(batch, moments=moments, faces=None, reference=None))["recon"]
    torch.testing.assert_close(cached, without, rtol=1e-4, atol=0)  # rounding: up to 3e-5; two of the kinds exchanged: 2.5e-4 and more


@pytest.mark.parametrize("latent_space", [False, True])
def test_the_sound_of_the_source_is_not_to_fit(latent_space):
    syncnet = tiny_sync(latent_space=latent_space, lower=not latent_space, resolution=SIDE)
    step = make_step({"recon": 0.0, "sync_source": 1.0}, {"syncnet": syncnet})
    asked = []
    syncnet.register_forward_hook(lambda module, args, output: asked.append(output))
    batch = random_batch(size=3, source_mel=torch.randn(3, 1, 80, 4) * torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1))
    losses = step(tiny_unet(), batch)
    assert list(losses) == ["sync_source"]  # the second clip is its own source
    torch.testing.assert_close(losses["sync_source"], (asked[0][1][0] + asked[0][1][2]) / 2)
    assert torch.autograd.grad(losses["sync_source"], tiny_unet().conv_out.weight)[0].abs().sum() > 0
    dropped = dataclasses.replace(batch, audio=torch.zeros_like(batch.audio))
    with torch.no_grad():
        assert step(tiny_unet(), dropped)["sync_source"] == 0


def test_conditions_carry_mask_masked_and_reference():
    codec, batch = case_codec(), random_batch(size=1)
    step = make_step({"recon": 1.0}, {})
    zeros = torch.zeros(1, 2, 3, 4, 8, 8)
    with torch.no_grad():
        target, conditions = step.encode(batch, zeros)
        pixels = unet_step.to_pixels(batch.faces)
        masked = codec.encode(masked_pixels(pixels, fixed_mask(SIDE)).flatten(0, 1), zeros[0, :, 0])
        reference = codec.encode(unet_step.to_pixels(batch.reference).flatten(0, 1), zeros[0, :, 0])
        whole = codec.encode(pixels.flatten(0, 1), zeros[0, :, 0])
    for given, expected in ((target, whole), (conditions.masked, masked), (conditions.reference, reference)):
        torch.testing.assert_close(given, expected.transpose(0, 1)[None], rtol=1e-4, atol=1e-5)
    assert conditions.mask.shape == (1, 1, 2, 8, 8)
    assert torch.equal(conditions.mask[0, 0, 1], fixed_mask(SIDE)[::8, ::8])


def test_the_mouth_is_masked_in_the_source():
    batch = random_batch(size=1)
    batch = dataclasses.replace(batch, source=255 - batch.faces)
    step, zeros = make_step({"recon": 1.0}, {}), torch.zeros(1, 2, 3, 4, 8, 8)
    with torch.no_grad():
        target, conditions = step.encode(batch, zeros)
        plain, over_source = step.encode(dataclasses.replace(batch, source=None), zeros)
        swapped = step.encode(dataclasses.replace(batch, faces=batch.source, source=None), zeros)[1]
    assert torch.equal(target, plain) and not torch.equal(conditions.masked, over_source.masked)
    torch.testing.assert_close(conditions.masked, swapped.masked)


def test_noisy_steps_can_count_more():
    alphas_cumprod = torch.tensor([0.9, 0.5, 0.25, 0.001])
    assert x0_weights(alphas_cumprod, 1.0).tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(x0_weights(alphas_cumprod, 5.0), torch.tensor([1.0, 1.0, 3.0, 5.0]))
    batch, loud = random_batch(), []
    for largest in (1.0, 5.0):
        step = make_step({"recon": 1.0}, {}, x0_weighting=largest)
        samples = dataclasses.replace(sample_noise(UNetRunConfig(seed=7), [0, 1], 2, SIDE // 8, 1000), timestep=torch.tensor([999, 999]))
        with torch.no_grad():
            loud.append(step.losses(tiny_unet(), batch, samples)["recon"])
    torch.testing.assert_close(loud[1], 5 * loud[0])


def test_lips_can_count_more():
    cells = mouth_weights(16, 4.0)
    assert torch.equal(mouth_weights(16, 1.0), torch.ones(16, 16))
    torch.testing.assert_close(cells.mean(), torch.tensor(1.0))
    inside = cells > 1  # rows and columns of 16 pixels whose middle lies in the box
    assert inside.any(1).nonzero().flatten().tolist() == list(range(9, 15))
    assert inside.any(0).nonzero().flatten().tolist() == list(range(5, 11))
    torch.testing.assert_close(cells[inside], 4 * cells[0, 0].expand(36))
    batch, samples = random_batch(), sample_noise(UNetRunConfig(seed=7), [0, 1], 2, SIDE // 8, 1000)
    with torch.no_grad():
        errors = (tiny_unet()(unet_input_of(batch, samples), samples.timestep, batch.audio) - samples.noise).square()
        loss = make_step({"recon": 1.0}, {}, mouth_weight=4.0).losses(tiny_unet(), batch, samples)["recon"]
    torch.testing.assert_close(loss, (errors * mouth_weights(SIDE // 8, 4.0)).mean())


def unet_input_of(batch: UNetBatch, samples: NoiseSamples) -> torch.Tensor:
    step = make_step({"recon": 1.0}, {})
    target, conditions = step.encode(batch, samples.posterior)
    return unet_input(step.scheduler.add_noise(target, samples.noise, samples.timestep), conditions)


def test_half_precision_touches_the_denoiser_alone():
    batch, step = random_batch(), make_step(networks=tiny_networks())
    seen = {}
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: seen.__setitem__(name, output.dtype))
        for name, module in {
            "unet": tiny_unet(),
            "lpips": tiny_networks()["vgg16"].network.net.slice1,
            "vae": case_codec().vae.decoder,
        }.items()
    ]
    try:
        with torch.no_grad():
            exact = step(tiny_unet(), batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = step(tiny_unet(), batch)
        sum(losses.values()).backward()
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == {"unet": torch.bfloat16, "lpips": torch.float32, "vae": torch.float32}
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.detach(), exact[name], rtol=0.1, atol=1e-3)


def test_a_denoiser_that_never_sees_the_reference_never_needs_it():
    unet, networks = UNet3DConditionModel(UNetConfig([32] * 4, 1, 32, 64, use_motion_module=True)), {}
    torch.nn.init.normal_(unet.conv_out.weight)  # what starts at zero would let no gradient through
    step = make_step({"recon": 1.0}, networks, use_reference=False)
    step(unet, random_batch())["recon"].backward()
    gradient = unet.conv_in.weight.grad
    assert gradient[:, 4:9].abs().amax() > 0 and not gradient[:, 9:].any() and not unet.conv_in.weight[:, 9:].any()
    make_step({"recon": 1.0}, networks)(unet, random_batch())["recon"].backward()
    assert unet.conv_in.weight.grad[:, 9:].any()
