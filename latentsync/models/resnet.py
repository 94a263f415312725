"""Convolutions, frame by frame, with norms that all frames of a clip share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESNET_NORM_EPS = 1e-5


class ClipGroupNorm(nn.GroupNorm):
    """GroupNorm whose mean and variance are taken over all frames of a clip at once (group x f x h x w).

    A frame's result therefore depends on the frames it shares the clip with, with or without attention along time.
    """

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=RESNET_NORM_EPS)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (b f) c h w -> (b f) c h w; the regrouping is a view where x lies in memory channels last."""
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # b c f h w
        # On CUDA the norm works channels first: one copy here spares two further on. On the CPU nothing is copied.
        clips = super().forward(clips).contiguous(memory_format=torch.channels_last_3d)
        return clips.transpose(1, 2).flatten(0, 1)  # (b f) c h w


class ResnetBlock(nn.Module):
    """Two times norm, SiLU, 3x3 convolution, with the time embedding added in between; plus the input."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int) -> None:
        super().__init__()
        self.norm1 = ClipGroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = ClipGroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """x (b f) c h w, time b t (the time embedding after its SiLU) -> (b f) c h w."""
        shift = self.time_emb_proj(time).repeat_interleave(frames, dim=0)[:, :, None, None]  # (b f) c 1 1
        h = self.conv1(F.silu(self.norm1(x, frames))) + shift
        h = self.conv2(F.silu(self.norm2(h, frames)))
        return self.conv_shortcut(x) + h


class Downsample(nn.Module):
    """Half the height and width (rounded up) by a 3x3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b f) c h w -> (b f) c ceil(h/2) ceil(w/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(b f) c h w -> (b f) c *size: the size of the skip that comes next, which is twice h and w unless those were odd."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
