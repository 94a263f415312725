"""FaceMesh against numbers of the original network, which ai-edge-litert ran; its gradient; its conversion."""

import numpy as np
import pytest
import torch
from golden_recipe import load_case

from embedded.convert_face_mesh import main
from latentsync.third_party.face_mesh import POINTS, FaceMesh, load_face_mesh

SIDECAR, TENSORS = load_case("face_mesh")


@pytest.fixture(scope="module")
def network() -> FaceMesh:
    return load_face_mesh()


def picture() -> torch.Tensor:
    """Coarse noise, 1 3 192 192 in [0, 1]."""
    coarse = np.random.RandomState(SIDECAR["seed"]).randint(0, 256, (12, 12, 3))
    return torch.from_numpy(np.kron(coarse, np.ones((16, 16, 1)))).permute(2, 0, 1)[None].float() / 255


def test_outputs_equal_the_original(network: FaceMesh) -> None:
    points, presence = network(picture())
    torch.testing.assert_close(points, TENSORS["points"], **SIDECAR["tolerance"])
    torch.testing.assert_close(presence, TENSORS["presence"], **SIDECAR["tolerance"])


def test_gradients_reach_the_pictures_of_a_batch(network: FaceMesh) -> None:
    pictures = picture().repeat(2, 1, 1, 1).requires_grad_()
    points, presence = network(pictures)
    assert points.shape == (2, POINTS, 3) and presence.shape == (2,)
    points[1].sum().backward()
    assert pictures.grad[0].abs().max() == 0 and pictures.grad[1].abs().max() > 0


def test_another_wheel_is_refused(tmp_path, caplog) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"PK")
    assert main([f"--wheel={wheel}", f"--output={tmp_path / 'mesh.safetensors'}"]) == 2
    assert "name the wheel of mediapipe==0.10.21" in caplog.text and not (tmp_path / "mesh.safetensors").exists()
