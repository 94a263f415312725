"""Where the mouth is on aligned faces, told by the best of what is at hand: 68 landmarks, a mouth reader, or two corners alone."""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet
from torch import Tensor

from eval.measures.mouths import read_mouths
from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.align import face_size
from latentsync.faces.detector import FaceDetector
from latentsync.faces.mtcnn import LOOKS, MIN_FOLLOW_SCORE, cut_square, to_picture
from latentsync.faces.threads import one_thread
from latentsync.models.mouth_reader import FIRST_POINT, POINTS, MouthReader, load_mouth_reader
from latentsync.weights import WEIGHTS

LAST_POINT = FIRST_POINT + POINTS
CORNER_POINTS = slice(3, 5)  # the mouth's corners among MTCNN's five points
BORDER = 0.25  # of the crop's height: added around a face that fills its picture, so that a detector sees it whole
FACE_CENTRE, FACE_SIDE = (0.48, 0.40), 0.84  # of the square that MTCNN looks at: shares of the crop's width and height; of its height


class PointFinder(Protocol):
    """Finds the points of mouths.

    Attributes:
        name: in words, for protocols.
        has_lips: whether they are the 20 points of outer and inner lips, and not two corners.
    """

    name: str
    has_lips: bool

    def find(self, faces: Tensor) -> Tensor:
        """Aligned faces uint8 k R R 3 -> float32 k p 2: shares of the face's side, x before y; NaN where there is no mouth."""


class LandmarkPoints:
    """Points 48 to 67 of a detector that finds 68 landmarks in a picture."""

    name = "points 48 to 67 of face-alignment's 68 (2DFAN-4)"
    has_lips = True

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector

    def find(self, faces: Tensor) -> Tensor:
        points = torch.full((len(faces), POINTS, 2), torch.nan)
        for index, face in enumerate(faces):
            width, height = size = face_size(len(face))
            border = round(BORDER * height)
            picture = cv2.copyMakeBorder(cv2.resize(face.numpy(), size), border, border, border, border, cv2.BORDER_REPLICATE)
            found = [seen for seen in self.detector.detect(picture) if seen.landmarks is not None]
            if found:
                landmarks = max(found, key=lambda seen: seen.width * seen.height).landmarks[FIRST_POINT:LAST_POINT]
                points[index] = torch.from_numpy((landmarks + 0.5 - border) / (width, height))  # whole numbers are pixel centres
        return points


class ReaderPoints:
    """The 20 points of a mouth reader of this project."""

    name = "the 20 points of this project's mouth reader"
    has_lips = True

    def __init__(self, reader: MouthReader) -> None:
        self.reader = reader

    def find(self, faces: Tensor) -> Tensor:
        return read_mouths(self.reader, faces).points if len(faces) else torch.empty(0, POINTS, 2)


class CornerPoints:
    """The mouth's corners by the last of MTCNN's networks, which looks at the place where alignment has put the face."""

    name = "the two corners of the mouth by MTCNN, since neither face-alignment's files nor a mouth reader are here"
    has_lips = False

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = ONet().eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def find(self, faces: Tensor) -> Tensor:
        if not len(faces):
            return torch.empty(0, 2, 2)
        size = face_size(TEMPLATE_RESOLUTION)
        squares = look_squares(size)
        looks = np.stack([cut_square(upright, square) for upright in map(_unstretched, faces) for square in squares])  # n 48 48 3
        inputs = (torch.from_numpy(looks).to(self.device).permute(0, 3, 1, 2).float() - 127.5) / 128
        with one_thread():
            shifts, points, scores = (output.cpu().numpy() for output in self.network(inputs))
        places = to_picture(np.tile(squares, (len(faces), 1)), shifts, points)[1].reshape(len(faces), len(squares), -1, 2)
        corners = places.mean(axis=1)[:, CORNER_POINTS] / np.array(size)
        corners[scores[:, 1].reshape(len(faces), -1).mean(axis=1) < MIN_FOLLOW_SCORE] = np.nan
        return torch.from_numpy(corners.astype(np.float32))


class RememberedPoints:
    """Another finder that is asked once where several measures ask for the same faces; keeps the faces and points of two chunks."""

    def __init__(self, finder: PointFinder) -> None:
        self.finder, self.name, self.has_lips = finder, finder.name, finder.has_lips
        self._last: list[tuple[Tensor, Tensor]] = []

    def find(self, faces: Tensor) -> Tensor:
        for known, points in self._last:
            if known is faces:
                return points
        self._last = [*self._last[-1:], (faces, self.finder.find(faces))]
        return self._last[-1][1]


def _unstretched(face: Tensor) -> np.ndarray:
    """A face uint8 R R 3 in the proportions it has in the picture."""
    return cv2.resize(face.numpy(), face_size(TEMPLATE_RESOLUTION), interpolation=cv2.INTER_AREA)


def look_squares(size: tuple[int, int]) -> np.ndarray:
    """Corner x, y and side of the squares that MTCNN looks at, around the same place in every crop of (width, height); n 3."""
    width, height = size
    side, (x, y) = round(FACE_SIDE * height), FACE_CENTRE
    return np.array([(round(x * width + (a - 0.5) * side), round(y * height + (b - 0.5) * side), side) for a, b in LOOKS])


def build_points(checkpoints: Path, reader: Path | None = None, device: torch.device | str = "cpu") -> RememberedPoints:
    """The first that is there: face-alignment's files below `checkpoints`, the file of a mouth reader, MTCNN.

    Raises WeightsError where a file is there and cannot be used.
    """
    boxes, landmarks = (checkpoints / WEIGHTS[name].path for name in ("s3fd", "2dfan4"))
    if boxes.is_file() and landmarks.is_file():
        from latentsync.faces.fan import FanDetector  # takes seconds to import

        return RememberedPoints(LandmarkPoints(FanDetector(boxes, landmarks, device)))
    if reader is not None:
        return RememberedPoints(ReaderPoints(load_mouth_reader(reader).to(device).eval()))
    return RememberedPoints(CornerPoints(device))
