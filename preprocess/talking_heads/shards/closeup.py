"""Framing for training: a picture just large enough for the aligned face of every frame, at about the face's own resolution."""

import numpy as np
import torch

from latentsync.faces.align import anchors_from_landmarks, face_size, fit_similarity
from preprocess.talking_heads.anatomy.face import Skin
from preprocess.talking_heads.anatomy.identity import draw_face
from preprocess.talking_heads.anatomy.landmarks import landmark_vertices
from preprocess.talking_heads.scene.camera import HEAD_MIDDLE, frame_camera
from preprocess.talking_heads.scene.motion import Motion, place
from preprocess.talking_heads.solids import Camera
from preprocess.talking_heads.studio import Studio
from preprocess.talking_heads.traits import draw_traits, stream

_DENSITY = (0.85, 1.1)  # pixels of the picture per pixel of the crop: what cameras see is never sampled exactly right
_UNIT = 1000  # pixels: height of the imagined picture in which the framing is worked out


def close_up(identity: int, seed: int, moves: Motion, resolution: int, margin: float) -> Studio:
    """A person before a camera that shows the aligned face, and little else, in all frames of a clip.

    `margin`, in heights of the crop on each side, is for what brows and nose do besides moving with the head, and for misplaced crops.

    The distance, and with it the perspective, is that of `frame_camera`; the picture is about as large as the crop that inference cuts
    for a face of `resolution` pixels, so that rendering wastes neither pixels nor sharpness.
    """
    shape = Skin(draw_face(draw_traits(identity)))
    rest = shape.vertices[landmark_vertices()]
    points = np.stack([place(rest, pose, move) for pose, move in zip(moves.pose, moves.translation, strict=True)])  # n 68 3
    camera, aspect, share = _frame(points, float(frame_camera(seed).eye[2]), margin)
    density = float(stream(seed, "close-up").uniform(*_DENSITY))
    height = _even(density * face_size(resolution)[1] / share)
    studio = Studio(identity, seed, _even(height * aspect), height)
    studio.camera = camera
    return studio


def _frame(points: np.ndarray, distance: float, margin: float) -> tuple[Camera, float, float]:
    """The camera at a distance (cm) that shows the crops of landmarks (n 68 3) and no more; width / height of its picture; the mean height
    of a crop in picture heights."""
    eye = np.array([0.0, HEAD_MIDDLE[1], distance], np.float32)
    camera = Camera(eye, distance / 30)
    for _ in range(3):  # moving the camera changes the perspective a little, and with it the crops
        corners = _corners(camera.project(points, _UNIT, _UNIT)[..., :2])  # n 4 2
        side = float(np.linalg.norm(corners[:, 2] - corners[:, 0], axis=-1).mean())
        low, high = corners.min((0, 1)) - margin * side, corners.max((0, 1)) + margin * side
        middle, size = (low + high) / 2, high - low
        reach = (distance - HEAD_MIDDLE[2]) / (camera.focal * _UNIT)  # cm a pixel at the face
        shift = np.array([middle[0] - _UNIT / 2, _UNIT / 2 - middle[1], 0.0]) * reach
        camera = Camera((camera.eye + shift).astype(np.float32), float(camera.focal * _UNIT / size[1]))
    return camera, float(size[0] / size[1]), side / float(size[1])


def _corners(landmarks: np.ndarray) -> np.ndarray:
    """Where the crops of landmarks (n 68 2) have their corners: n 4 2, upper left and right, lower left and right."""
    anchors = torch.from_numpy(np.stack([anchors_from_landmarks(points) for points in landmarks]))
    matrices = fit_similarity(anchors, _UNIT)[0].double().numpy()
    width, height = face_size(_UNIT)
    crop = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
    return np.stack([(crop - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T for matrix in matrices])


def _even(pixels: float) -> int:
    return 2 * round(pixels / 2)
