"""Whether anything outside the generated part of a frame has changed."""

from typing import Any

import cv2
import numpy as np
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Metric, Numbers
from latentsync.faces.alignment import face_size
from latentsync.faces.mask import fixed_mask

CODEC_NOISE = 20  # grey levels in one channel: of four clips encoded as inference does by default, 1 pixel in 100 000 differs by more
MARGIN = 8  # pixels around the pasted crop that do not count: encoding carries what changes inside over its edge


class Seam(Metric):
    """Differences to the source where nothing was generated; the model's mask says which part of an aligned face is."""

    name = "seam"
    columns = (
        Column("seam_outside", "grey levels", "low", 2),
        Column("seam_changed", better="low", digits=5),
        Column("seam_kept", "grey levels", "low", 2),
    )

    def __init__(self, mask_name: str = "mask") -> None:
        self.mask_name = mask_name
        self.protocol = (
            f"Mean absolute difference of generated and source, RGB: seam_outside in the frame, over the pixels more than {MARGIN} pixels "
            "away from the crop that inference pastes back with a soft edge, and over whole frames without a face; seam_changed is the "
            f"share of these pixels that have changed by more than {CODEC_NOISE} grey levels in one channel, which encoding alone hardly "
            f"does; seam_kept on the aligned face, over the part that the mask '{mask_name}' keeps. None where no such pixel is in the "
            "picture."
        )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Sums over pixels 1 5: differences, changes and number outside; differences and number on kept parts of faces."""
        matrices, resolution = iter(chunk.matrices), chunk.faces.shape[1]
        sums = np.zeros(5)
        for frame, source, has_face in zip(chunk.frames, chunk.source_frames, chunk.has_face, strict=True):
            difference = cv2.absdiff(frame, source)  # h w 3
            if has_face:
                difference = difference[outside_crop(difference.shape[:2], next(matrices), resolution)]  # n 3
            difference = difference.reshape(-1, 3)
            changed = (difference > CODEC_NOISE).any(axis=1).sum()
            sums[:3] += difference.sum(dtype=np.int64) / 3, changed, len(difference)
        if len(chunk.faces):
            kept = fixed_mask(resolution, self.mask_name) == 1
            on_face = (chunk.faces[:, kept].short() - chunk.source_faces[:, kept].short()).abs()  # k n 3
            sums[3:] = float(on_face.sum()) / 3, on_face.shape[0] * on_face.shape[1]
        return sums[None]

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        outside, changed, pixels, kept, face_pixels = rows.sum(0).tolist()
        return {
            "seam_outside": outside / pixels if pixels else None,
            "seam_changed": changed / pixels if pixels else None,
            "seam_kept": kept / face_pixels if face_pixels else None,
        }


def outside_crop(size: tuple[int, int], matrix: Tensor, resolution: int) -> np.ndarray:
    """Which pixels of a picture (height, width) are further than `MARGIN` from the crop of a transform 2 3; bool h w."""
    width, height = face_size(resolution)
    backwards = cv2.invertAffineTransform(matrix.double().numpy())
    ends = [[-1, -1, 1], [width, -1, 1], [width, height, 1], [-1, height, 1]]  # as far as a linear sample reaches
    inside = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(np.array(ends) @ backwards.T).astype(np.int32), 1)
    return cv2.dilate(inside, np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)) == 0
