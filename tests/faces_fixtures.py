"""Pictures and detectors for the face tests: reference frames, and faces that are coloured squares."""

from dataclasses import dataclass

import numpy as np

from latentsync.faces.detector import Face


def reference_frame(k: int, width: int = 400, height: int = 300) -> np.ndarray:
    """Frame k of the reference cases, uint8 [h w 3]."""
    y, x = np.mgrid[0:height, 0:width]
    blue = ((x // 8 + y // 8 + k) % 2) * 160 + (x * y) % 64
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), blue], axis=-1).astype(np.uint8)


def square_face(x: float, y: float, side: float = 60.0, score: float = 1.0) -> Face:
    """A face whose box begins at x, y."""
    shares = np.array([[0.25, 0.3], [0.75, 0.3], [0.5, 0.6]], np.float32)
    corner = np.array([x, y], np.float32)
    return Face(np.array([x, y, x + side, y + side], np.float32), score, corner + shares * side)


def draw(faces: list[tuple[int, int]], side: int = 60, size: tuple[int, int] = (320, 200), ground: int = 90) -> np.ndarray:
    """A picture with a white square at each place."""
    picture = np.full((size[1], size[0], 3), ground, np.uint8)
    for x, y in faces:
        picture[y : y + side, x : x + side] = 255
    return picture


@dataclass
class SquareDetector:
    """Finds white squares of 60 pixels: everywhere, or within 10 pixels of where they were."""

    stride: int = 5
    name: str = "squares"
    weights: str = ""
    smoothing: str = "none"
    long_side: int | None = None
    detections: int = 0

    def detect(self, picture: np.ndarray) -> list[Face]:
        self.detections += 1
        return squares_of(picture)

    def follow(self, picture: np.ndarray, faces: list[Face]) -> list[Face | None]:
        found = squares_of(picture) if faces else []
        return [next((new for new in found if np.abs(new.box - old.box).max() <= 10), None) for old in faces]


def squares_of(picture: np.ndarray) -> list[Face]:
    """Every upper left corner of a white square."""
    white = np.pad((picture == 255).all(axis=-1), ((1, 0), (1, 0)))
    corners = white[1:, 1:] & ~white[:-1, 1:] & ~white[1:, :-1]
    return [square_face(float(x), float(y)) for y, x in zip(*corners.nonzero(), strict=True)]
