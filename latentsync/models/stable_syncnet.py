"""StableSyncNet: does this mouth belong to this sound? (LatentSync, arXiv 2412.09262)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.constants import SYNCNET_NORM_GROUPS
from latentsync.models.attention import LAYER_NORM_EPS, TOKEN_NORM_EPS, Attention, FeedForward
from latentsync.models.syncnet import SyncNet

NORM_EPS = 1e-6

# Zeros at (left, right, top, bottom) before the strided convolution, so that the size is divided exactly
_KEEPS_HEIGHT, _KEEPS_WIDTH, _SHRINKS_BOTH = (0, 1, 1, 1), (1, 1, 0, 1), (0, 1, 0, 1)


@dataclass(frozen=True)
class EncoderSizes:
    """One of the two encoders. All sequences have one entry for each down block."""

    in_channels: int  # 1 for a mel window; 3 x frames for pixels, 4 x frames for latents
    block_out_channels: Sequence[int]
    downsample_factors: Sequence[int | Sequence[int]]
    attn_blocks: Sequence[int]  # 1: a block of attention follows
    dropout: float = 0.0


class StableSyncNet(SyncNet):
    """The SyncNet of LatentSync, of any sizes."""

    def __init__(self, audio: EncoderSizes, visual: EncoderSizes) -> None:
        super().__init__(visual.block_out_channels[-1], DownEncoder(audio), DownEncoder(visual))


class DownEncoder(nn.Module):
    """Convolution blocks that shrink a picture to one cell; the result is not negative."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        channels = list(sizes.block_out_channels)
        blocks: list[nn.Module] = []
        before = channels[0]
        for after, factor, attends in zip(channels, sizes.downsample_factors, sizes.attn_blocks, strict=True):
            blocks.append(DownBlock(before, after, as_factor(factor), sizes.dropout))
            if attends:
                blocks.append(AttentionBlock(after))
            before = after
        self.conv_in = nn.Conv2d(sizes.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(blocks)
        self.norm_out = nn.GroupNorm(SYNCNET_NORM_GROUPS, before, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """b c h w -> b d h' w', where h' and w' are 1 for the size that the encoder was made for. Raises ValueError for another size."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        if x.shape[-2:] != (1, 1):
            raise ValueError(
                f"the input ends as {x.shape[-2]}x{x.shape[-1]} cells instead of one: its height or width is not the encoder's"
            )
        return F.relu(self.norm_out(x))


class DownBlock(nn.Module):
    """Two times norm, SiLU, convolution, plus the input; then a strided convolution where the block shrinks."""

    def __init__(self, before: int, after: int, factor: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(SYNCNET_NORM_GROUPS, before, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = nn.GroupNorm(SYNCNET_NORM_GROUPS, after, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.downsample_conv = None if factor == (1, 1) else nn.Conv2d(after, after, 3, stride=factor)
        self._pad = padding(factor)

    def forward(self, x: Tensor) -> Tensor:
        """b c h w -> b c' h/factor w/factor."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        h = self.conv_shortcut(x) + h
        return h if self.downsample_conv is None else self.downsample_conv(F.pad(h, self._pad))


class AttentionBlock(nn.Module):
    """Self-attention among the cells and a feed-forward layer, between two 1x1 convolutions; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(SYNCNET_NORM_GROUPS, channels, eps=TOKEN_NORM_EPS)
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.attn = Attention(channels, bias=True)
        self.norm3 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.ff = FeedForward(channels)
        self.conv_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """b c h w -> b c h w."""
        height = x.shape[-2]
        tokens = self.conv_in(self.norm1(x)).flatten(2).transpose(1, 2)  # b (h w) c
        tokens = tokens + self.attn(self.norm2(tokens))
        tokens = tokens + self.ff(self.norm3(tokens))
        return self.conv_out(tokens.transpose(1, 2).unflatten(2, (height, -1))) + x


def as_factor(factor: int | Sequence[int]) -> tuple[int, int]:
    """A factor as height and width."""
    return (factor, factor) if isinstance(factor, int) else (int(factor[0]), int(factor[1]))


def padding(factor: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros (left, right, top, bottom) that a 3x3 convolution with this stride needs."""
    height, width = factor
    if height == 1 and width > 1:
        return _KEEPS_HEIGHT
    if width == 1 and height > 1:
        return _KEEPS_WIDTH
    return _SHRINKS_BOTH
