"""The losses of the landmark network: what they measure, where gradients go, and how the denoiser's training loads them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from test_unet_step import SIDE, make_step, random_batch, tiny_unet

from latentsync.config import Config
from latentsync.errors import ConfigError
from latentsync.losses.landmarks import LandmarkLoss
from latentsync.models.landmark_network import LandmarkNetwork, LandmarkNetworkConfig, published
from latentsync.training.unet import load_loss_networks

SIZES = LandmarkNetworkConfig([8, 8, 16, 16], 4, 16)
FACE = 64  # pixels a side


def tiny_network() -> LandmarkNetwork:
    torch.manual_seed(1)
    return LandmarkNetwork(SIZES)


def clip(seed: int, frames: int = 3, size: int = 1) -> torch.Tensor:
    """Soft pictures, b f 3 h w."""
    noise = torch.randn(size * frames, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(FACE, FACE), mode="bilinear").clamp(-1, 1).unflatten(0, (size, frames))


@torch.no_grad()
def test_equal_clips_differ_in_nothing_and_others_do() -> None:
    loss, real = LandmarkLoss(tiny_network()), clip(1)
    same = loss(real, real)
    assert same.landmark_feature == same.temporal_feature == 0
    near, far = loss(real + 0.05 * clip(2), real), loss(real + 0.5 * clip(2), real)
    for part in ("landmark_feature", "temporal_feature"):
        assert 0 < getattr(near, part) < getattr(far, part) < 4 * 4 * len(SIZES.block_out_channels)
        assert getattr(far, part).dim() == 0 and getattr(far, part).dtype == torch.float32


@torch.no_grad()
def test_appearance_is_the_distance_of_unit_features() -> None:
    network = tiny_network()
    first, second = clip(1, 2), clip(2, 2)
    expected = 0.0
    for seen, target in zip(network.features(first[0]), network.features(second[0]), strict=True):
        expected += (F.normalize(seen, dim=1) - F.normalize(target, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(LandmarkLoss(network)(first, second).landmark_feature, expected, rtol=1e-2, atol=0)


@torch.no_grad()
def test_points_are_those_that_are_read() -> None:
    network = tiny_network()
    torch.nn.init.normal_(network.head[-1].weight)
    first, second = clip(1, 2), clip(2, 2)
    loss = LandmarkLoss(network)(first, second).landmarks
    torch.testing.assert_close(loss, (network(first[0]).points - network(second[0]).points).square().mean(), rtol=1e-4, atol=0)
    network.deviation.fill_(7.0)  # faces that vary more: the same distance is as many standard deviations
    torch.testing.assert_close(LandmarkLoss(network)(first, second).landmarks, loss)
    assert LandmarkLoss(network)(first, first).landmarks == 0 < loss


@torch.no_grad()
def test_motion_sees_flicker_and_no_lasting_difference() -> None:
    loss, real = LandmarkLoss(tiny_network()), clip(1, 1).expand(-1, 4, -1, -1, -1)
    lasting = real + 0.3 * clip(2, 1)
    flicker = real + 0.3 * clip(2, 1) * torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 4, 1, 1, 1)
    assert loss(lasting, real).temporal_feature < 1e-8 < 1e-3 < loss(lasting, real).landmark_feature
    assert loss(flicker, real).temporal_feature > loss(flicker, real).landmark_feature > 0
    assert loss(lasting[:, :1], real[:, :1]).temporal_feature == 0 < loss(lasting[:, :1], real[:, :1]).landmark_feature


def test_clips_of_a_batch_do_not_run_into_each_other() -> None:
    loss = LandmarkLoss(tiny_network())
    predicted, real = clip(1, size=2), clip(2, size=2)
    with torch.no_grad():
        together = loss(predicted, real)
        alone = [loss(predicted[k : k + 1], real[k : k + 1]) for k in range(2)]
    for part in ("landmark_feature", "temporal_feature"):
        torch.testing.assert_close(getattr(together, part), sum(getattr(one, part) for one in alone) / 2)


def test_gradients_reach_the_generated_mouth_alone() -> None:
    loss = LandmarkLoss(tiny_network())
    predicted, real = clip(1).requires_grad_(True), clip(2).requires_grad_(True)
    sum(loss(predicted, real)).backward()
    assert real.grad is None and all(parameter.grad is None and not parameter.requires_grad for parameter in loss.parameters())
    lower = predicted.grad[..., FACE * 3 // 8 + 2 :, :]
    assert (lower.abs().sum((0, 2, 3, 4)) > 0).all() and lower.isfinite().all()
    assert predicted.grad[..., : FACE * 3 // 8 - 2, :].abs().sum() == 0  # above the nose nothing counts


def test_slices_change_nothing() -> None:
    found = []
    for slice_size in (None, 2):
        predicted = clip(1).requires_grad_(True)
        value = sum(LandmarkLoss(tiny_network(), slice_size)(predicted, clip(2)))
        value.backward()
        found.append((value.detach(), predicted.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_denoiser_learns_from_it() -> None:
    weights = {"recon": 0.0, "landmark_feature": 1.0, "temporal_feature": 2.0}
    networks = {"landmark_network": LandmarkLoss(tiny_network())}
    losses = make_step(weights, networks)(tiny_unet(), random_batch(size=1))
    assert list(losses) == ["landmark_feature", "temporal_feature"] and SIDE == FACE
    assert all(loss > 0 for loss in losses.values())
    assert torch.autograd.grad(sum(losses.values()), tiny_unet().conv_out.weight)[0].abs().sum() > 0
    assert list(make_step({"temporal_feature": 1.0}, networks).wanted) == ["temporal_feature"]


def test_the_sound_of_the_source_needs_pairs() -> None:
    config = Config()
    config.run.loss_weights = {**config.run.loss_weights, "sync_source": 0.05}
    config.data.syncnet_config_path, config.weights.syncnet = Path("syncnet.yaml"), Path(__file__)
    with pytest.raises(ConfigError, match=r"sync_source compares with the sound of the source, .* set data\.counterfactual_pairs=true"):
        load_loss_networks(config, Accelerator(cpu=True))


def test_it_is_loaded_where_it_has_a_weight(tmp_path: Path) -> None:
    config, accelerator = Config(), Accelerator(cpu=True)
    assert load_loss_networks(config, accelerator) == {}
    config.run.loss_weights = {**config.run.loss_weights, "temporal_feature": 0.5}
    with pytest.raises(ConfigError, match=r"loss_weights\.temporal_feature has a weight, but weights\.landmark_network names no file"):
        load_loss_networks(config, accelerator)
    network = tiny_network()
    torch.save(published(SIZES, network.state_dict(), 5), tmp_path / "landmarks.pt")
    config.weights = replace(config.weights, landmark_network=tmp_path / "landmarks.pt")
    (loss,) = load_loss_networks(config, accelerator).values()
    assert loss.slice_size == config.run.vae_slice_size
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loss.network.state_dict().items())
