"""Aligned training clips: a person rendered close up, faces cut as inference cuts them, in the layout of ordinary training clips.

Faces are cut by the known landmarks, moved by as much as landmarks that FaceMesh finds err: by a little for each person, and a tremor.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from embedded.talking_heads.clip import RenderedScene, spoken_clips
from embedded.talking_heads.face import FaceSurface, draw_face, landmark_vertices
from embedded.talking_heads.motion import Motion, place
from embedded.talking_heads.scene import HEAD_MIDDLE, frame_camera
from embedded.talking_heads.solids import Camera
from embedded.talking_heads.speech.voices import ClipPlan
from embedded.talking_heads.traits import draw_traits, stream
from latentsync.faces.alignment import AlignmentSmoother, LandmarkSmoother, anchors_from_landmarks, face_size, fit_similarity, warp_faces

CRF = 12  # quality of the video, x264's scale: faces of 128 pixels keep some 40 dB
_MARGIN = 0.07  # of the crop's height, on each side, that a picture shows beyond crops by landmarks
_DENSITY = (0.85, 1.1)  # pixels of the picture per pixel of the crop: what cameras see is never sampled exactly right
_UNIT = 1000  # pixels: height of the imagined picture in which the framing is worked out
# Crops by FaceMesh beside those by true landmarks, 14 people of the test split: scale, turn (degrees), shift in x and y (shares of the
# crop's width and height, where the mouth is); their means differ by 0.5 % and half a degree at most.
_SPREAD = (0.020, 0.55, 0.007, 0.010)  # standard deviation between people
_TREMOR = (0.0046, 0.23, 0.0033, 0.0022)  # and along a clip
_SLOWNESS = 4.0  # frames: width of the Gaussian that makes the tremor smooth
_MOUTH = (0.5, 0.75)  # where shifts were measured, shares of the crop


def write_aligned(paths: list[Path], plan: ClipPlan, seconds: float, resolution: int) -> None:
    """Render a clip of aligned faces, or with two `paths` a pair of clips with other words, cut by the same transforms.

    The transforms come from the first clip's landmarks and serve both, as in inference, where they come from the video at hand.
    """
    clips = spoken_clips(plan, seconds, len(paths) > 1)
    scene = close_up(plan.identity, plan.seed, clips[0].motion, resolution, _MARGIN)
    matrices = None
    for path, clip in zip(paths, clips, strict=True):
        frames = [scene.frame(pose, index) for index, pose in enumerate(clip.poses)]
        landmarks = np.stack([frame.landmarks for frame in frames])
        if matrices is None:
            matrices = as_tracked(align_known(landmarks, resolution), resolution, plan.seed)
        faces = warp_faces([frame.picture for frame in frames], matrices, resolution).numpy()
        points = on_face(landmarks, matrices.numpy(), resolution) + 0.5  # 0 = outer edge of the first pixel
        aligned = [replace(frame, picture=face, landmarks=at) for frame, face, at in zip(frames, faces, points, strict=True)]
        clip.write(path, aligned, resolution, CRF)


def align_known(landmarks: np.ndarray, resolution: int) -> Tensor:
    """Transforms float32 n 2 3, picture -> crop, of known landmarks (n 68 2, 0 = edge of the first pixel), smoothed as in inference."""
    smoother = LandmarkSmoother()
    anchors = np.stack([anchors_from_landmarks(smoother(points - 0.5)) for points in landmarks])  # - 0.5: whole numbers = pixel centres
    return AlignmentSmoother(resolution)(torch.from_numpy(anchors))


def on_face(landmarks: np.ndarray, matrices: np.ndarray, resolution: int) -> np.ndarray:
    """Landmarks of pictures (n k 2, 0 = outer edge of the first pixel) on their aligned faces (float32, whole numbers = pixel centres)."""
    crop = np.einsum("nij,nkj->nki", matrices[..., :2], landmarks - 0.5) + matrices[:, None, :, 2]
    return ((crop + 0.5) * (resolution / np.array(face_size(resolution))) - 0.5).astype(np.float32)


def as_tracked(matrices: Tensor, resolution: int, seed: int) -> Tensor:
    """Transforms of a clip (float32 n 2 3, picture -> crop) moved as errors of tracked landmarks do; a pure function of its arguments."""
    rng, frames = stream(seed, "placement"), len(matrices)
    noise = gaussian_filter1d(rng.standard_normal((frames + 48, 4)), _SLOWNESS, axis=0)[24 : 24 + frames]
    noise *= np.sqrt(2 * np.sqrt(np.pi) * _SLOWNESS)  # the filter's loss of variance
    growth, degrees, across, down = (np.array(_SPREAD) * rng.standard_normal(4) + np.array(_TREMOR) * noise).T
    turn, scale = np.radians(degrees), 1 + growth
    linear = scale[:, None, None] * np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    size = np.array(face_size(resolution))
    mouth = size * _MOUTH
    moved = linear @ matrices.double().numpy()
    moved[..., 2] += mouth + np.stack([across, down], -1) * size - linear @ mouth  # the mouth stays where it is, but for the shift
    return torch.from_numpy(moved).float()


def close_up(identity: int, seed: int, moves: Motion, resolution: int, margin: float) -> RenderedScene:
    """A person before a camera that shows the aligned face, and little else, in all frames of a clip.

    `margin`, in heights of the crop on each side, is for what brows and nose do besides moving with the head, and for misplaced crops.
    The distance, and with it the perspective, is that of `frame_camera`; the picture is about as large as the crop that inference cuts
    for a face of `resolution` pixels, so that rendering wastes neither pixels nor sharpness.
    """
    rest = FaceSurface(draw_face(draw_traits(identity))).vertices[landmark_vertices()]
    points = np.stack([place(rest, pose, move) for pose, move in zip(moves.turn, moves.translation, strict=True)])  # n 68 3
    camera, aspect, share = _framing(points, float(frame_camera(seed).eye[2]), margin)
    density = float(stream(seed, "close-up").uniform(*_DENSITY))
    height = 2 * round(density * face_size(resolution)[1] / share / 2)
    return RenderedScene(identity, seed, 2 * round(height * aspect / 2), height, camera)


def _framing(points: np.ndarray, distance: float, margin: float) -> tuple[Camera, float, float]:
    """The camera at a distance (cm) that shows the crops of landmarks (n 68 3) and no more; width / height of its picture; the mean height
    of a crop in picture heights."""
    camera = Camera(np.array([0.0, HEAD_MIDDLE[1], distance], np.float32), distance / 30)
    for _ in range(3):  # moving the camera changes the perspective a little, and with it the crops
        corners = _crop_corners(camera.project(points, _UNIT, _UNIT)[..., :2])  # n 4 2
        side = float(np.linalg.norm(corners[:, 2] - corners[:, 0], axis=-1).mean())
        low, high = corners.min((0, 1)) - margin * side, corners.max((0, 1)) + margin * side
        middle, size = (low + high) / 2, high - low
        reach = (distance - HEAD_MIDDLE[2]) / (camera.focal * _UNIT)  # cm a pixel at the face
        shift = np.array([middle[0] - _UNIT / 2, _UNIT / 2 - middle[1], 0.0]) * reach
        camera = Camera((camera.eye + shift).astype(np.float32), float(camera.focal * _UNIT / size[1]))
    return camera, float(size[0] / size[1]), side / float(size[1])


def _crop_corners(landmarks: np.ndarray) -> np.ndarray:
    """Where the crops of landmarks (n 68 2) have their corners: n 4 2, upper left and right, lower left and right."""
    anchors = torch.from_numpy(np.stack([anchors_from_landmarks(points) for points in landmarks]))
    matrices = fit_similarity(anchors, _UNIT)[0].double().numpy()
    width, height = face_size(_UNIT)
    crop = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
    return np.stack([(crop - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T for matrix in matrices])
