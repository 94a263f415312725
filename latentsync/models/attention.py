"""Attention blocks of the U-Net: spatial self-attention, audio cross-attention, temporal self-attention."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.constants import ATTENTION_HEADS, MAX_FRAMES, MOTION_NORM_GROUPS

LAYER_NORM_EPS = 1e-5
MOST_SEQUENCES = 65_535  # of one fused call: the limit of a CUDA grid axis, which attention along time can pass
TOKEN_NORM_EPS = 1e-6  # of the GroupNorm in front of a transformer, along space or time


class GroupNorm(nn.GroupNorm):
    """torch's, which also takes groups of a single value: one frame of one cell."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Multi-head attention with as many heads at every width; `bias` is that of q, k and v, the output projection always has one."""

    def __init__(self, dim: int, context_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        context_dim = context_dim or dim
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim, dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])  # a list of one: the published name is "to_out.0"

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens n s c attend to tokens n t d (by default to themselves) -> n s c."""
        context = x if context is None else context
        projected = (self.to_q(x), self.to_k(context), self.to_v(context))
        q, k, v = (tokens.unflatten(-1, (ATTENTION_HEADS, -1)).transpose(1, 2) for tokens in projected)  # n heads s e, without a copy
        return self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))  # n s c


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of n sequences (n heads s e each), however many they are."""
    if len(q) <= MOST_SEQUENCES:
        return F.scaled_dot_product_attention(q, k, v)
    parts = zip(q.split(MOST_SEQUENCES), k.split(MOST_SEQUENCES), v.split(MOST_SEQUENCES), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class GEGLU(nn.Module):
    """Linear to twice the width; one half, through an exact GELU, gates the other (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The published names of the two are net.0 and net.2.
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class AudioTransformerBlock(nn.Module):
    """Self-attention, attention to the frame's own audio tokens, feed-forward; each after a LayerNorm and added to its input."""

    def __init__(self, dim: int, audio_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn1 = Attention(dim)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn2 = Attention(dim, audio_dim)
        self.norm3 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, audio: Tensor | None) -> Tensor:
        """Tokens (b f) (h w) c, audio (b f) s d; without audio its sub-layer is skipped."""
        x = x + self.attn1(self.norm1(x))
        if audio is not None:
            x = x + self.attn2(self.norm2(x), audio)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """The cells of each frame as tokens: GroupNorm over the single frame, 1x1 convolution, one block, 1x1 convolution, plus the input."""

    def __init__(self, channels: int, audio_dim: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=TOKEN_NORM_EPS)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([AudioTransformerBlock(channels, audio_dim)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, audio: Tensor | None) -> Tensor:
        """x (b f) c h w, audio (b f) s d or None -> (b f) c h w."""
        tokens = to_tokens(self.proj_in(self.norm(x)))  # (b f) (h w) c
        tokens = self.transformer_blocks[0](tokens, audio)
        return x + self.proj_out(to_map(tokens, x.shape[-2:]))  # (b f) c h w


def to_tokens(x: Tensor) -> Tensor:
    """n c h w -> n (h w) c; a view where x lies in memory channels last."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, size: torch.Size) -> Tensor:
    """n (h w) c -> n c h w, in memory channels last: a view of contiguous tokens."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


POSITION_BASE = 10_000.0  # ratio of the longest to the shortest wavelength of the table


def position_table(length: int, channels: int) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of the frame number at falling frequencies: 1 length channels."""
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(POSITION_BASE) / channels))
    angle = torch.arange(length).unsqueeze(1) * frequency  # f (c/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).unsqueeze(0)  # 1 f c


class TemporalAttention(Attention):
    """Self-attention over the frames; positions are added first, so that q, k and v all carry them."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.pos_encoder = nn.Module()  # a holder: the published name of the table is "pos_encoder.pe"
        self.pos_encoder.register_buffer("pe", position_table(MAX_FRAMES, dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens n f c -> n f c; frames count from the start of the clip."""
        return super().forward(x + self.pos_encoder.pe[:, : x.shape[1]], context)


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
        self.norm = GroupNorm(MOTION_NORM_GROUPS, channels, eps=TOKEN_NORM_EPS)
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
