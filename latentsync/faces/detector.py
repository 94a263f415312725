"""One interface for every face detector: what a face is, and what the look pass asks of a back end."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np

Smoothing = Literal["none", "window", "laplacian"]

MAX_ASPECT, MIN_ASPECT = 1.5, 0.2  # width over height of a box that can be a face
MIN_ANCHOR_SPREAD = 1.0  # pixels: anchors closer together than this fix no transform


@dataclass(frozen=True)
class Face:
    """One face of one picture, in pixels of that picture."""

    box: np.ndarray  # float32 [4]: x0 y0 x1 y1
    score: float  # how sure the detector is, in [0, 1]
    anchors: np.ndarray  # float32 [3 2]: left brow, right brow, nose; left = smaller x
    landmarks: np.ndarray | None = None  # float64 [68 2], of back ends that find them

    @property
    def width(self) -> float:
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])

    def scaled(self, factor: float) -> "Face":
        """The same face in a picture `factor` times as large; pixel centres stay pixel centres."""
        shift = (factor - 1) / 2
        landmarks = None if self.landmarks is None else self.landmarks * factor + shift
        return replace(self, box=self.box * factor, anchors=self.anchors * factor + shift, landmarks=landmarks)


class FaceDetector(Protocol):
    """A back end. It keeps no state between pictures."""

    name: str
    smoothing: Smoothing  # how its anchors want to be smoothed along time
    long_side: int | None  # pictures are shrunk to this many pixels before it sees them; None: never

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture uint8 [h w 3] RGB, in any order."""


@runtime_checkable
class FaceFollower(Protocol):
    """A detector that can also, much faster, find a face again near where it was."""

    stride: int  # frames from one full detection to the next

    def follow(self, picture: np.ndarray, faces: list[Face]) -> list[Face | None]:
        """Each face found again in a neighbouring picture, or None where it is gone."""


def is_plausible(face: Face) -> bool:
    """Whether a box can be a face at all: sides and anchors that are finite and apart, proportions of a head."""
    if not (np.isfinite(face.box).all() and np.isfinite(face.anchors).all()) or face.width <= 0 or face.height <= 0:
        return False
    return MIN_ASPECT <= face.width / face.height <= MAX_ASPECT and float(np.ptp(face.anchors, axis=0).max()) >= MIN_ANCHOR_SPREAD


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, in [0, 1]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (float((box[2] - box[0]) * (box[3] - box[1])) + float((other[2] - other[0]) * (other[3] - other[1])) - shared)
