"""The denoising U-Net, inflated to clips."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.config import UNetConfig
from latentsync.constants import LATENT_CHANNELS, MAX_FRAMES, UNET_IN_CHANNELS
from latentsync.errors import InputError
from latentsync.models.attention import GroupNorm, SpatialTransformer, TemporalTransformer

RESNET_NORM_EPS = 1e-5
CACHE_BRANCHES_PER_BLOCK = 3  # branches are counted as if every up block had three layers, as the published networks have
MAX_PERIOD = 10_000.0  # ratio of the fastest to the slowest wave of the time embedding


class ClipGroupNorm(GroupNorm):
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


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(b f) c h w -> (b f) c *size: the size of the skip that comes next, which is twice h and w unless those were odd."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


@dataclass(frozen=True)
class LevelSizes:
    """What the layers of one level are made of."""

    channels: int  # width of the level
    in_channels: list[int]  # width that each layer is given; as many as the level has layers
    time_dim: int  # width of the time embedding
    groups: int  # of the norms, those along time excepted
    audio_dim: int | None  # width of an audio token; None: no attention in the frame
    motion: bool  # attention along time


class Level(nn.Module):
    """Layers of one width: a convolution block each, then attention in the frame, then attention along time, where the level has them.

    The lists carry the names of the published files; an empty list leaves no entry there.
    """

    def __init__(self, sizes: LevelSizes) -> None:
        super().__init__()
        self.gradient_checkpointing = False  # True: while training, compute what is inside a module again on the way back
        width, layers = sizes.channels, len(sizes.in_channels)
        attentions = [SpatialTransformer(width, sizes.audio_dim, sizes.groups) for _ in range(layers)] if sizes.audio_dim else []
        self.resnets = nn.ModuleList([ResnetBlock(n, width, sizes.time_dim, sizes.groups) for n in sizes.in_channels])
        self.attentions = nn.ModuleList(attentions)
        motions = [nn.ModuleDict({"temporal_transformer": TemporalTransformer(width)}) for _ in range(layers)] if sizes.motion else []
        self.motion_modules = nn.ModuleList(motions)

    def layer(self, index: int, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """x (b f) c h w, time b t, audio (b f) s d or None -> (b f) c h w."""
        x = self.run(self.resnets[index], x, time, frames)
        if len(self.attentions):
            x = self.run(self.attentions[index], x, audio)
        if len(self.motion_modules):
            x = self.run(self.motion_modules[index]["temporal_transformer"], x, frames)
        return x

    def run(self, module: nn.Module, *args: Any) -> Tensor:
        """Call a module, trading time for memory if asked to."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False)
        return module(*args)


class DownBlock(Level):
    """Layers, then half the height and width, rounded up (not at the last level)."""

    def __init__(self, sizes: LevelSizes, resize: bool) -> None:
        super().__init__(sizes)
        self.downsamplers = nn.ModuleList()
        if resize:  # the published name is "downsamplers.0.conv"
            conv = nn.Conv2d(sizes.channels, sizes.channels, 3, stride=2, padding=1)
            self.downsamplers.append(nn.Sequential(OrderedDict(conv=conv)))


class MidBlock(Level):
    """Convolution block, attention in the frame, convolution block; nothing along time."""

    def __init__(self, sizes: LevelSizes) -> None:
        super().__init__(sizes)
        self.resnets.append(ResnetBlock(sizes.channels, sizes.channels, sizes.time_dim, sizes.groups))

    def forward(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """x (b f) c h w -> (b f) c h w."""
        x = self.layer(0, x, time, audio, frames)
        return self.run(self.resnets[1], x, time, frames)


class UpBlock(Level):
    """Layers that each take one state of the way down back in, then twice the height and width (not at the last level)."""

    def __init__(self, sizes: LevelSizes, resize: bool) -> None:
        super().__init__(sizes)
        self.upsamplers = nn.ModuleList([Upsample(sizes.channels)] if resize else [])

    def layer_with_skip(self, index: int, x: Tensor, skips: list[Tensor], time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """One layer, and after the last one the enlargement: x (b f) c h w; the last state in `skips` is used and taken off the list."""
        x = self.layer(index, torch.cat([x, skips.pop()], dim=1), time, audio, frames)
        if index + 1 == len(self.resnets):
            for upsampler in self.upsamplers:
                x = upsampler(x, skips[-1].shape[-2:])
        return x


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids of a timestep."""

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, time_dim)
        self.linear_2 = nn.Linear(time_dim, time_dim)

    def forward(self, timestep: Tensor) -> Tensor:
        """Timesteps b -> b t."""
        half = self.linear_1.in_features // 2
        frequency = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(MAX_PERIOD) / half))
        angle = timestep.float()[:, None] * frequency  # b (c/2), float32
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


@dataclass
class FeatureCache:
    """What the deep layers gave in the last full step of one sampling loop (DeepCache, arXiv 2312.00858).

    A shallow step runs the layers of the way up from the place of `branch` to the end, and of the way down what these need.
    """

    branch: int = 0  # the way up begins at layer `branch % 3` of up block `branch // 3`, both counted from the output
    features: Tensor | None = None  # (b f) c h w, what the first of these layers is given; None lets the next step be a full one

    def depth(self, layers: int, levels: int) -> int:
        """Layers of the way up that a shallow step runs, in a network whose up blocks have `layers` each."""
        block, layer = divmod(self.branch, CACHE_BRANCHES_PER_BLOCK)
        return min(block, levels - 1) * layers + min(layer + 1, layers)


class UNet3DConditionModel(nn.Module):
    """Predicts the noise in the latents of a clip from its timestep, its audio, and mask, masked and reference latents.

    Names and shapes of the parameters are those of the published 1.5 and 1.6 files. `conv_in`, `conv_out` and the last layer of
    each motion module start at zero. Nothing in here mixes the items of a batch; the frames of a clip share the statistics of
    the convolution blocks' norms.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = list(config.block_out_channels)
        time_dim, last = 4 * widths[0], len(widths) - 1
        skips = [widths[0]]  # widths of the states that the way up takes back in

        def sizes(level: int, in_channels: list[int], motion: bool) -> LevelSizes:
            audio_dim = config.cross_attention_dim if level < last else None
            return LevelSizes(widths[level], in_channels, time_dim, config.norm_num_groups, audio_dim, motion)

        self.conv_in = nn.Conv2d(UNET_IN_CHANNELS, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], time_dim)
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            in_channels = [skips[-1]] + [width] * (config.layers_per_block - 1)
            motion = config.use_motion_module and not config.motion_module_decoder_only
            self.down_blocks.append(DownBlock(sizes(level, in_channels, motion), resize=level < last))
            skips += [width] * (config.layers_per_block + (level < last))
        self.mid_block = MidBlock(LevelSizes(widths[-1], widths[-1:], time_dim, config.norm_num_groups, config.cross_attention_dim, False))
        self.up_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            before = widths[min(level + 1, last)]
            in_channels = [(before if i == 0 else width) + skips.pop() for i in range(config.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(sizes(level, in_channels, config.use_motion_module), resize=level > 0))
        self.conv_norm_out = ClipGroupNorm(config.norm_num_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], LATENT_CHANNELS, 3, padding=1)
        for parameter in (*self.conv_in.parameters(), *self.conv_out.parameters()):
            nn.init.zeros_(parameter)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.conv_in.weight.device

    def enable_gradient_checkpointing(self, enable: bool = True) -> None:
        """While training, keep only the results of each layer and compute what is inside again on the way back."""
        for module in self.modules():
            if isinstance(module, Level):
                module.gradient_checkpointing = enable

    def forward(
        self, sample: Tensor, timestep: Tensor | int, encoder_hidden_states: Tensor | None = None, cache: FeatureCache | None = None
    ) -> Tensor:
        """The noise in a batch of clips, b 4 f h w. Raises InputError where a clip is longer than the position tables.

        Args:
            sample: b 13 f h w: noisy latents, mask, masked latents, reference latents.
            timestep: one for all clips, or b of them; 0..999.
            encoder_hidden_states: audio tokens of each frame, b f s d or (b f) s d; None leaves the audio layers out.
            cache: what it holds stands for the deep layers; an empty one is filled, and one of a smaller batch. Features of a larger
                batch end with those of these clips.
        """
        batch, _, frames = sample.shape[:3]
        if self.config.use_motion_module and frames > MAX_FRAMES:
            raise InputError(
                f"A clip of {frames} frames is longer than the {MAX_FRAMES} that the network can tell apart: lower data.num_frames."
            )
        time = torch.as_tensor(timestep, device=sample.device).expand(batch)
        time = F.silu(self.time_embedding(time))  # b t
        audio = encoder_hidden_states
        if audio is not None and audio.dim() == 4:
            audio = audio.flatten(0, 1)  # (b f) s d
        x = sample.transpose(1, 2).flatten(0, 1)  # (b f) c h w
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        x = self._levels(x, time, audio, frames, cache)
        x = self.conv_out(F.silu(self.conv_norm_out(x, frames)))
        return x.unflatten(0, (batch, frames)).transpose(1, 2).contiguous()  # b c f h w

    def _levels(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int, cache: FeatureCache | None) -> Tensor:
        """Down, through the middle, and up again: (b f) c h w -> (b f) c h w."""
        per_block = self.config.layers_per_block + 1
        layers = [(block, index) for block in self.up_blocks for index in range(per_block)]  # each takes one state of the way down
        depth = cache.depth(per_block, len(self.up_blocks)) if cache is not None else 0
        if cache is None or cache.features is None or len(cache.features) < len(x):
            skips = list(self._way_down(x, time, audio, frames))
            x = self.mid_block(skips[-1], time, audio, frames)
        else:
            skips, layers = list(islice(self._way_down(x, time, audio, frames), depth)), layers[-depth:]
            x = cache.features[-len(x) :]
        for number, (block, index) in enumerate(layers):
            if cache is not None and number == len(layers) - depth:
                cache.features = x
            x = block.layer_with_skip(index, x, skips, time, audio, frames)
        return x

    def _way_down(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Iterator[Tensor]:
        """The states of the way down, each (b f) c h w, computed as they are asked for: x itself, then those of each block."""
        yield x
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                x = block.layer(index, x, time, audio, frames)
                yield x
            for downsampler in block.downsamplers:
                x = downsampler(x)
                yield x
