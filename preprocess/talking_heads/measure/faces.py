"""Follows the mouth in finished pictures as a stranger would: from the pixels alone, without the truth beside them.

MTCNN says where the face is. Its last network looks at the face many times over; the mean of its five points steadies a square around the
mouth. In that square the opening is the amount of what is new against the closed mouth of the first frames (cavity, teeth, tongue), and the
width is how far optical flow carries the skin about the two corners apart. Both are in arbitrary units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from scipy.ndimage import gaussian_filter1d

from latentsync.faces.mtcnn import MIN_FACE, MtcnnDetector, cut_square, to_picture
from latentsync.faces.threads import one_thread

_SCALES, _ACROSS, _DOWN = (0.9, 1.0, 1.12), (-0.06, -0.02, 0.02, 0.06), (-0.04, 0.04)  # looks: sides and shifts in shares of the face
_MIRRORED = [1, 0, 2, 4, 3]  # order of the five points in a mirrored picture
_STEADY = 1.0  # frames: how far the square's place is smoothed along time
_REFERENCE = 3  # frames at the start, before anybody speaks, that show the closed mouth
_SIDE = 96  # pixels of the square around the mouth
_SPAN = 1.7  # its side in distances of the eyes
_MIDDLE = (0.5, 0.42)  # where the mouth lies in it
_LIPS = (slice(24, 72), slice(22, 74))  # rows and columns of it in which the mouth opens
_COARSE = 48  # pixels a side at which what is new is sought: coarse enough for small faces


@dataclass(frozen=True)
class Sighting:
    """What MTCNN sees in the frames of a clip."""

    score: np.ndarray  # float32 n, 0 where no face is found
    points: np.ndarray  # float64 n 5 2, pixels: eyes, nose, corners of the mouth; missing ones are taken from their neighbours


@dataclass(frozen=True)
class MouthTrack:
    """A mouth as it is seen: arbitrary units, one value a frame."""

    opening: np.ndarray  # float64 n
    width: np.ndarray  # float64 n


class FaceWatcher:
    """MTCNN with a steady hand: a detection and the mean of many looks for each frame."""

    def __init__(self) -> None:
        self._detector = MtcnnDetector()
        self._last_network = MTCNN(min_face_size=MIN_FACE).eval().onet

    def watch(self, frames: Iterable[np.ndarray]) -> Sighting:
        """Finds the surest face of each frame (uint8 h w 3 RGB)."""
        scores, points = [], []
        for frame in frames:
            face = max(self._detector.detect(frame), key=lambda face: face.score, default=None)
            scores.append(0.0 if face is None else face.score)
            points.append(np.full((5, 2), np.nan) if face is None else self._look(frame, face.box))
        return Sighting(np.array(scores, np.float32), _fill_gaps(np.array(points).reshape(-1, 5, 2)))

    @torch.inference_mode()
    def _look(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The five points (float64 5 2) of the face in a box: the mean over looks that are shifted, scaled and mirrored."""
        side, middle = max(box[2] - box[0], box[3] - box[1]), (box[:2] + box[2:]) / 2
        corners = [(middle + side * (np.array([x, y]) - scale / 2), side * scale) for scale in _SCALES for x in _ACROSS for y in _DOWN]
        squares = np.round([[*corner, length] for corner, length in corners]).astype(int)
        looks = torch.from_numpy(np.stack([cut_square(frame, square) for square in squares])).permute(0, 3, 1, 2)  # n 3 48 48
        looks = (looks.float() - 127.5) / 128
        with one_thread():
            _, straight, _ = self._last_network(looks)
            _, mirrored, _ = self._last_network(looks.flip(3))
        back = torch.cat([1 - mirrored[:, :5][:, _MIRRORED], mirrored[:, 5:][:, _MIRRORED]], 1)
        shares = ((straight + back) / 2).numpy()
        return to_picture(squares, np.zeros((len(squares), 4)), shares)[1].mean(0).astype(np.float64)


def _fill_gaps(points: np.ndarray) -> np.ndarray:
    """Points (n 5 2) with those of frames without a face drawn straight between their neighbours; all zero where none is known."""
    known = np.isfinite(points[:, 0, 0])
    if not known.any():
        return np.zeros_like(points)
    at = np.arange(len(points))
    flat = points.reshape(len(points), -1)
    return np.stack([np.interp(at, at[known], column[known]) for column in flat.T], 1).reshape(points.shape)


def mouth_squares(frames: Sequence[np.ndarray], points: np.ndarray) -> tuple[np.ndarray, float]:
    """Upright squares around the mouth (uint8 n s s 3), one size for the whole clip, and their side in pixels of the picture."""
    steady = gaussian_filter1d(points, _STEADY, axis=0)
    eyes, mouth = steady[:, 1] - steady[:, 0], steady[:, 3:].mean(1)
    apart = float(np.median(np.linalg.norm(eyes, axis=1)))
    below = float(np.median(np.linalg.norm(mouth - steady[:, :2].mean(1), axis=1)))  # heads that are turned away have eyes close together
    side = _SPAN * max(apart, 0.9 * below, 1.0)
    squares = []
    for frame, axis, centre in zip(frames, eyes, mouth, strict=True):
        x = axis / max(float(np.linalg.norm(axis)), 1e-6) * side / _SIDE
        turn = np.array([[x[0], -x[1]], [x[1], x[0]]])
        corner = centre - turn @ (np.array(_MIDDLE) * _SIDE - 0.5)
        placed = np.concatenate([turn, corner[:, None]], 1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        squares.append(cv2.warpAffine(frame, placed, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(squares), side


def track_mouth(frames: Sequence[np.ndarray], sighting: Sighting) -> MouthTrack:
    """The mouth of one person in the frames (uint8 h w 3 RGB) of a clip that starts with the mouth closed."""
    squares, side = mouth_squares(frames, sighting.points)
    distance = np.linalg.norm(sighting.points[:, 4] - sighting.points[:, 3], axis=1)
    half = 0.5 * float(distance[:_REFERENCE].mean()) * _SIDE / side
    return MouthTrack(opening_of(squares), width_of(squares, half))


def opening_of(squares: np.ndarray) -> np.ndarray:
    """How much is new in the mouth of each square (n s s 3): the least colour distance to the closed mouth within one coarse pixel."""
    lab = np.stack([_coarse_lab(square) for square in squares])  # n c c 3
    closed = np.pad(lab[:_REFERENCE].mean(0), ((1, 1), (1, 1), (0, 0)), mode="edge")
    nearest = np.full(lab.shape[:3], np.inf, np.float32)
    for down in range(3):
        for across in range(3):
            moved = closed[down : down + _COARSE, across : across + _COARSE]
            new = np.square(lab - moved).sum(-1)
            nearest = np.minimum(nearest, np.stack([cv2.blur(picture, (3, 3)) for picture in new]))
    rows, columns = (slice(part.start * _COARSE // _SIDE, part.stop * _COARSE // _SIDE) for part in _LIPS)
    return np.sqrt(nearest[:, rows, columns]).sum((1, 2)).astype(np.float64)


def _coarse_lab(square: np.ndarray) -> np.ndarray:
    small = cv2.resize(square, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (0, 0), 0.8).astype(np.float32)


def width_of(squares: np.ndarray, half: float) -> np.ndarray:
    """How far the corners, `half` pixels beside the middle of each square (n s s 3), move apart against the closed mouth."""
    greys = [cv2.GaussianBlur(cv2.cvtColor(square, cv2.COLOR_RGB2GRAY), (0, 0), 1.2) for square in squares]
    closed = np.mean(greys[:_REFERENCE], 0).round().astype(np.uint8)
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    row, column = np.mgrid[:_SIDE, :_SIDE] - _SIDE * np.array(_MIDDLE[::-1])[:, None, None] + 0.5
    left, right = (np.exp(-(((column - at) / (0.22 * half)) ** 2) - (row / (0.25 * half)) ** 2) for at in (-half, half))
    weight = right / right.sum() - left / left.sum()
    return np.array([float((flow.calc(closed, grey, None)[..., 0] * weight).sum()) for grey in greys])
