"""The loss of SyncNet against reference numbers, and where plain cross-entropy would raise."""

import pytest
import torch
from golden_recipe import load_case

from latentsync.losses.sync import accuracy, cosine_loss


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


def test_gradients_turn_vectors_towards_their_label():
    seen = torch.tensor([[1.0, 0.2], [1.0, 0.2]], requires_grad=True)
    heard = torch.tensor([[0.3, 1.0], [0.3, 1.0]])
    cosine_loss(seen, heard, torch.tensor([1.0, 0.0])).sum().backward()
    assert (seen.grad[0] * heard[0]).sum() < 0 < (seen.grad[1] * heard[1]).sum()


def test_accuracy_counts_the_right_side():
    seen, heard = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert accuracy(seen, heard, torch.tensor([1, 0, 0])).item() == pytest.approx(2 / 3)
