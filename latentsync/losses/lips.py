"""Loss by FaceMesh: where the lips of generated faces lie beside those of the target, on rendered and on real people."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.alignment import face_size
from latentsync.faces.mesh import OUTER_EYES
from latentsync.third_party.face_mesh import SIDE, FaceMesh, load_face_mesh

LIPS = (  # FaceMesh's contours: outer lower and upper, inner lower and upper
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
SQUARE, RAISED = 1.35, 0.03  # the square that FaceMesh is given: its side, and how far it lies above the middle, in heights of the crop
SPREAD = 0.03  # distances of the outer corners of the eyes: about how far lips move in speech


class LipLoss(nn.Module):
    """Squared distance of the lips' landmarks, in units of `SPREAD`; always float32. The network is frozen.

    Attributes:
        slice_size: frames whose activations are held at once, computed a second time on the way back; None for all, computed once.
    """

    def __init__(self, network: FaceMesh, slice_size: int | None = None) -> None:
        super().__init__()
        self.network, self.slice_size = network.float().eval().requires_grad_(False), slice_size

    def forward(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Aligned faces b f 3 h w in [-1, 1] of both -> a scalar; gradients flow into `predicted` alone."""
        with torch.no_grad():
            targets = self.landmarks(real.flatten(0, 1))  # (b f) 468 2
        found, scale = self.landmarks(predicted.flatten(0, 1)), (targets[:, OUTER_EYES[0]] - targets[:, OUTER_EYES[1]]).norm(dim=-1)
        apart = (found[:, LIPS] - targets[:, LIPS]) / (SPREAD * scale[:, None, None])
        return apart.square().sum(-1).mean()

    def landmarks(self, pixels: Tensor) -> Tensor:
        """Aligned faces n 3 h w -> landmarks n 468 2, pixels of FaceMesh's picture."""
        parts = pixels.float().split(self.slice_size or len(pixels))
        if not pixels.requires_grad:
            return torch.cat([self._slice(part) for part in parts])
        return torch.cat([checkpoint(self._slice, part, use_reentrant=False, preserve_rng_state=False) for part in parts])

    def _slice(self, pixels: Tensor) -> Tensor:
        width, height = face_size(TEMPLATE_RESOLUTION)  # aligned faces are square; this is their shape in the picture
        move = torch.tensor([[SQUARE * height / width, 0.0, 0.0], [0.0, SQUARE, -2 * RAISED]], device=pixels.device)
        grid = F.affine_grid(move.expand(len(pixels), 2, 3), [len(pixels), 3, SIDE, SIDE], align_corners=False)
        return self.network((F.grid_sample(pixels, grid, padding_mode="border", align_corners=False) + 1) / 2)[0][..., :2]


def load_lip_loss(path: Path, slice_size: int | None) -> LipLoss:
    """The loss with FaceMesh's weights, on the CPU. Raises WeightsError."""
    return LipLoss(load_face_mesh(path), slice_size)
