"""Whether anything outside the generated part of a frame has changed."""

import cv2
import numpy as np
import torch
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Numbers
from latentsync.faces.alignment import face_size
from latentsync.faces.mask import fixed_mask

CODEC_NOISE = 20  # grey levels in one channel: of four clips encoded as inference does by default, 1 pixel in 100 000 differs by more
CHANGED = f"changed by more than {CODEC_NOISE} grey levels"
MARGIN = 8  # pixels around the pasted crop that are not looked at: encoding carries what changes inside over its edge


class Seam:
    """A `Measure`.

    Args:
        mask_name: of the model's mask, which part of an aligned face is generated.
    """

    name = "seam"
    columns = (
        Column("seam_outside", "grey levels", "low", 2),
        Column("seam_changed", better="low", digits=5),
        Column("seam_kept", "grey levels", "low", 2),
    )

    def __init__(self, mask_name: str = "mask") -> None:
        self.mask_name = mask_name
        self.protocol = (
            f"Mean absolute difference of made and source, RGB: seam_outside in the frame, over the pixels more than {MARGIN} pixels away "
            "from the crop that inference pastes back with a soft edge, and over whole frames without a face; seam_changed is the "
            f"share of these pixels that have {CHANGED} in one channel, which encoding alone hardly does; seam_kept on the aligned "
            f"face, over the part that the mask '{mask_name}' keeps. None where no such pixel is in the picture."
        )

    def open(self, case: Case) -> "_SeamTally":
        """Begin with a video."""
        return _SeamTally(self.mask_name)


class _SeamTally:
    """One video: sums over pixels."""

    def __init__(self, mask_name: str) -> None:
        self._mask_name, self._kept = mask_name, torch.zeros(0, 0, dtype=torch.bool)
        self._outside, self._changed, self._pixels = 0.0, 0, 0
        self._face, self._face_pixels = 0.0, 0

    def add(self, chunk: Chunk) -> None:
        matrices, resolution = iter(chunk.matrices), chunk.faces.shape[1]
        for frame, source, has_face in zip(chunk.frames, chunk.source_frames, chunk.has_face, strict=True):
            apart = cv2.absdiff(frame, source)  # h w 3
            if has_face:
                apart = apart[outside_crop(apart.shape[:2], next(matrices), resolution)]  # n 3
            apart = apart.reshape(-1, 3)
            self._outside += float(apart.sum(dtype=np.int64)) / 3
            self._changed += int((apart > CODEC_NOISE).any(axis=1).sum())
            self._pixels += len(apart)
        if len(chunk.faces):
            if len(self._kept) != resolution:
                self._kept = fixed_mask(resolution, self._mask_name) == 1
            apart = (chunk.faces[:, self._kept].short() - chunk.source_faces[:, self._kept].short()).abs()  # k n 3
            self._face, self._face_pixels = self._face + float(apart.sum()) / 3, self._face_pixels + apart.shape[0] * apart.shape[1]

    def finish(self) -> Numbers:
        return {
            "seam_outside": self._outside / self._pixels if self._pixels else None,
            "seam_changed": self._changed / self._pixels if self._pixels else None,
            "seam_kept": self._face / self._face_pixels if self._face_pixels else None,
        }


def outside_crop(size: tuple[int, int], matrix: Tensor, resolution: int) -> np.ndarray:
    """Which pixels of a picture (height, width) are further than `MARGIN` from the crop of a transform 2 3; bool h w."""
    width, height = face_size(resolution)
    backwards = cv2.invertAffineTransform(matrix.double().numpy())
    corners = (
        np.array([[-1, -1, 1], [width, -1, 1], [width, height, 1], [-1, height, 1]]) @ backwards.T
    )  # as far as a linear sample reaches
    inside = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(corners).astype(np.int32), 1)
    return cv2.dilate(inside, np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)) == 0
