"""The loss of SyncNet against reference numbers, and where plain cross-entropy would raise."""

import math

import pytest
import torch
from golden_recipe import load_case

from latentsync.losses.sync import TEMPERATURE, accuracy, cosine_loss, infonce_loss


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


def test_contrast_counts_pairs_that_belong_together_against_all_others() -> None:
    seen, label = torch.eye(4), torch.tensor([1.0, 1, 0, 1])
    perfect, wrong = infonce_loss(seen, seen, label), infonce_loss(seen, seen.roll(1, 0), label)
    assert perfect < 1e-4 and wrong == pytest.approx(1 / TEMPERATURE, rel=1e-3)
    assert infonce_loss(seen[:, :1] * 0 + 1, torch.ones(4, 1), label) == pytest.approx(math.log(4), rel=1e-5)  # tells nothing apart
    heard = seen.clone()
    heard[2] = seen[0]  # a wrong pair's sound is as near as the right one
    assert infonce_loss(seen, heard, label) == pytest.approx(math.log(2) / 6, abs=1e-4)
    assert infonce_loss(seen, seen, torch.zeros(4)) == 0
