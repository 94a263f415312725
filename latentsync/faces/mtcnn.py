"""The offline detector: MTCNN from facenet-pytorch, whose weights come with its package."""

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

from latentsync.faces.detector import Face, Smoothing
from latentsync.faces.threads import one_thread

MIN_FACE = 20  # pixels of the shrunken picture
MIN_SCORE = 0.95  # of a face that full detection reports: leaves no false box on real clips
MIN_FOLLOW_SCORE = 0.8  # of a face found again, mean over its looks

# From eyes and nose to brows and nose: x runs from the left eye to the right one, y is perpendicular to it and points down.
LEFT_BROW = (-0.607, -0.297)
RIGHT_BROW = (0.578, -0.308)
NOSE_SHARE = 0.94  # of the way from the middle of the eyes to the tip of the nose

# Where the last network looks when it finds a face again: shift in x and y, in heights of the last box.
LOOKS = ((-0.06, 0.0), (0.06, 0.0), (0.0, -0.06), (0.0, 0.06))
INPUT = 48  # pixels a side that the last network sees


class MtcnnDetector:
    """Three cascaded networks; 5 points a face. `follow` runs the last of them on the neighbourhood of a known face."""

    name = "mtcnn"
    smoothing: Smoothing = "window"
    long_side: int | None = 640

    def __init__(self, device: torch.device | str = "cpu", stride: int = 8) -> None:
        self.stride = stride
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)  # Metal lacks the area filter it needs
        self._networks = MTCNN(keep_all=True, min_face_size=MIN_FACE, device=self.device).eval()

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture uint8 [h w 3] with a score over 0.95; pictures too small to hold one give none."""
        if min(picture.shape[:2]) < MIN_FACE:
            return []
        with one_thread():
            boxes, scores, points = self._networks.detect(np.ascontiguousarray(picture), landmarks=True)
        if boxes is None:
            return []
        found = zip(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(points, np.float32), strict=True)
        return [Face(box, float(score), anchors_from_points(five)) for box, score, five in found if score > MIN_SCORE]

    @torch.inference_mode()
    def follow(self, picture: np.ndarray, faces: list[Face]) -> list[Face | None]:
        """Each face found again in a picture uint8 [h w 3] near its last box: the mean of a few looks that agree."""
        if not faces:
            return []
        squares = np.stack([look_square(face.box, look) for face in faces for look in LOOKS])  # n 3: x0, y0, side
        looks = np.stack([cut_square(picture, square) for square in squares])  # n 48 48 3
        inputs = (torch.from_numpy(looks).to(self.device).permute(0, 3, 1, 2).float() - 127.5) / 128
        with one_thread():
            shifts, points, scores = (output.cpu().numpy() for output in self._networks.onet(inputs))
        boxes, points = to_picture(squares, shifts, points)
        groups = np.split(np.arange(len(squares)), len(faces))
        return [merge(boxes[group], points[group], scores[group, 1]) for group in groups]


def anchors_from_points(points: np.ndarray) -> np.ndarray:
    """Left brow, right brow and nose, float32 [3 2], from left eye, right eye, nose (and mouth corners) [5 2]."""
    left, right, nose = points[:3].astype(np.float64)
    middle, x = (left + right) / 2, right - left
    y = np.array([-x[1], x[0]])
    brows = [middle + across * x + down * y for across, down in (LEFT_BROW, RIGHT_BROW)]
    return np.stack([*brows, middle + NOSE_SHARE * (nose - middle)]).astype(np.float32)


def look_square(box: np.ndarray, look: tuple[float, float]) -> tuple[int, int, int]:
    """Corner x, y and side of the square around a box, moved by one of `LOOKS`; whole pixels."""
    side = max(round(float(max(box[2] - box[0], box[3] - box[1]))), 2)
    x, y = (box[0] + box[2]) / 2 + look[0] * side, (box[1] + box[3]) / 2 + look[1] * side
    return round(float(x) - side / 2), round(float(y) - side / 2), side


def cut_square(picture: np.ndarray, square: np.ndarray) -> np.ndarray:
    """A square of the picture, black beyond its edges, as uint8 [48 48 3]."""
    x, y, side = (int(value) for value in square)
    height, width = picture.shape[:2]
    left, top, right, bottom = max(-x, 0), max(-y, 0), max(x + side - width, 0), max(y + side - height, 0)
    patch = picture[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    if min(patch.shape[:2]) == 0:
        return np.zeros((INPUT, INPUT, 3), np.uint8)
    if left or top or right or bottom:
        patch = cv2.copyMakeBorder(patch, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return cv2.resize(patch, (INPUT, INPUT), interpolation=cv2.INTER_AREA)


def to_picture(squares: np.ndarray, shifts: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n 4] and points [n 5 2] in pixels of the picture from the network's shares of each square [n 3]."""
    corner, side = squares[:, :2], squares[:, 2:]
    edges = np.concatenate([corner, corner + side], axis=1)
    boxes = edges + shifts * side
    places = np.stack([points[:, :5], points[:, 5:]], axis=-1) * side[:, None] + corner[:, None]  # n 5 2
    return boxes.astype(np.float32), places.astype(np.float32)


def merge(boxes: np.ndarray, points: np.ndarray, scores: np.ndarray) -> Face | None:
    """One face from several looks at it: their mean, or None when they are not sure together."""
    score = float(scores.mean())
    if score < MIN_FOLLOW_SCORE:
        return None
    return Face(boxes.mean(axis=0), score, anchors_from_points(points.mean(axis=0)))
