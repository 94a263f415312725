"""`Faces`: the pictures of a clip at the resolution that is trained at, decoded for every sample or once for all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.cache import ClipCache
from latentsync.data.catalog import ClipInfo
from latentsync.data.frames import read_frames, read_pieces, resize_faces


class Faces:
    """Faces of clips by number.

    Args:
        resolution: side of a face in pixels.
        cache_dir: where decoded clips are kept (3 x resolution x resolution bytes a frame), for trainings that the processor holds up;
            None: each sample decodes what it needs.
    """

    def __init__(self, resolution: int, cache_dir: Path | None = None) -> None:
        self.resolution = resolution
        self._cache = None if cache_dir is None else ClipCache(cache_dir, f"faces-{resolution}")

    def __call__(self, clip: ClipInfo, indices: Sequence[int]) -> Tensor:
        """Frames in this order: uint8 f h w 3, RGB. Raises InputError where one cannot be decoded."""
        if self._cache is None:
            return resize_faces(read_frames(clip.path, indices), self.resolution)
        kept = self._cache.get(clip.path, lambda: self._decode(clip))
        return torch.from_numpy(kept[list(indices)])

    def _decode(self, clip: ClipInfo) -> np.ndarray:
        """All faces of a clip, held in memory once: uint8 n h w 3."""
        faces = np.empty((clip.frames, self.resolution, self.resolution, 3), np.uint8)
        done = 0
        for piece in read_pieces(clip.path, clip.frames):
            faces[done : done + len(piece)] = resize_faces(piece, self.resolution)
            done += len(piece)
        return faces
