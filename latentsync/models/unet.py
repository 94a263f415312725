"""The denoiser: a U-Net over the frames of a clip that listens to their sound (LatentSync, arXiv 2412.09262, section 3).

It is the U-Net of Stable Diffusion 1.5 (Rombach et al. 2022, arXiv 2112.10752), applied frame by frame, with three changes: the
input also carries the mask, the masked and the reference latents; attention to text becomes attention to each frame's audio;
and each layer may be followed by attention along time.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.config import UNetConfig
from latentsync.constants import LATENT_CHANNELS, MAX_FRAMES, UNET_IN_CHANNELS
from latentsync.errors import InputError
from latentsync.models.resnet import ClipGroupNorm
from latentsync.models.unet_blocks import DownBlock, Level, LevelSizes, MidBlock, UpBlock

MAX_PERIOD = 10_000.0  # ratio of the fastest to the slowest wave of the time embedding


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids of a timestep."""

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, time_dim)
        self.linear_2 = nn.Linear(time_dim, time_dim)

    def forward(self, timestep: Tensor) -> Tensor:
        """Timesteps b -> b t."""
        waves = sinusoids(timestep, self.linear_1.in_features).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


def sinusoids(timestep: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, of the timestep at `channels / 2` falling frequencies, in float32: b channels."""
    half = channels // 2
    frequency = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(MAX_PERIOD) / half))
    angle = timestep.float()[:, None] * frequency  # b (c/2)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class UNet3DConditionModel(nn.Module):
    """Predicts the noise in the latents of a clip from its timestep, its audio and the latents of what may be seen.

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
        """Type of the weights, and so of the input."""
        return self.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.conv_in.weight.device

    def enable_gradient_checkpointing(self, enable: bool = True) -> None:
        """While training, keep only the results of each layer and compute what is inside again on the way back."""
        for module in self.modules():
            if isinstance(module, Level):
                module.gradient_checkpointing = enable

    def forward(self, sample: Tensor, timestep: Tensor | int, encoder_hidden_states: Tensor | None = None) -> Tensor:
        """The noise in a batch of clips.

        Args:
            sample: b 13 f h w: noisy latents, mask, masked latents, reference latents.
            timestep: one for all clips, or b of them; 0..999.
            encoder_hidden_states: audio tokens of each frame, b f s d or (b f) s d; None leaves the audio layers out.

        Returns:
            b 4 f h w

        Raises:
            InputError: a clip is longer than the position tables of the motion modules.
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
        x = self._levels(x, time, audio, frames)
        x = self.conv_out(F.silu(self.conv_norm_out(x, frames)))
        return x.unflatten(0, (batch, frames)).transpose(1, 2).contiguous()  # b c f h w

    def _levels(self, x: Tensor, time: Tensor, audio: Tensor | None, frames: int) -> Tensor:
        """Down, through the middle, and up again: (b f) c h w -> (b f) c h w."""
        skips = [x]
        for down_block in self.down_blocks:
            skips += down_block(skips[-1], time, audio, frames)
        x = self.mid_block(skips[-1], time, audio, frames)
        for up_block in self.up_blocks:
            x = up_block(x, skips, time, audio, frames)
        return x
