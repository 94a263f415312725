"""The loss of lips by FaceMesh."""

import pytest
import torch

from latentsync.losses.lips import LipLoss
from latentsync.third_party.face_mesh import load_face_mesh


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two coarse random clips of two frames, b f 3 h w in [-1, 1]."""
    noise = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic").clamp(-1, 1).unflatten(0, (2, 2))


def test_lips_of_equal_faces_are_equal_and_gradients_flow_into_one(pictures: torch.Tensor) -> None:
    loss = LipLoss(load_face_mesh())
    predicted, real = pictures.clone().requires_grad_(), pictures.clone().requires_grad_()
    assert loss(predicted, real).item() == pytest.approx(0, abs=1e-6)
    found = loss(predicted, real.flip(1))
    found.backward()
    assert found.item() > 0 and predicted.grad.abs().max() > 0 and real.grad is None
    assert not any(value.requires_grad for value in loss.parameters())


def test_slices_change_nothing(pictures: torch.Tensor) -> None:
    network, gradients = load_face_mesh(), []
    for size in (None, 3):
        predicted = pictures.clone().requires_grad_()
        LipLoss(network, size)(predicted, pictures.flip(1)).backward()
        gradients.append(predicted.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
