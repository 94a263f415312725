"""Broad colours of a generated face brought to those of its source: a small model that has seen few kinds of light tints skin."""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.faces.mask import lip_box

CELLS = 16  # a side of the grid on which colours are compared
REACH = 1.5  # cells: standard deviation over which a difference spreads
LARGEST = 0.3  # of the range of pixels, which is 2: what differs by more is no tint


def skin_weights(keep: Tensor) -> Tensor:
    """Where colours are compared, float32 [h w]: on what the mask [h w] lets generate, but for the lips, which shall differ."""
    return (1 - keep) * (1 - lip_box(keep.shape[-1]).to(keep))


def match_skin(generated: Tensor, source: Tensor, weights: Tensor) -> Tensor:
    """Faces [... 3 h w] in [-1, 1] with the slow part of their difference to `source` added, as known where `weights` [h w] are above 0.

    Differences are averaged over cells, spread by a Gaussian that leaves out what has no weight, and so carried into the lips, too.
    """
    pixels, truth = generated.flatten(0, -4), source.flatten(0, -4)
    weights = weights.expand(len(pixels), 1, -1, -1)
    coarse = F.adaptive_avg_pool2d(torch.cat([(truth - pixels) * weights, weights], dim=1), CELLS)
    steps = torch.arange(-4, 5, dtype=coarse.dtype, device=coarse.device)
    line = torch.exp(-(steps**2) / (2 * REACH**2))
    kernel = torch.outer(line, line).expand(4, 1, -1, -1)
    spread = F.conv2d(coarse, kernel, padding=4, groups=4)
    shift = (spread[:, :3] / spread[:, 3:].clamp_min(1e-6)).clamp(-LARGEST, LARGEST)
    shift = F.interpolate(shift, pixels.shape[-2:], mode="bicubic", align_corners=False)
    return (pixels + shift).clamp(-1, 1).view_as(generated)
