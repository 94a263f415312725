"""SyncNet v2: how far sound and mouth are apart, and how sure that is. Forward only.

Origin: "Out of time: automated lip sync in the wild" (Chung and Zisserman, ACCV 2016 workshops), repository joonson/syncnet_python (MIT).
Written for this project from the paper. Parameter names and shapes are those of the published file syncnet_v2.model.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from latentsync.constants import AUDIO_SAMPLE_RATE, RGB, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.audio import Samples
from latentsync.third_party.sync_search import Offset, OffsetSearch
from latentsync.third_party.syncnet_mfcc import COEFFICIENTS, column_count, mfcc
from latentsync.weights import load_frozen

SIDE = 224  # pixels of its pictures
FRAMES = 5  # pictures of one window
COLUMNS = 20  # columns of sound of one window: 0.2 seconds
COLUMNS_PER_FRAME = 4
SAMPLES_PER_FRAME = AUDIO_SAMPLE_RATE // VIDEO_FPS
T = TypeVar("T")
_HINT = "use syncnet_v2.model of the repository joonson/syncnet_python"


class SyncNetV2(nn.Module):
    """One encoder for five pictures of a face, one for 0.2 seconds of sound; 1024 numbers each, close where the two belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),
            *_conv2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1),
            *_conv2d(384, 256, 3, 1),
            *_conv2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_conv3d(RGB, 96, (FRAMES, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            *_conv3d(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def embed_sound(self, columns: Tensor) -> Tensor:
        """Windows of coefficients b 1 13 20 -> b 1024."""
        return self.netfcaud(self.netcnnaud(columns).flatten(1))

    def lip_features(self, pictures: Tensor) -> Tensor:
        """Pictures b 3 f 224 224 (BGR, 0..255) -> the head's input for each five successive ones: (b f - 4) 512."""
        return self.netcnnlip(pictures).flatten(2).transpose(1, 2).flatten(0, 1)

    def embed_lips(self, pictures: Tensor) -> Tensor:
        """Pictures b 3 f 224 224 (BGR, 0..255) -> an embedding of each five successive ones: (b f - 4) 1024."""
        return self.netfclip(self.lip_features(pictures))


def _conv2d(channels: int, width: int, kernel: int | tuple[int, int], pad: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, kernel, padding=pad), nn.BatchNorm2d(width), nn.ReLU()]


def _conv3d(channels: int, width: int, kernel: tuple[int, int, int], stride: int, pad: int) -> list[nn.Module]:
    """Stride and padding are those inside a picture."""
    return [nn.Conv3d(channels, width, kernel, (1, stride, stride), (0, pad, pad)), nn.BatchNorm3d(width), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def sound_windows(num_samples: int, published: bool = False) -> int:
    """Windows that a recording holds; `published` counts as the published program does, which takes one fewer than its frames allow."""
    if published:
        return max(0, num_samples // SAMPLES_PER_FRAME - FRAMES)
    return max(0, (column_count(num_samples) - COLUMNS) // COLUMNS_PER_FRAME + 1)


def window_count(num_frames: int, num_samples: int, published: bool = False) -> int:
    """Windows that pictures and sound both hold: window i has frames i..i+4 and columns 4i..4i+19."""
    return max(0, min(num_frames - FRAMES - published + 1, sound_windows(num_samples, published)))


class SyncNetEval:
    """Offset and confidence of pictures of one face and their sound, compared piece by piece: memory does not grow with the length."""

    def __init__(self, network: SyncNetV2, batch_size: int = 20) -> None:
        self.network, self.batch_size = network, batch_size

    @torch.inference_mode()
    def __call__(self, frames: Iterable[np.ndarray], samples: Samples, published: bool = False) -> Offset:
        """Compare crops of one face (uint8 h w 3, RGB, 25 a second, resized to 224 x 224) with their sound (mono at 16 kHz).

        `published`: count windows as the published program does. Raises InputError where there is less than one window.
        """
        columns = mfcc(samples).astype(np.float32)  # 13 t
        limit, needed = sound_windows(len(samples), published), FRAMES + published  # frames from the first of a window on
        search, start = OffsetSearch(), 0
        for pictures in overlapping_runs(map(to_picture, frames), self.batch_size, needed - 1):
            count = min(len(pictures) - needed + 1, limit - start)
            if count <= 0:
                break
            search.add(self.embed_lips(pictures[: count + FRAMES - 1]), self.embed_sound(columns, start, count))
            start += count
        if start == 0:
            raise InputError(f"A clip of under {needed} frames, or with less sound than that, has no offset: use a longer clip.")
        return search.finish()

    def embed_lips(self, pictures: list[np.ndarray]) -> Tensor:
        """Embeddings of each five successive pictures, uint8 224 224 3 BGR: n 1024."""
        weight = self.network.netfclip[0].weight
        video = torch.from_numpy(np.stack(pictures)).to(weight.device).permute(3, 0, 1, 2)[None]  # 1 3 f 224 224
        return self.network.embed_lips(video.to(weight.dtype)).float()

    def embed_sound(self, columns: np.ndarray, start: int, count: int) -> Tensor:
        """Embeddings of windows start..start+count of coefficients 13 t: n 1024."""
        weight = self.network.netfcaud[0].weight
        places = COLUMNS_PER_FRAME * np.arange(start, start + count)[:, None] + np.arange(COLUMNS)  # n 20
        windows = torch.from_numpy(columns[:, places].reshape(COEFFICIENTS, count, COLUMNS).transpose(1, 0, 2)[:, None])
        return self.network.embed_sound(windows.to(weight.device, weight.dtype)).float()


def to_picture(frame: np.ndarray) -> np.ndarray:
    """A frame uint8 h w 3, RGB, as the network is fed: 224 224 3, BGR."""
    size = frame.shape[:2]
    return np.ascontiguousarray((frame if size == (SIDE, SIDE) else cv2.resize(frame, (SIDE, SIDE)))[..., ::-1])


def overlapping_runs(items: Iterator[T], length: int, shared: int) -> Iterator[list[T]]:
    """Successive runs of `length` new items, each begun by the last `shared` of the one before (the first run has as many)."""
    run = list(islice(items, shared))
    while fresh := list(islice(items, length)):
        yield (run := [*run, *fresh])
        run = run[-shared:] if shared else []


def load_syncnet_v2(path: Path | str) -> SyncNetV2:
    """The network of a file like syncnet_v2.model; raises WeightsError when it is missing, unreadable or holds another network."""
    return load_frozen(SyncNetV2, path, _HINT)
