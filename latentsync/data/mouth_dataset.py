"""`MouthDataset`: faces from anywhere in rendered clips, and where their mouths truly are."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.batches import Batch, Turn
from latentsync.data.catalog import Catalog, ClipInfo
from latentsync.data.clip_dataset import ClipDataset, whole
from latentsync.data.degrade import degrade
from latentsync.data.findings import sidecar
from latentsync.errors import InputError
from latentsync.models.mouth_reader import FIRST_POINT, POINTS, READER_SIDE

REMEMBERED = 2000  # clips whose landmarks a process holds, some megabytes
_SHAPE = (68, 2)  # of the landmarks of one face
_ADVICE = "train on clips of aligned faces that were rendered with their truth"


@dataclass(frozen=True)
class MouthBatch(Batch):
    """Faces and the true mouths on them."""

    faces: Tensor  # uint8 b f h w 3
    points: Tensor  # float32 b f 20 2: landmarks 48..67 in units of the face's side, 0 = outer edge of the first pixel


class MouthDataset(ClipDataset[MouthBatch]):
    """Samples for the mouth reader.

    Args:
        num_frames: faces of a sample: drawn from the whole clip, or, where they are not `drawn`, as far apart as they can be.
        degraded: whether faces are made hard to read, see `degrade`.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        num_frames: int,
        seed: int,
        drawn: bool = True,
        degraded: bool = True,
        faces_cache: Path | None = None,
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=READER_SIDE, seed=seed, faces_cache=faces_cache)
        self.drawn, self.degraded = drawn, degraded
        self._remembered: OrderedDict[Path, np.ndarray] = OrderedDict()

    def sample(self, turn: Turn, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> MouthBatch:
        """See `ClipDataset`."""
        points = self._points(clip)
        frames = min(clip.frames, len(points))
        spread = np.linspace(0, frames - 1, self.num_frames).round().astype(int)
        indices = np.sort(rng.integers(frames, size=self.num_frames)) if self.drawn else spread
        faces, points = self.faces(clip, indices.tolist()).numpy(), points[indices]  # f h w 3, f 20 2
        if self.degraded:
            pairs = [degrade(*pair, rng) for pair in zip(faces, points, strict=True)]
            faces, points = (np.stack(values) for values in zip(*pairs, strict=True))
        return MouthBatch(
            position=whole(turn.position),
            clip=whole(turn.clip),
            problems=problems,
            faces=torch.from_numpy(faces)[None],
            points=torch.from_numpy(points)[None],
        )

    def _points(self, clip: ClipInfo) -> np.ndarray:
        """Points of a clip, n 20 2; those of the last few clips are remembered, since telling them from text takes time."""
        if clip.path not in self._remembered:
            while len(self._remembered) >= REMEMBERED:
                self._remembered.popitem(last=False)
            self._remembered[clip.path] = read_points(clip.path)
        return self._remembered[clip.path]


def read_points(clip: Path) -> np.ndarray:
    """The mouth's points in all frames of a rendered clip, in units of the face's side: float32 n 20 2.

    Raises InputError where it comes without, or with another picture than a square one.
    """
    path = sidecar(clip)
    try:
        truth = json.loads(path.read_bytes())
        landmarks = np.asarray(truth["landmarks"], dtype=np.float32)
        width, height = (int(truth["settings"][name]) for name in ("width", "height"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} tells no landmarks of a face ({type(error).__name__}): {_ADVICE}") from None
    if landmarks.ndim != 3 or landmarks.shape[1:] != _SHAPE or not len(landmarks) or not np.isfinite(landmarks).all():
        raise InputError(f"{path} tells landmarks that are no 68 points a frame: {_ADVICE}")
    if width != height or width < 1:
        raise InputError(f"{path} tells of a picture of {width} x {height} pixels, which is no aligned face: {_ADVICE}")
    return landmarks[:, FIRST_POINT : FIRST_POINT + POINTS] / width
