"""Attention along time: each cell of the picture looks at itself in the other frames of the clip (AnimateDiff, arXiv 2307.04725)."""

import math

import torch
from torch import Tensor, nn

from latentsync.constants import MAX_FRAMES, MOTION_NORM_GROUPS
from latentsync.models.attention import LAYER_NORM_EPS, TOKEN_NORM_EPS, Attention, FeedForward, to_map, to_tokens

POSITION_BASE = 10_000.0  # ratio of the longest to the shortest wavelength of the table


def position_table(length: int, channels: int) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of the frame number at falling frequencies: 1 length channels."""
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(POSITION_BASE) / channels))
    angle = torch.arange(length).unsqueeze(1) * frequency  # f (c/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).unsqueeze(0)  # 1 f c


class FramePosition(nn.Module):
    """Adds the position of each frame in its clip."""

    pe: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", position_table(MAX_FRAMES, channels))

    def forward(self, x: Tensor) -> Tensor:
        """n f c -> n f c, frames counted from the start of the clip."""
        return x + self.pe[:, : x.shape[1]]


class TemporalAttention(Attention):
    """Self-attention over the frames; positions are added first, so that q, k and v all carry them."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.pos_encoder = FramePosition(dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens n f c -> n f c."""
        return super().forward(self.pos_encoder(x), context)


class TemporalTransformerBlock(nn.Module):
    """Two attentions along time and a feed-forward; each after a LayerNorm and added to its input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(dim) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim, eps=LAYER_NORM_EPS) for _ in range(2)])
        self.ff = FeedForward(dim)
        self.ff_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b h w) f c -> (b h w) f c."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """GroupNorm over each single frame, linear, one block along time, linear, plus the input.

    The last linear starts at zero, so that a network that gains this module changes nothing until it is trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(MOTION_NORM_GROUPS, channels, eps=TOKEN_NORM_EPS)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalTransformerBlock(channels)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (b f) c h w -> (b f) c h w; everything between the two swaps of frames and cells works on single tokens or along time."""
        tokens = self.proj_in(to_tokens(self.norm(x)))  # (b f) (h w) c
        tokens = swap_frames_and_cells(tokens, frames)  # (b h w) f c
        tokens = self.transformer_blocks[0](tokens)
        tokens = swap_frames_and_cells(self.proj_out(tokens), tokens.shape[0] * frames // x.shape[0])  # (b f) (h w) c
        return x + to_map(tokens, x.shape[-2:])


def swap_frames_and_cells(tokens: Tensor, outer: int) -> Tensor:
    """(b outer) inner c -> (b inner) outer c."""
    return tokens.unflatten(0, (-1, outer)).transpose(1, 2).flatten(0, 1)


class MotionModule(nn.Module):
    """The name under which published files keep a temporal transformer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (b f) c h w -> (b f) c h w."""
        return self.temporal_transformer(x, frames)
