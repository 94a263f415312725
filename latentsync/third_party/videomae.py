"""VideoMAE v2: a vision transformer over short videos, whose features TREPA compares. Forward only.

Origin: "VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking" (arXiv 2303.16727), repository OpenGVLab/VideoMAEv2. Written
for this project from the papers (the transformer: arXiv 2010.11929; tubelets: arXiv 2203.12602). Parameter names and shapes are those
of the published file vit_g_hybrid_pt_1200e_ssv2_ft.pth, whose weights are licensed CC-BY-NC 4.0.
"""

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.config import VideoMAEConfig
from latentsync.errors import InputError
from latentsync.weights import load_strict, read_state_dict

NORM_EPS = 1e-6
MAX_PERIOD = 10_000.0  # ratio of the fastest to the slowest wave of the position table
NUM_CLASSES = 174  # actions of Something-Something v2, which the published network was fine-tuned to tell apart
_HINT = "use vit_g_hybrid_pt_1200e_ssv2_ft.pth, or set the section videomae of the configuration to the sizes of this file"


class VideoMAEAttention(nn.Module):
    """Self-attention of all tokens; queries and values have a bias, keys have none."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.num_heads, -1))  # b n 3 heads e
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each b heads n e
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One layer of the transformer: attention, then feed-forward, each on normalised tokens and added to them."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = VideoMAEAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        layers = {"fc1": nn.Linear(config.width, config.hidden), "gelu": nn.GELU(), "fc2": nn.Linear(config.hidden, config.width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VideoMAE(nn.Module):
    """A video as one vector: the normalised mean of the tokens after the last layer; `head` is there because the published file has it."""

    positions: Tensor  # 1 (f' h' w') d
    gradient_checkpointing = False  # compute the activations of each block a second time on the way back, instead of keeping them

    def __init__(self, config: VideoMAEConfig, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.config = config
        self.grid = (config.num_frames // config.tubelet_size, *[config.image_size // config.patch_size] * 2)  # f' h' w'
        tubelet = (config.tubelet_size, config.patch_size, config.patch_size)  # a patch that lasts a few frames, one token
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv3d(3, config.width, tubelet, stride=tubelet), flatten=nn.Flatten(2)))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.fc_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width, num_classes)
        table = position_table(self.grid[0] * self.grid[1] * self.grid[2], config.width)
        self.register_buffer("positions", table[None], persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and so of the input."""
        return self.fc_norm.weight.dtype

    def forward(self, video: Tensor) -> Tensor:
        """Features b d of videos b 3 f h w in [0, 1] of the configured size; other f than `num_frames` interpolate the position table."""
        x = self.patch_embed(video).transpose(1, 2) + self.positions_of(video.shape[2])  # b (f' h' w') d
        recomputes = self.gradient_checkpointing and torch.is_grad_enabled() and x.requires_grad
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False) if recomputes else block(x)
        return self.fc_norm(x.mean(dim=1))

    def positions_of(self, frames: int) -> Tensor:
        """The position table for a number of frames: 1 (f' h' w') d."""
        steps = frames // self.config.tubelet_size
        if steps == self.grid[0]:
            return self.positions
        if steps == 0:
            size = self.config.tubelet_size
            raise InputError(f"A clip of {frames} frames is too short for TREPA, which sees {size} frames as one: raise data.num_frames.")
        volume = self.positions.transpose(1, 2).unflatten(2, self.grid)  # 1 d f' h' w'
        return F.interpolate(volume, size=(steps, *self.grid[1:]), mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)


def position_table(length: int, width: int) -> Tensor:
    """Sines (even columns) and cosines (odd columns) of positions 0 .. length - 1 at falling frequencies, float32 n d, on the CPU."""
    column = torch.arange(width, dtype=torch.float64, device="cpu")  # on the CPU although the network may be built without memory
    frequency = MAX_PERIOD ** (-2 * (column // 2) / width)
    angle = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * frequency
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def load_videomae(config: VideoMAEConfig, path: Path | str, dtype: torch.dtype = torch.float32) -> VideoMAE:
    """The network of a torch file, on the CPU, in evaluation mode and frozen; gradients reach its input. Raises WeightsError."""
    weights = read_state_dict(path)[0]
    head = weights.get("head.weight")
    with torch.device("meta"):
        network = VideoMAE(config, len(head) if isinstance(head, Tensor) and head.dim() == 2 else NUM_CLASSES)
    load_strict(network, weights, path, _HINT, assign=True)
    return network.to(dtype).eval().requires_grad_(False)
