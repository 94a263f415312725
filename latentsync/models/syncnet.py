"""SyncNet: StableSyncNet and Wav2Lip's, built from a configuration."""

from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.config import EncoderConfig, SyncNetConfig, SyncNetModelConfig, load_syncnet_config
from latentsync.constants import SYNCNET_NORM_GROUPS
from latentsync.models.attention import LAYER_NORM_EPS, TOKEN_NORM_EPS, Attention, FeedForward, to_map, to_tokens
from latentsync.weights import load_strict, read_state_dict

NORM_EPS = 1e-6
# Zeros at (left, right, top, bottom) before the strided convolution, so that the size is divided exactly
_KEEPS_HEIGHT, _KEEPS_WIDTH, _SHRINKS_BOTH = (0, 1, 1, 1), (1, 1, 0, 1), (0, 1, 0, 1)
NUM_FRAMES = 5  # of a sample of Wav2Lip's SyncNet: lower halves of faces of 256 pixels
_SLOPE = 0.2  # of its LeakyReLU


class SyncNet(nn.Module):
    """What both kinds of SyncNet are. Encoders give b d 1 1, none of it negative; embeddings are unit vectors."""

    def __init__(self, width: int, audio_encoder: nn.Module, visual_encoder: nn.Module) -> None:
        super().__init__()
        self.width = width  # d, numbers in an embedding
        self.audio_encoder = audio_encoder  # of mel windows b 1 80 t
        self.visual_encoder = visual_encoder  # of frames b (f c) h w

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Frames b (f c) h w, frame by frame, and mel b 1 80 t -> unit vectors of both, b d each."""
        return self.embed_frames(frames), self.embed_audio(mel)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Frames b (f c) h w -> unit vectors b d."""
        return F.normalize(self.visual_encoder(frames).flatten(1), eps=1e-12)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Mel windows b 1 80 t -> unit vectors b d."""
        return F.normalize(self.audio_encoder(mel).flatten(1), eps=1e-12)


class StableSyncNet(SyncNet):
    """The SyncNet of LatentSync, of any sizes."""

    def __init__(self, audio: EncoderConfig, visual: EncoderConfig) -> None:
        super().__init__(visual.block_out_channels[-1], DownEncoder(audio), DownEncoder(visual))


class DownEncoder(nn.Module):
    """Convolution blocks that shrink a picture to one cell; the result is not negative."""

    def __init__(self, sizes: EncoderConfig) -> None:
        super().__init__()
        channels = list(sizes.block_out_channels)
        blocks: list[nn.Module] = []
        before = channels[0]
        for after, factor, attends in zip(channels, sizes.downsample_factors, sizes.attn_blocks, strict=True):
            height, width = (factor, factor) if isinstance(factor, int) else factor
            blocks.append(SyncNetDownBlock(before, after, (int(height), int(width)), sizes.dropout))
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


class SyncNetDownBlock(nn.Module):
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
        tokens = to_tokens(self.conv_in(self.norm1(x)))  # b (h w) c
        tokens = tokens + self.attn(self.norm2(tokens))
        tokens = tokens + self.ff(self.norm3(tokens))
        return self.conv_out(to_map(tokens, x.shape[-2:])) + x


def padding(factor: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros (left, right, top, bottom) that a 3x3 convolution with this stride needs."""
    height, width = factor
    return _KEEPS_HEIGHT if height == 1 < width else _KEEPS_WIDTH if width == 1 < height else _SHRINKS_BOTH


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


def lower_half(frames: Tensor) -> Tensor:
    """Rows h // 2 and below: [... h w] -> [... h/2 w]."""
    return frames[..., frames.shape[-2] // 2 :, :]


def syncnet_frames(frames: Tensor, lower: bool) -> Tensor:
    """Frames b f c h w as SyncNet takes them, b (f c) h w: channels frame by frame; with `lower`, the lower halves alone."""
    return (lower_half(frames) if lower else frames).flatten(1, 2)


def make_syncnet(model: SyncNetModelConfig) -> SyncNet:
    """A fresh network of a configuration's kind and sizes."""
    if model.network == "wav2lip":
        return Wav2LipSyncNet()
    return StableSyncNet(model.audio_encoder, model.visual_encoder)


def load_syncnet(config_path: Path, weights: Path) -> tuple[SyncNetConfig, SyncNet]:
    """A trained SyncNet on the CPU, and the configuration that it was trained with.

    Raises ConfigError or WeightsError where the two do not belong together or cannot be read.
    """
    config = load_syncnet_config(config_path)
    network = make_syncnet(config.model)
    load_strict(network, read_state_dict(weights)[0], weights, f"use the weights that belong to {config_path}")
    return config, network
