"""VideoMAE v2 against reference numbers and the published key list; loading; gradients through a frozen network."""

import pytest
import torch
from golden_recipe import assert_published, load_case, load_seeded, seeded_state_dict

from latentsync.config import VideoMAEConfig
from latentsync.errors import InputError
from latentsync.third_party.videomae import VideoMAE, load_videomae, position_table

TINY = VideoMAEConfig(image_size=28, patch_size=14, num_frames=4, tubelet_size=2, width=16, depth=2, num_heads=4, hidden=24)


def case_network() -> VideoMAE:
    return load_seeded(VideoMAE(VideoMAEConfig(width=44, depth=2, num_heads=4, hidden=192), num_classes=5), load_case("trepa_tiny")[0])


def random_file(path):
    weights = seeded_state_dict(VideoMAE(TINY, num_classes=3).state_dict(), 5)
    torch.save({"model": weights, "epoch": 3}, path)
    return path


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        network = VideoMAE(VideoMAEConfig())
    assert_published(network, "videomaev2_vit_g")
    assert network.positions.shape == (1, 2048, 1408) and network.positions.device.type == "cpu"  # computed, not loaded
    _, tensors = load_case("trepa_tiny")
    torch.testing.assert_close(position_table(2048, 44)[[0, 1, 2047]], tensors["pos_table_rows_0_1_2047"], rtol=1e-4, atol=1e-5)


def test_a_file_is_loaded_frozen_and_in_the_wanted_type(tmp_path):
    network = load_videomae(TINY, random_file(tmp_path / "x.pth"), torch.bfloat16)
    assert network.dtype == torch.bfloat16 and network.head.out_features == 3 and not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    exact = load_videomae(TINY, tmp_path / "x.pth")
    video = torch.rand(2, 3, 4, 28, 28, requires_grad=True)
    torch.testing.assert_close(network(video.bfloat16()).float(), exact(video), rtol=0.1, atol=0.1)
    exact(video).square().sum().backward()
    assert all(frame.abs().sum() > 0 for item in video.grad for frame in item.unbind(1))
    again = video.detach().clone().requires_grad_(True)
    exact.gradient_checkpointing = True
    exact(again).square().sum().backward()
    torch.testing.assert_close(again.grad, video.grad)


@torch.no_grad()
def test_other_clip_lengths_interpolate_the_positions_along_time():
    network = VideoMAE(TINY)
    assert network.positions_of(4) is network.positions
    longer, own = network.positions_of(8).view(4, 4, 16), network.positions.view(2, 4, 16)
    torch.testing.assert_close(longer[0], own[0])
    torch.testing.assert_close(longer[1], 0.75 * own[0] + 0.25 * own[1])
    assert network(torch.rand(1, 3, 8, 28, 28)).shape == (1, 16)
    with pytest.raises(InputError, match="too short"):
        network.positions_of(1)
