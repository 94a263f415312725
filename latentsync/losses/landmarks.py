"""Losses by the landmark network: its features, their change along time, its landmarks."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.landmark_network import LandmarkNetwork, load_landmark_network

FAINT = 1e-2  # length below which a vector of features has no direction; those of a trained network are 1 to 30 long


class LandmarkDifference(NamedTuple):
    """All losses, scalars; the names are those of `run.loss_weights`."""

    landmark_feature: Tensor  # of the frames, one by one
    temporal_feature: Tensor  # from each frame to the next; 0 for clips of one frame
    landmarks: Tensor  # of the mouth's landmarks: squared, in standard deviations over faces


class LandmarkLoss(nn.Module):
    """Distances of the unit features and the landmarks of generated and real faces; always float32. The network is frozen.

    Each stage of the network counts alike: squared distance of its unit vectors, 0 to 4, averaged over positions and frames.

    Attributes:
        slice_size: frames whose activations are held at once, computed a second time on the way back; None for all, computed once.
    """

    def __init__(self, network: LandmarkNetwork, slice_size: int | None = None) -> None:
        super().__init__()
        self.network = network.float().eval().requires_grad_(False)
        self.slice_size = slice_size

    def forward(self, predicted: Tensor, real: Tensor) -> LandmarkDifference:
        """Pixels b f 3 h w in [-1, 1] of both; gradients flow into `predicted` alone."""
        with torch.no_grad():
            targets = self.features(real)
        *differences, points = [found - target for found, target in zip(self.features(predicted), targets, strict=True)]  # b f ...
        feature = torch.stack([mean_square(stage) for stage in differences]).sum()
        moves = [mean_square(stage.diff(dim=1)) for stage in differences] if predicted.shape[1] > 1 else [0 * feature]
        return LandmarkDifference(feature, torch.stack(moves).sum(), points.square().mean())

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Pixels b f 3 h w in [-1, 1] -> a map of unit vectors for each stage, b f c h' w'; and the standardised landmarks, b f 20 2."""
        faces = pixels.float().flatten(0, 1)
        if self.slice_size is None:
            found = [self.slice_features(faces)]
        else:
            slices = faces.split(self.slice_size)
            found = [checkpoint(self.slice_features, part, use_reentrant=False, preserve_rng_state=False) for part in slices]
        return [torch.cat(part).unflatten(0, pixels.shape[:2]) for part in zip(*found, strict=True)]

    def slice_features(self, faces: Tensor) -> list[Tensor]:
        """Faces n 3 h w -> maps n c h' w', each vector along c of length 1 (less where there is next to nothing); and the landmarks."""
        stages = self.network.features(faces)
        unit = [stage * (stage.square().sum(1, keepdim=True) + FAINT**2).rsqrt() for stage in stages]
        return [*unit, self.network.standardised_landmarks(stages)]


def mean_square(difference: Tensor) -> Tensor:
    """Mean squared length of the vectors in b f c h w, a scalar."""
    return difference.square().sum(2).mean()


def load_landmark_loss(path: Path, slice_size: int | None) -> LandmarkLoss:
    """The losses with a trained landmark network, on the CPU. Raises WeightsError."""
    return LandmarkLoss(load_landmark_network(path), slice_size)
