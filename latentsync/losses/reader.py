"""How differently generated mouths look and move, seen by this project's own reader of mouths.

Two losses for where the networks behind LPIPS and TREPA cannot be had. `appearance` stands in for LPIPS (Zhang et al., arXiv 1801.03924):
the same formula without its learnt weights of channels, and with features of a small network that learnt to find lips on rendered faces
in place of those of VGG-16. `motion` stands in for TREPA (LatentSync, arXiv 2412.09262, section 3.3): it compares how those features
change from frame to frame, in place of what VideoMAE v2 says of a clip. Neither is the published measure, and their values are not
comparable with it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.mouth_reader import MouthReader

FAINT = 1e-2  # length below which a vector of features has no direction; those of a trained reader are 1 to 30 long


class Difference(NamedTuple):
    """Both losses, scalars."""

    appearance: Tensor  # of the frames, one by one
    motion: Tensor  # from each frame to the next; 0 for clips of one frame


class ReaderLoss(nn.Module):
    """Distances of the unit features of generated and real faces; always float32. The network is frozen.

    Each stage of the reader counts alike: squared distance of its unit vectors, 0 to 4, averaged over positions and frames.

    Attributes:
        slice_size: frames whose activations are held at once, computed a second time on the way back; None for all, computed once.
    """

    def __init__(self, reader: MouthReader, slice_size: int | None = None) -> None:
        super().__init__()
        self.reader = reader.float().eval().requires_grad_(False)
        self.slice_size = slice_size

    def forward(self, predicted: Tensor, real: Tensor) -> Difference:
        """Pixels b f 3 h w in [-1, 1] of both; gradients flow into `predicted` alone."""
        with torch.no_grad():
            targets = self.features(real)
        apart = [seen - target for seen, target in zip(self.features(predicted), targets, strict=True)]  # b f c h' w'
        appearance = torch.stack([squared(stage) for stage in apart]).sum()
        if predicted.shape[1] < 2:
            return Difference(appearance, 0 * appearance)
        return Difference(appearance, torch.stack([squared(stage.diff(dim=1)) for stage in apart]).sum())

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Pixels b f 3 h w in [-1, 1] -> one map of unit vectors for each stage of the reader, b f c h' w'."""
        faces = pixels.float().flatten(0, 1)
        slices = faces.split(self.slice_size or len(faces))
        if self.slice_size is None:
            found = [self.unit_features(part) for part in slices]
        else:
            found = [checkpoint(self.unit_features, part, use_reentrant=False, preserve_rng_state=False) for part in slices]
        return [torch.cat(stage).unflatten(0, pixels.shape[:2]) for stage in zip(*found, strict=True)]

    def unit_features(self, faces: Tensor) -> list[Tensor]:
        """Faces n 3 h w -> maps n c h' w', each vector along c of length 1, or less where there is next to nothing."""
        return [stage * (stage.square().sum(1, keepdim=True) + FAINT**2).rsqrt() for stage in self.reader.features(faces)]


def squared(apart: Tensor) -> Tensor:
    """Mean squared length of the vectors in b f c h w, a scalar."""
    return apart.square().sum(2).mean()
