"""Losses by the landmark network: its features, their change along time, its points."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.landmark_network import LandmarkNetwork

FAINT = 1e-2  # length below which a vector of features has no direction; those of a trained reader are 1 to 30 long


class LandmarkDifference(NamedTuple):
    """All losses, scalars."""

    appearance: Tensor  # of the frames, one by one
    motion: Tensor  # from each frame to the next; 0 for clips of one frame
    points: Tensor  # of the mouth's landmarks: squared, in standard deviations over faces


class LandmarkLoss(nn.Module):
    """Distances of the unit features of generated and real faces; always float32. The network is frozen.

    Each stage of the reader counts alike: squared distance of its unit vectors, 0 to 4, averaged over positions and frames.

    Attributes:
        slice_size: frames whose activations are held at once, computed a second time on the way back; None for all, computed once.
    """

    def __init__(self, reader: LandmarkNetwork, slice_size: int | None = None) -> None:
        super().__init__()
        self.reader = reader.float().eval().requires_grad_(False)
        self.slice_size = slice_size

    def forward(self, predicted: Tensor, real: Tensor) -> LandmarkDifference:
        """Pixels b f 3 h w in [-1, 1] of both; gradients flow into `predicted` alone."""
        with torch.no_grad():
            targets = self.look(real)
        *apart, points = [seen - target for seen, target in zip(self.look(predicted), targets, strict=True)]  # b f ...
        appearance = torch.stack([squared(stage) for stage in apart]).sum()
        moves = [squared(stage.diff(dim=1)) for stage in apart] if predicted.shape[1] > 1 else [0 * appearance]
        return LandmarkDifference(appearance, torch.stack(moves).sum(), points.square().mean())

    def look(self, pixels: Tensor) -> list[Tensor]:
        """Pixels b f 3 h w in [-1, 1] -> a map of unit vectors for each stage of the reader, b f c h' w'; and the points, b f 20 2."""
        faces = pixels.float().flatten(0, 1)
        slices = faces.split(self.slice_size or len(faces))
        if self.slice_size is None:
            found = [self.look_at(part) for part in slices]
        else:
            found = [checkpoint(self.look_at, part, use_reentrant=False, preserve_rng_state=False) for part in slices]
        return [torch.cat(part).unflatten(0, pixels.shape[:2]) for part in zip(*found, strict=True)]

    def look_at(self, faces: Tensor) -> list[Tensor]:
        """Faces n 3 h w -> maps n c h' w', each vector along c of length 1 (less where there is next to nothing); and the points."""
        stages = self.reader.features(faces)
        return [*(stage * (stage.square().sum(1, keepdim=True) + FAINT**2).rsqrt() for stage in stages), self.reader.tell(stages)]


def squared(apart: Tensor) -> Tensor:
    """Mean squared length of the vectors in b f c h w, a scalar."""
    return apart.square().sum(2).mean()
