"""SyncNet in the manner of Wav2Lip (arXiv 2008.10010), as compared with StableSyncNet in the paper's ablation (arXiv 2412.09262)."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

NUM_FRAMES, RESOLUTION = 5, 256  # pictures it looks at, and the side of the face whose lower half they are
_SLOPE = 0.2  # of LeakyReLU


class _Layer(NamedTuple):
    """One layer of an encoder; `repeats` more of 3x3 follow, each plus its input."""

    out_channels: int
    kernel: int
    stride: int | tuple[int, int] = 1
    pad: int = 1
    repeats: int = 0
    leaky: bool = True  # LeakyReLU, else ReLU


_VISUAL = (  # b 15 128 256
    _Layer(32, 7, pad=3),
    _Layer(64, 5, (1, 2), repeats=2),
    _Layer(128, 3, 2, repeats=3),
    _Layer(256, 3, 3, repeats=2),
    _Layer(512, 3, 2, repeats=2),
    _Layer(1024, 3, 2, repeats=2),
    _Layer(1024, 3, 2, leaky=False),
    _Layer(1024, 3, pad=0, leaky=False),
    _Layer(1024, 1, pad=0, leaky=False),
)
_AUDIO = (  # b 1 80 16
    _Layer(32, 3, repeats=2),
    _Layer(64, 3, (3, 1), repeats=2),
    _Layer(128, 3, 3, repeats=2),
    _Layer(256, 3, (3, 2), repeats=2),
    _Layer(512, 3, 1, repeats=2),
    _Layer(1024, 3, pad=0, leaky=False),
    _Layer(1024, 1, pad=0, leaky=False),
)


class Wav2LipSyncNet(nn.Module):
    """Two encoders of batch-normalised convolutions; both give unit vectors of 1024 numbers, none of them negative.

    Statistics are those of the batch of each process: with several, weights agree and running statistics are the first process's.
    """

    width = _VISUAL[-1].out_channels

    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = _encoder(3 * NUM_FRAMES, _VISUAL)
        self.audio_encoder = _encoder(1, _AUDIO)

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Frames b 15 128 256, frame by frame, and mel b 1 80 16 -> unit vectors of both, b 1024 each."""
        return self.embed_frames(frames), self.embed_audio(mel)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Frames b 15 128 256 in [-1, 1] -> unit vectors b 1024."""
        return F.normalize(self.visual_encoder(frames).flatten(1), eps=1e-12)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Mel windows b 1 80 16 -> unit vectors b 1024."""
        return F.normalize(self.audio_encoder(mel).flatten(1), eps=1e-12)


class ConvBlock(nn.Module):
    """Convolution and batch norm, plus the input where `residual`, then the activation."""

    def __init__(self, in_channels: int, layer: _Layer, residual: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(in_channels, layer.out_channels, layer.kernel, layer.stride, layer.pad),
            nn.BatchNorm2d(layer.out_channels),
        )
        self.act = nn.LeakyReLU(_SLOPE) if layer.leaky else nn.ReLU()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """b c h w -> b c' h' w'."""
        out = self.conv_block(x)
        return self.act(out + x if self.residual else out)


def _encoder(channels: int, layers: tuple[_Layer, ...]) -> nn.Sequential:
    blocks = []
    for layer in layers:
        blocks.append(ConvBlock(channels, layer))
        channels = layer.out_channels
        again = _Layer(channels, 3, leaky=layer.leaky)
        blocks.extend(ConvBlock(channels, again, residual=True) for _ in range(layer.repeats))
    return nn.Sequential(*blocks)
