"""Chunks of pictures with known differences, and small networks, for the tests of metrics."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eval.metrics.base import Case, Chunk, Kind, Metric, Numbers, SetMetric
from latentsync.faces.alignment import face_size

SIDE = 64  # pixels of an aligned face
FRAME = (120, 160)  # height and width of a frame
CROP_AT = (50.0, 20.0)  # where the crop begins in a frame, x and y


def case(kind: Kind = "reconstruction", video: str = "generated.mp4", audio: str = "sound.wav") -> Case:
    return Case("a", Path(video), Path("source.mp4"), Path(audio), kind)


def random_pictures(count: int, *size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 200, (count, *size, 3)).astype(np.uint8)


def chunk(
    faces: Tensor | np.ndarray,
    source_faces: Tensor | np.ndarray,
    *,
    start: int = 0,
    frames: np.ndarray | None = None,
    source_frames: np.ndarray | None = None,
    has_face: np.ndarray | None = None,
) -> Chunk:
    """A chunk of faces; frames, where none are given, are noise that is the same in both; every crop lies at `CROP_AT`."""
    has_face = np.ones(len(faces), bool) if has_face is None else has_face
    plain = random_pictures(len(has_face), *FRAME)
    matrix = torch.tensor([[1.0, 0.0, -CROP_AT[0]], [0.0, 1.0, -CROP_AT[1]]])
    return Chunk(
        start,
        plain if frames is None else frames,
        plain if source_frames is None else source_frames,
        has_face,
        torch.as_tensor(faces),
        torch.as_tensor(source_faces),
        matrix.expand(len(faces), 2, 3).clone(),
    )


def rows_of(metric: Metric | SetMetric, *chunks: Chunk) -> np.ndarray:
    carried: list[Any] = []
    parts = [found for part in chunks if len(found := metric.of_chunk(part, carried))]
    return np.concatenate(parts) if parts else np.empty((0, 0))


def measured(metric: Metric, *chunks: Chunk, of: Case | None = None) -> Numbers:
    return metric.of_video(of or case(), rows_of(metric, *chunks))


def in_two(make: Callable[[slice, int], Chunk], count: int) -> tuple[Chunk, Chunk]:
    """The same frames in two chunks."""
    half = count // 2
    return make(slice(0, half), 0), make(slice(half, count), half)


def crop_corners() -> tuple[int, int, int, int]:
    """The crop in a frame: x0 y0 x1 y1."""
    width, height = face_size(SIDE)
    return int(CROP_AT[0]), int(CROP_AT[1]), int(CROP_AT[0]) + width, int(CROP_AT[1]) + height


class TinyI3d(nn.Module):
    """Means of the colours of a clip and their spread; complains where it is not fed as I3D should be."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[1:] == (3, 16, 224, 224) and bool(x.min() >= 0) and bool(x.max() <= 1)
        return torch.cat([x.mean((2, 3, 4)), x.std((2, 3, 4))], 1)


class TinyInception(nn.Module):
    """Means of the colours of pictures."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert return_features and x.dtype == torch.uint8
        return x.float().mean((2, 3))


class TinyArcFace(nn.Module):
    """The picture itself, at few pixels."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 112, 112)
        return nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)


def write_script(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(network).save(str(path))
    return path
