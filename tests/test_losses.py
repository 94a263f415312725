"""The losses of generated clips against reference numbers: TREPA, LPIPS of the lower half, SyncNet."""

import hashlib
import math
from functools import cache
from pathlib import Path

import lpips
import pytest
import torch
import torch.nn.functional as F
from golden_recipe import load_case, load_seeded, seeded_normal
from test_videomae import case_network

from latentsync.config import EncoderConfig
from latentsync.errors import InputError
from latentsync.losses.lpips import LowerHalfLPIPS, empty_lpips, load_lpips
from latentsync.losses.sync import TEMPERATURE, SyncLoss, cosine_loss, infonce_loss
from latentsync.losses.trepa import TREPALoss
from latentsync.models.syncnet import StableSyncNet, lower_half, syncnet_frames

SIDE = 16  # of the faces of the tiny SyncNet, pixels


@cache
def seeded_lpips() -> LowerHalfLPIPS:
    return LowerHalfLPIPS(load_seeded(empty_lpips(), load_case("lpips_vgg")[0], gain=1.4))


def tiny_sync(*, latent_space: bool = False, lower: bool = True, resolution: int = SIDE, frames: int = 2) -> SyncLoss:
    torch.manual_seed(3)
    height, width = (resolution // 8,) * 2 if latent_space else (resolution,) * 2
    factors = [[height // 2 if lower else height, width]]
    visual = EncoderConfig((4 if latent_space else 3) * frames, (128,), factors, (0,))
    network = StableSyncNet(EncoderConfig(1, (128,), [[80, 4]], (0,)), visual)
    return SyncLoss(network, resolution=resolution, num_frames=frames, latent_space=latent_space, lower_half=lower)


def trepa_clips():
    sidecar, tensors = load_case("trepa_tiny")
    fake = (0.8 * seeded_normal(10001, (2, 3, 16, 28, 28))).clamp(-1.2, 1.2)
    real = (0.3 * seeded_normal(10002, (2, 3, 16, 28, 28)) + 0.6).clamp(-1.2, 1.2)
    assert all(hashlib.sha256(clip.numpy().tobytes()).hexdigest() in sidecar["inputs"] for clip in (fake, real))
    return fake.transpose(1, 2), real.transpose(1, 2), tensors, sidecar["tolerance"]


def test_trepa_equals_the_reference_and_moves_the_generated_clip_alone():
    fake, real, tensors, tolerance = trepa_clips()
    loss = TREPALoss(case_network())
    torch.testing.assert_close(loss.prepare(fake)[0, 0, :, ::16, ::16], tensors["pre_v16_b0_frame0_stride16"], **tolerance["features"])
    fake.requires_grad_(True)
    real.requires_grad_(True)
    value = loss(fake, real)
    torch.testing.assert_close(value, tensors["loss_v16"], **tolerance["loss"])
    with torch.no_grad():
        for clip, name in ((fake, "features_fake_v16"), (real, "features_real_v16")):
            torch.testing.assert_close(loss.features(clip), F.normalize(tensors[name], dim=1), **tolerance["features"])
    value.backward()
    assert all(frame.abs().sum() > 0 for item in fake.grad for frame in item)
    assert real.grad is None and not any(parameter.requires_grad for parameter in loss.parameters())


@torch.no_grad()
def test_trepa_works_in_half_precision_and_is_nothing_for_equal_clips():
    fake, real, tensors, _ = trepa_clips()
    loss = TREPALoss(case_network().bfloat16())
    value = loss(fake[:1], real[:1])
    assert value.dtype == torch.float32
    features = [F.normalize(tensors[f"features_{name}_v16"][:1], dim=1) for name in ("fake", "real")]
    assert value.item() == pytest.approx(F.mse_loss(*features).item(), rel=0.2)
    assert loss(real[:1], real[:1]) == 0


def lpips_pictures():
    return [seeded_normal(seed, (2, 3, 64, 64)).clamp(-1, 1) for seed in (12301, 12302)]


@torch.no_grad()
def test_lpips_equals_the_reference():
    sidecar, tensors = load_case("lpips_vgg")
    pictures = lpips_pictures()
    torch.testing.assert_close(seeded_lpips().network(*pictures), tensors["value"], **sidecar["tolerance"])
    upper = [torch.full_like(picture, value) for picture, value in zip(pictures, (0.0, 1.0), strict=True)]  # must not count
    clips = [torch.cat(halves, dim=-2).unflatten(0, (1, 2)) for halves in zip(upper, pictures, strict=True)]  # 1 2 3 128 64
    torch.testing.assert_close(seeded_lpips()(*clips), tensors["value_mean"], **sidecar["tolerance"])
    halves = seeded_lpips()(*(clip.bfloat16() for clip in clips))
    assert halves.dtype == torch.float32


def test_lpips_in_slices_is_the_same_on_the_way_back_too():
    clips = [torch.rand(1, 3, 3, 64, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (1, 2)]
    found = []
    for slice_size in (None, 2):
        loss = seeded_lpips()
        loss.slice_size = slice_size
        predicted = clips[0].clone().requires_grad_(True)
        value = loss(predicted, clips[1])
        value.backward()
        found.append((value.detach(), predicted.grad))
    torch.testing.assert_close(found[0], found[1])


def vgg_file(path):
    """A file in the layout of torchvision, small where LPIPS needs nothing."""
    weights = {f"features.{key.partition('.')[2]}": value for key, value in seeded_lpips().network.net.state_dict().items()}
    torch.save({**weights, "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}, path)
    return path


@torch.no_grad()
def test_lpips_is_loaded_from_the_file_of_vgg16_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: pytest.fail("nothing may be fetched"))
    loss = load_lpips(vgg_file(tmp_path / "vgg16.pth"))
    assert capsys.readouterr().out == ""
    backbone = seeded_lpips().network.net.state_dict()
    assert all(torch.equal(value, backbone[key]) for key, value in loss.network.net.state_dict().items())
    linear = torch.load(Path(lpips.__file__).parent / "weights/v0.1/vgg.pth", "cpu", weights_only=True)
    assert len(linear) == 5 and all(torch.equal(loss.network.get_parameter(key), value) for key, value in linear.items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loss.parameters())
    first, second = lpips_pictures()
    assert loss(first[None], first[None]) == 0 < loss(first[None], second[None])


def test_frames_of_syncnet_are_stacked_frame_by_frame():
    frames = torch.arange(2 * 3 * 4).view(1, 2, 3, 4, 1).expand(1, 2, 3, 4, 2)
    assert torch.equal(lower_half(frames), frames[..., 2:, :])
    stacked = syncnet_frames(frames, lower=True)
    assert stacked.shape == (1, 6, 2, 2)
    assert torch.equal(stacked[:, 3:], frames[:, 1, :, 2:])
    assert syncnet_frames(frames, lower=False).shape == (1, 6, 4, 2)


@pytest.mark.parametrize("lower", [True, False])
def test_sync_compares_mouth_and_sound(lower):
    sync = tiny_sync(lower=lower)
    pixels = seeded_normal(1, (3, 2, 3, SIDE, SIDE)).requires_grad_(True)
    mel = seeded_normal(2, (3, 1, 80, 4))
    misfit, nothing = sync(pixels, mel)
    loss = misfit.mean()
    assert nothing is None
    with torch.no_grad():
        expected = cosine_loss(*sync.network(syncnet_frames(pixels, lower), mel), torch.ones(3)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    upper = pixels.grad[..., : SIDE // 2, :].abs().sum()
    assert (upper == 0) == lower and lower_half(pixels.grad).abs().sum() > 0
    assert all(parameter.grad is None for parameter in sync.parameters())


@torch.no_grad()
def test_sync_tells_how_well_another_sound_fits():
    sync, pixels = tiny_sync(), seeded_normal(1, (3, 2, 3, SIDE, SIDE))
    mel, other = seeded_normal(2, (2, 3, 1, 80, 4))
    misfit, fit = sync(pixels, mel, other)
    torch.testing.assert_close(misfit, sync(pixels, mel)[0])
    torch.testing.assert_close(fit, cosine_loss(*sync.network(syncnet_frames(pixels, True), other), torch.zeros(3)))


@torch.no_grad()
def test_pixels_of_another_size_are_resized_before_they_are_halved():
    sync, mel = tiny_sync(), seeded_normal(2, (1, 1, 80, 4))
    pixels = seeded_normal(1, (1, 2, 3, 40, 40))
    resized = F.interpolate(pixels[0], size=(SIDE, SIDE), mode="bicubic", align_corners=False)[None]
    torch.testing.assert_close(sync(pixels, mel)[0], sync(resized, mel)[0])


@torch.no_grad()
def test_a_syncnet_takes_clips_of_its_size_and_length_alone():
    sync, mel = tiny_sync(latent_space=True, lower=False, resolution=64), seeded_normal(2, (1, 1, 80, 4))
    assert sync(seeded_normal(1, (1, 2, 4, 8, 8)), mel)[0].isfinite().all()
    with pytest.raises(InputError, match="faces of 64 pixels and these are of 128"):
        sync(seeded_normal(1, (1, 2, 4, 16, 16)), mel)
    with pytest.raises(InputError, match="trained on 2 frames and the clips have 3"):
        tiny_sync()(torch.zeros(1, 3, 3, SIDE, SIDE), mel)


@pytest.mark.parametrize("name", ["syncnet_pixel16_tiny", "syncnet_pixel16_attn_tiny", "syncnet_latent16_tiny", "syncnet_pixel25_tiny"])
def test_loss_equals_the_reference(name):
    sidecar, tensors = load_case(name)
    loss = cosine_loss(tensors["vision_embeds"], tensors["audio_embeds"], tensors["y"])
    torch.testing.assert_close(loss, tensors["loss_per_item"].reshape(-1), **sidecar["tolerance"])
    torch.testing.assert_close(loss.mean(), tensors["loss"].reshape(()), **sidecar["tolerance"])


def test_identical_and_opposite_vectors_give_numbers():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.rand(200, 64))
    assert cosine_loss(vectors, vectors, torch.ones(200)).max() < 1e-5
    assert torch.isfinite(cosine_loss(vectors, -vectors, torch.ones(200, 1))).all()


def test_infonce_counts_pairs_that_belong_together_against_all_others() -> None:
    visual, label = torch.eye(4), torch.tensor([1.0, 1, 0, 1])
    perfect, wrong = infonce_loss(visual, visual, label), infonce_loss(visual, visual.roll(1, 0), label)
    assert perfect < 1e-4 and wrong == pytest.approx(1 / TEMPERATURE, rel=1e-3)
    assert infonce_loss(visual[:, :1] * 0 + 1, torch.ones(4, 1), label) == pytest.approx(math.log(4), rel=1e-5)  # tells nothing apart
    audio = visual.clone()
    audio[2] = visual[0]  # a wrong pair's sound is as near as the right one
    assert infonce_loss(visual, audio, label) == pytest.approx(math.log(2) / 6, abs=1e-4)
    assert infonce_loss(visual, visual, torch.zeros(4)) == 0
