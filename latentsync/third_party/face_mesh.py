"""FaceMesh: 468 landmarks of a face and how sure it is that there is one. Differentiable.

Origin: "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (Kartynnik, Ablavatski, Grishchenko and Grundmann, 2019),
`face_landmark.tflite` in the wheel of mediapipe 0.10.21 (Apache-2.0). Written for this project from the operators and shapes in that file;
`embedded/convert_face_mesh.py` makes the weights of it.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.constants import RGB
from latentsync.weights import load_frozen

FACE_MESH = Path(__file__).resolve().parents[2] / "assets" / "embedded" / "face_mesh.safetensors"  # comes with the project
SIDE = 192  # pixels of its pictures
POINTS = 468
_HINT = "make it anew with `python -m embedded.convert_face_mesh`"


class MeshBlock(nn.Module):
    """A depthwise and a pointwise convolution beside a skip, which is pooled where they halve the sides, for the first channels."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1 if stride == 1 else 0, groups=channels)
        self.pointwise = nn.Conv2d(channels, width, 1)
        self.act = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        skip, inner = (x, x) if self.depthwise.stride[0] == 1 else (F.max_pool2d(x, 2), pad_end(x))
        x = self.pointwise(self.depthwise(inner))
        x[:, : skip.shape[1]] += skip
        return self.act(x)


class Stem(nn.Conv2d):
    """The first convolution, with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_end(x))


class FaceMesh(nn.Module):
    """One trunk, a head for the landmarks, a head for the presence of a face."""

    def __init__(self) -> None:
        super().__init__()
        trunk: list[nn.Module] = [Stem(RGB, 16, 3, 2), nn.PReLU(16), MeshBlock(16, 16), MeshBlock(16, 16)]
        for channels, width in ((16, 32), (32, 64), (64, 128), (128, 128)):
            trunk += [MeshBlock(channels, width, 2), MeshBlock(width, width), MeshBlock(width, width)]
        self.trunk = nn.Sequential(*trunk)
        self.landmarks = nn.Sequential(
            MeshBlock(128, 128, 2), MeshBlock(128, 128), MeshBlock(128, 128), *_narrow(), nn.Conv2d(32, POINTS * 3, 3)
        )
        self.presence = nn.Sequential(MeshBlock(128, 128, 2), *_narrow(), nn.Conv2d(32, 1, 3))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures b 3 192 192 (RGB in [0, 1]) -> landmarks b 468 3 (x, y, z in pixels of the picture) and logits of presence b."""
        features = self.trunk(pictures)  # b 128 6 6
        return self.landmarks(features).reshape(-1, POINTS, 3), self.presence(features).reshape(-1)


def _narrow() -> list[nn.Module]:
    return [nn.Conv2d(128, 32, 1), nn.PReLU(32), MeshBlock(32, 32)]


def pad_end(x: Tensor) -> Tensor:
    """One row below and one column on the right: TensorFlow's SAME padding for stride 2 and even sides."""
    return F.pad(x, (0, 1, 0, 1))


def load_face_mesh(path: Path = FACE_MESH, device: torch.device | str = "cpu") -> FaceMesh:
    """The network with frozen weights, float32, for evaluation. Raises WeightsError."""
    return load_frozen(FaceMesh, path, _HINT).to(device)
