"""SyncNet in the manner of Wav2Lip (arXiv 2008.10010), as compared with StableSyncNet in the paper's ablation (arXiv 2412.09262)."""

from typing import NamedTuple

from torch import Tensor, nn

from latentsync.models.syncnet import SyncNet

NUM_FRAMES = 5  # pictures it looks at: lower halves of faces of 256 pixels
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


class Wav2LipSyncNet(SyncNet):
    """Encoders of batch-normalised convolutions, of one size: frames b 15 128 256 in [-1, 1] and mel b 1 80 16 to 1024 numbers.

    Statistics are those of the batch of each process: with several, weights agree and running statistics are the first process's.
    """

    def __init__(self) -> None:
        super().__init__(_VISUAL[-1].out_channels, _encoder(1, _AUDIO), _encoder(3 * NUM_FRAMES, _VISUAL))


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
