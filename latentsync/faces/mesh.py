"""Landmarks of faces by FaceMesh: where in a picture it looks, how sure it is, which of its points are the 68 usual ones."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from latentsync.faces.alignment import one_thread
from latentsync.third_party.face_mesh import FACE_MESH, SIDE, FaceMesh, load_face_mesh
from latentsync.weights import file_sha256

REACH = 1.5  # side of the square over the larger side of a face
OUTER_EYES = [33, 263]  # points at the outer corners; left = smaller x
# The 68 landmarks of the 300-W scheme, in its order. Brows are the lower row of the mesh's: with it rendered people, whose landmarks are
# known, are cut within 0.5 % of their size and place (with the upper row 8 % smaller).
POINTS_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(46, 53, 52, 65, 55, 285, 295, 282, 283, 276),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),  # lips, outer and inner
)
MIDDLE_LOGIT = 12.0  # of presence, at which the score is 0.5: faces that lie right give 20 and more, those on their side under 11
FOREHEAD = 0.12  # heights of the mesh by which boxes reach above it, as MTCNN's do


class MeshFinder:
    """FaceMesh in pictures; it keeps no state between them."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Raises WeightsError when the file of the weights is damaged."""
        self.device = torch.device(device)
        self.weights = file_sha256(FACE_MESH)
        self._network = load_face_mesh(device=self.device).to(memory_format=torch.channels_last)

    def __call__(self, picture: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The landmarks float32 [n 468 2], in pixels of the picture uint8 [h w 3], in squares [n 2 3]; a score of each in [0, 1]."""
        points, presence = find_landmarks(self._network, [picture] * len(squares), squares)
        return points[..., :2].astype(np.float32), torch.sigmoid(torch.from_numpy(presence) - MIDDLE_LOGIT).numpy()


@torch.inference_mode()
def find_landmarks(network: FaceMesh, pictures: Sequence[np.ndarray], squares: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float64 [n 468 3] in squares [n 2 3], one of each picture uint8 [h w 3], in its pixels; logits of presence [n]."""
    device = next(network.parameters()).device
    pairs = zip(pictures, squares, strict=True)
    patches = np.stack([cv2.warpAffine(*pair, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE) for pair in pairs])
    with one_thread():
        seen, presence = network(torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).float() / 255)  # channels last
    points, back = seen.double().cpu().numpy(), np.stack([cv2.invertAffineTransform(square) for square in squares])
    # 0 = edge of the first pixel; from here on its centre
    points[..., :2] = (points[..., :2] - 0.5) @ back[..., :2].transpose(0, 2, 1) + back[:, None, :, 2]
    points[..., 2] *= np.sqrt(np.linalg.det(back[..., :2]))[:, None]
    return points, presence.cpu().numpy()


def square_in(box: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """The transform [2 3] from a picture to the square around a box, turned by a roll (degrees, clockwise)."""
    return square_at((box[:2] + box[2:]) / 2 - 0.5, float(max(box[2:] - box[:2])), np.radians(roll))


def square_around(points: np.ndarray) -> np.ndarray:
    """The transform [2 3] from a picture to the square around a face's landmarks [468 2], in which its eyes are level."""
    left, right = points[OUTER_EYES]
    angle = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
    level = points @ rotation(angle).T
    low, high = level.min(axis=0), level.max(axis=0)
    return square_at(rotation(-angle) @ ((low + high) / 2), float((high - low).max()), angle)


def square_at(middle: np.ndarray, size: float, angle: float) -> np.ndarray:
    """The transform [2 3] from a picture to the square around a face of a size, turned by an angle (radians, clockwise)."""
    linear = SIDE / (REACH * max(size, 1.0)) * rotation(angle)
    return np.concatenate([linear, ((SIDE - 1) / 2 - linear @ middle)[:, None]], axis=1)


def distance(square: np.ndarray, other: np.ndarray) -> float:
    """Between the middles of two squares, given as their transforms [2 3]; in sides of the first."""
    middle = np.full(2, (SIDE - 1) / 2)
    inverse = cv2.invertAffineTransform(other)
    place = inverse[:, :2] @ middle + inverse[:, 2]
    return float(np.linalg.norm(square[:, :2] @ place + square[:, 2] - middle)) / SIDE


def rotation(angle: float) -> np.ndarray:
    """Takes what is turned clockwise by an angle (radians) back; [2 2]."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def mesh_box(points: np.ndarray) -> np.ndarray:
    """A face's box float32 [4] (x0 y0 x1 y1) like those of MTCNN from its landmarks [468 2]."""
    low, high = points.min(axis=0) + 0.5, points.max(axis=0) + 0.5
    return np.array([low[0], low[1] - FOREHEAD * (high[1] - low[1]), *high], np.float32)
