"""TREPA: the distance of generated and real clips in the features of VideoMAE v2 (LatentSync, arXiv 2412.09262, section 3.3)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.config import VideoMAEConfig
from latentsync.third_party.videomae import VideoMAE, load_videomae


class TREPALoss(nn.Module):
    """Mean squared distance of the unit features of a generated and of a real clip. The network is frozen.

    The distance is small, 4 / width at most; the network computes in the type of its own weights, all else in float32.
    """

    def __init__(self, network: VideoMAE) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Pixels b f 3 h w in [-1, 1] of both -> a scalar; gradients flow into `predicted` alone."""
        with torch.no_grad():
            target = self.features(real)
        return F.mse_loss(self.features(predicted), target)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels b f 3 h w in [-1, 1] -> unit vectors b d, float32."""
        video = self.prepare(pixels).transpose(1, 2)  # b 3 f s s
        return F.normalize(self.network(video.to(self.network.dtype)).float(), dim=1)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels b f 3 h w in [-1, 1] at the network's size and range: b f 3 s s in [0, 1], not normalised further."""
        size = (self.network.config.image_size,) * 2
        frames = F.interpolate(pixels.float().flatten(0, 1), size=size, mode="bicubic", align_corners=False)  # (b f) 3 s s
        return (frames / 2 + 0.5).clamp(0, 1).unflatten(0, pixels.shape[:2])


def load_trepa(config: VideoMAEConfig, path: Path, dtype: torch.dtype, gradient_checkpointing: bool) -> TREPALoss:
    """TREPA with a file of VideoMAE v2, on the CPU. Raises WeightsError where the file is missing, unreadable, or of another network."""
    network = load_videomae(config, path)
    network.gradient_checkpointing = gradient_checkpointing
    return TREPALoss(network.to(dtype))
