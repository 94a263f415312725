"""Face detectors: MTCNN with FaceMesh, whose weights are at hand, and face-alignment, and the choice between them."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

from latentsync.errors import InputError
from latentsync.faces.alignment import anchors_from_landmarks, one_thread
from latentsync.faces.mesh import POINTS_68, MeshFinder, distance, mesh_box, square_around, square_in
from latentsync.weights import file_sha256


def shrink(picture: np.ndarray, long_side: int | None) -> np.ndarray:
    """A picture whose long side is at most `long_side` pixels (area filter); smaller ones and None come back as they are."""
    height, width = picture.shape[:2]
    if long_side is None or max(height, width) <= long_side:
        return picture
    scale = long_side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


Smoothing = Literal["none", "laplacian", "laplacian-window"]
MAX_ASPECT, MIN_ASPECT = 1.5, 0.2  # width over height of a box that can be a face
MIN_ANCHOR_SPREAD = 1.0  # pixels: anchors closer together than this fix no transform
MIN_BROW_DISTANCE = 0.355  # of the side of the box; 0.3 between the eyes: less where a face is far on its side, or in profile
MAX_ROLL = 55.0  # degrees that a detector may read of a face that it still finds right
MAX_PROFILE_ROLL = 30.0  # degrees of a face with a smaller brow distance, which is a profile then


@dataclass(frozen=True)
class Face:
    """One face of one picture, in pixels of that picture."""

    box: np.ndarray  # float32 [4]: x0 y0 x1 y1
    score: float  # how sure the detector is, in [0, 1]
    anchors: np.ndarray  # float32 [3 2]: left brow, right brow, nose; left = smaller x
    landmarks: np.ndarray | None = None  # float64 [68 2], 300-W scheme
    turns: int = 0  # quarter turns anticlockwise of the picture, 0 to 3, after which the detector found it
    colours: np.ndarray | None = None  # uint8 [37 3]: coarse cells of the aligned face, to see what covers it
    mesh: np.ndarray | None = None  # float32 [468 2], of FaceMesh
    appearance: np.ndarray | None = None  # float32 [n], of `describe_face`, where it is asked for

    @property
    def width(self) -> float:
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])

    def scaled(self, factor: float) -> "Face":
        """The same face in a picture `factor` times as large; pixel centres stay pixel centres."""
        shift = (factor - 1) / 2
        points = {name: array * factor + shift for name, array in self._points().items()}
        return replace(self, box=self.box * factor, **points)

    def turned(self, turns: int, size: tuple[int, int]) -> "Face":
        """The same face in a picture of `size` (width, height) after quarter turns anticlockwise; `turns` of the face stays as it is."""
        edges = np.sort(turn_points(self.box.reshape(2, 2), turns, size), axis=0).reshape(4)
        inner = (size[0] - 1, size[1] - 1)  # whole numbers are pixel centres
        return replace(self, box=edges, **{name: turn_points(array, turns, inner) for name, array in self._points().items()})

    def _points(self) -> dict[str, np.ndarray]:
        return {name: array for name in ("anchors", "landmarks", "mesh") if (array := getattr(self, name)) is not None}

    @property
    def roll(self) -> float:
        """Degrees by which the line of the brows is turned clockwise, in (-180, 180]."""
        return float(np.degrees(np.arctan2(*(self.anchors[1] - self.anchors[0])[::-1])))

    @property
    def brow_distance(self) -> float:
        """Between the brows, as a share of the mean side of the box."""
        return float(np.hypot(*(self.anchors[1] - self.anchors[0]))) / max((self.width + self.height) / 2, 1e-6)


class FaceDetector(Protocol):
    """A back end. It keeps no state between pictures."""

    name: str
    weights: str  # a digest of those of its networks
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


def is_upright(face: Face) -> bool:
    """Whether the points of a face, in the picture in which it was found, have the shape of an upright one."""
    return abs(face.roll) <= MAX_ROLL and face.brow_distance >= MIN_BROW_DISTANCE


def is_profile(face: Face) -> bool:
    """Whether brows that are close together can be those of an upright head that looks aside."""
    return abs(face.roll) <= MAX_PROFILE_ROLL and face.brow_distance < MIN_BROW_DISTANCE


def turn_points(points: np.ndarray, turns: int, size: tuple[int, int]) -> np.ndarray:
    """Points [n 2] after 0 to 3 quarter turns anticlockwise of a rectangle of `size` (width, height)."""
    (width, height), x, y = size, points[:, 0], points[:, 1]
    return np.stack([(x, y), (y, width - x), (width - x, height - y), (height - y, x)][turns % 4], axis=-1).astype(points.dtype)


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, in [0, 1]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (float((box[2] - box[0]) * (box[3] - box[1])) + float((other[2] - other[0]) * (other[3] - other[1])) - shared)


MIN_FACE = 20  # pixels of the shrunken picture
MTCNN_MIN_SCORE = 0.95  # of a box: leaves no false one on real clips
MAX_PASSES, MAX_DISTANCE = 4, 0.04  # of FaceMesh: it is drawn to the middle of what it sees; sides of the square
MIN_MESH_SCORE = 0.5  # of landmarks that are new
MIN_FOLLOW_SCORE = 0.02  # of landmarks found again: hands and microphones before a mouth lower it


class MtcnnDetector:
    """Boxes from MTCNN, landmarks from FaceMesh in them; `follow` runs FaceMesh alone, where a face was."""

    name = "mtcnn"
    smoothing: Smoothing = "laplacian-window"
    long_side: int | None = 640

    def __init__(self, device: torch.device | str = "cpu", stride: int = 24) -> None:
        self.stride = stride
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)  # Metal lacks the area filter it needs
        self._boxes = MTCNN(keep_all=True, min_face_size=MIN_FACE, device=self.device).eval()
        self._mesh = MeshFinder(self.device)
        self.weights = self._mesh.weights

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture uint8 [h w 3] of which both networks are sure; pictures too small to hold one give none."""
        if min(picture.shape[:2]) < MIN_FACE:
            return []
        with one_thread():
            boxes, scores, points = self._boxes.detect(np.ascontiguousarray(picture), landmarks=True)
        if boxes is None:
            return []
        eyes = np.asarray(points, np.float64)[:, 1] - np.asarray(points, np.float64)[:, 0]
        rolls = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
        sure = np.asarray(scores, np.float64) > MTCNN_MIN_SCORE
        squares = [square_in(box, roll) for box, roll in zip(np.asarray(boxes, np.float64)[sure], rolls[sure], strict=True)]
        return [face for face in self._find(picture, squares) if face.score >= MIN_MESH_SCORE]

    def follow(self, picture: np.ndarray, faces: list[Face]) -> list[Face | None]:
        """Each face found again in a picture uint8 [h w 3] near its last landmarks, or else upright in its box; None where it is gone."""
        known = [square_in(face.box) if face.mesh is None else square_around(face.mesh) for face in faces]
        return [face if face.score >= MIN_FOLLOW_SCORE else None for face in self._find(picture, known)]

    def _find(self, picture: np.ndarray, squares: list[np.ndarray]) -> list[Face]:
        """The face in each square; where one lies beside its middle, FaceMesh looks again, in the square around its landmarks."""
        if not squares:
            return []
        for _ in range(MAX_PASSES):
            meshes, scores = self._mesh(picture, np.stack(squares))
            before, squares = squares, [square_around(mesh) for mesh in meshes]
            if max(map(distance, before, squares)) <= MAX_DISTANCE:
                break
        found = []
        for mesh, score in zip(meshes, scores.tolist(), strict=True):
            landmarks = mesh[list(POINTS_68)].astype(np.float64)
            found.append(Face(mesh_box(mesh), score, anchors_from_landmarks(landmarks), landmarks, mesh=mesh))
        return found


BOX_SIDE = 640  # pixels of the long side in which boxes are detected; landmarks are found in the picture itself


class FanDetector:
    """Boxes from S3FD, 68 landmarks from 2DFAN-4, anchors as means of brows and nose."""

    name = "face-alignment"
    smoothing: Smoothing = "laplacian"
    long_side: int | None = None

    def __init__(self, boxes_path: Path, landmarks_path: Path, device: torch.device | str = "cpu") -> None:
        """Raises WeightsError when a file is missing or does not hold the network it is named for."""
        from latentsync.third_party.fan import LocalFaceAlignment  # numba takes half a second to import

        self._paths = (boxes_path, landmarks_path)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # the library switches this on for the whole program
            self._networks: Any = LocalFaceAlignment(boxes_path, landmarks_path, str(device))

    @cached_property
    def weights(self) -> str:
        return " ".join(map(file_sha256, self._paths))

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture uint8 [h w 3]; the score, of the box times the mean peak of the heat maps, low for heads on their side."""
        small = shrink(picture, BOX_SIDE)
        scale = max(picture.shape[:2]) / max(small.shape[:2])
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            found = self._networks.face_detector.detect_from_image(np.ascontiguousarray(small))
            boxes = [np.array([*(np.asarray(box[:4]) * scale), box[4]]) for box in found if box[2] > box[0] and box[3] > box[1]]
            if not boxes:
                return []
            landmarks, peaks, _ = self._networks.get_landmarks_from_image(picture, detected_faces=boxes, return_landmark_score=True)
        passes = 2 if self._networks.flip_input else 1  # heat maps of the picture and of its mirror image are added up
        scores = [float(box[4] * np.clip(np.mean(peak) / passes, 0, 1)) for box, peak in zip(boxes, peaks, strict=True)]
        return [
            Face(box[:4].astype(np.float32), score, anchors_from_landmarks(points), np.asarray(points, np.float64))
            for box, score, points in zip(boxes, scores, landmarks, strict=True)
        ]


NAMES = ("auto", "mtcnn", "face-alignment")


def build_detector(name: str, s3fd_path: Path, fan_path: Path, device: torch.device | str = "cpu") -> FaceDetector:
    """A detector by name, "auto" being face-alignment where both weight files exist and else mtcnn. Raises InputError, WeightsError."""
    if name not in NAMES:
        raise InputError(f"There is no face detector '{name}': use one of {', '.join(NAMES)}.")
    if name == "face-alignment" or (name == "auto" and s3fd_path.is_file() and fan_path.is_file()):
        return FanDetector(s3fd_path, fan_path, device)
    return MtcnnDetector(device)
