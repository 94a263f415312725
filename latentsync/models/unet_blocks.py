"""The three kinds of level in the denoiser: on the way down, in the middle, on the way up."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.attention import SpatialTransformer
from latentsync.models.motion_module import MotionModule
from latentsync.models.resnet import Downsample, ResnetBlock, Upsample


@dataclass(frozen=True)
class LevelSizes:
    """What the layers of one level are made of.

    Attributes:
        channels: width of the level.
        in_channels: width that each layer is given; as many as the level has layers.
        time_dim: width of the time embedding.
        groups: groups of the norms, those along time excepted.
        audio_dim: width of an audio token, or None for a level without attention in the frame.
        motion: attention along time.
    """

    channels: int
    in_channels: list[int]
    time_dim: int
    groups: int
    audio_dim: int | None
    motion: bool


class Level(nn.Module):
    """Layers of one width: a convolution block each, then attention in the frame, then attention along time, where the level has them.

    The lists carry the names of the published files; an empty list leaves no entry there.

    Attributes:
        gradient_checkpointing: while training, forget activations inside each module and compute them again on the way back.
    """

    def __init__(self, sizes: LevelSizes) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        width, layers = sizes.channels, len(sizes.in_channels)
        attentions = [SpatialTransformer(width, sizes.audio_dim, sizes.groups) for _ in range(layers)] if sizes.audio_dim else []
        self.resnets = nn.ModuleList([ResnetBlock(n, width, sizes.time_dim, sizes.groups) for n in sizes.in_channels])
        self.attentions = nn.ModuleList(attentions)
        self.motion_modules = nn.ModuleList([MotionModule(width) for _ in range(layers)] if sizes.motion else [])

    def layer(self, index: int, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """x (b f) c h w, time b t, audio (b f) s d or None -> (b f) c h w."""
        x = self.run(self.resnets[index], x, time, frames)
        if len(self.attentions):
            x = self.run(self.attentions[index], x, audio)
        if len(self.motion_modules):
            x = self.run(self.motion_modules[index], x, frames)
        return x

    def run(self, module: nn.Module, *args: Any) -> Tensor:
        """Call a module, trading time for memory if asked to."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False)
        return module(*args)


class DownBlock(Level):
    """Layers, then half the height and width (not at the last level)."""

    def __init__(self, sizes: LevelSizes, resize: bool) -> None:
        super().__init__(sizes)
        self.downsamplers = nn.ModuleList([Downsample(sizes.channels)] if resize else [])

    def forward(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> list[Tensor]:
        """x (b f) c h w -> the states that the way up will want, in order; the last of them is the block's result."""
        skips = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, audio, frames)
            skips.append(x)
        for downsampler in self.downsamplers:
            skips.append(downsampler(x))
        return skips


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

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """x (b f) c h w and the states of the way down, the last of which are used first and taken off the list."""
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], dim=1), time, audio, frames)
        for upsampler in self.upsamplers:
            x = upsampler(x, skips[-1].shape[-2:])
        return x
