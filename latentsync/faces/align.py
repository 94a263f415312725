"""Landmarks -> similarity transform: where the template puts brows and nose, and the small filters along time."""

import numpy as np
import torch
from torch import Tensor

from latentsync.constants import TEMPLATE_RESOLUTION

TEMPLATE = ((17.0, 20.0), (58.0, 20.0), (37.5, 40.0))  # left brow, right brow, nose of a 75 x 100 face; left = smaller x
TEMPLATE_SIZE = (75, 100)  # width, height
TEMPLATE_SCALE = 2.8  # template units -> pixels of the face at 256

BIAS_MEMORY = 0.2  # share of the previous bias that stays
FREEZE_WIDTH = 0.3  # squared motion, in widths of the face, over which a landmark follows with 1 - 1/e

LEFT_BROW, RIGHT_BROW, NOSE = slice(17, 22), slice(22, 27), slice(27, 36)  # of 68 landmarks


def template_scale(resolution: int) -> float:
    """Pixels of the crop per template unit for a face of `resolution` pixels a side."""
    return TEMPLATE_SCALE * resolution / TEMPLATE_RESOLUTION


def face_size(resolution: int) -> tuple[int, int]:
    """Width and height, in pixels, of the crop before it is stretched to the square face: 210 x 280 at 256."""
    width, height = TEMPLATE_SIZE
    return int(width * template_scale(resolution)), int(height * template_scale(resolution))


def template(resolution: int) -> Tensor:
    """Anchors of the template in pixels of the crop; float32 [3 2], x before y."""
    return (torch.tensor(TEMPLATE, dtype=torch.float64) * template_scale(resolution)).float()


def anchors_from_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """The three anchors of 68 landmarks [68 2]: the means of each brow and of the nose; float32 [3 2]."""
    return np.stack([landmarks[part].mean(axis=0) for part in (LEFT_BROW, RIGHT_BROW, NOSE)]).astype(np.float32)


def fit_similarity(anchors: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Rotation, one scale and translation that bring anchors to the template, in the least-squares sense.

    anchors: [n 3 2] in pixels of the picture, in the order of `TEMPLATE`. Returns matrices float32 [n 2 3]
    (crop = matrix @ (x, y, 1)) and biases float32 [n 2]: by how much the nose misses the template, in units of
    the standard deviation. Both point sets are centred and divided by their standard deviation; the singular value
    decomposition of their product gives the rotation (orthogonal Procrustes), mirrored solutions are turned back.
    """
    source, target = anchors.float(), template(resolution).to(anchors.device)  # n 3 2, 3 2
    source_mean, target_mean = source.mean(dim=-2, keepdim=True), target.mean(dim=-2, keepdim=True)
    source, target = source - source_mean, target - target_mean
    source_std, target_std = source.flatten(-2).std(dim=-1), target.flatten().std()
    source, target = source / source_std[..., None, None], target / target_std
    u, _, vh = torch.linalg.svd(source.mT @ target)
    v = vh.mT.contiguous()
    v[..., -1] *= torch.sign(torch.linalg.det(v @ u.mT))[..., None]
    rotation = v @ u.mT  # n 2 2
    scale = (target_std / source_std)[..., None, None]
    translation = target_mean.mT - scale * (rotation @ source_mean.mT)  # n 2 1
    return torch.cat([scale * rotation, translation], dim=-1), target[-1] - source[..., -1, :]


class AlignmentSmoother:
    """Similarity transforms of one face track in frame order, each shifted by a running mean of the nose's bias.

    State belongs to one span of one video: make a new smoother for each. The shift is a fraction of a pixel.
    """

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self._bias: Tensor | None = None

    def __call__(self, anchors: Tensor) -> Tensor:
        """Anchors [n 3 2] of the next n frames -> matrices float32 [n 2 3]."""
        matrices, biases = fit_similarity(anchors, self.resolution)
        for matrix, bias in zip(matrices, biases, strict=True):
            self._bias = bias if self._bias is None else BIAS_MEMORY * self._bias + (1 - BIAS_MEMORY) * bias
            matrix[:, 2] += self._bias
        return matrices


class LandmarkSmoother:
    """68 landmarks of one face track in frame order: small motion is held, large motion passes.

    Each point keeps w = exp(-distance^2 / (0.3 width)) of its last smoothed place, width being the extent in x of the
    current landmarks. State belongs to one track of one shot.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def __call__(self, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks [68 2] of the next frame -> smoothed landmarks, same shape, float64."""
        current = np.asarray(landmarks, dtype=np.float64)
        if self._last is not None:
            width = max(float(np.ptp(current[:, 0])), 1e-6)
            distance = ((current - self._last) ** 2).sum(axis=1)
            hold = np.exp(-distance / (FREEZE_WIDTH * width))[:, None]
            current = self._last * hold + current * (1 - hold)
        self._last = current
        return current


def align_known(landmarks: np.ndarray, resolution: int) -> Tensor:
    """Transforms float32 n 2 3, picture -> crop, of landmarks of a clip that are known (n 68 2, 0 = outer edge of the first pixel).

    Smoothed along time as a 68-point detector's landmarks are in inference.
    """
    smoother = LandmarkSmoother()
    anchors = np.stack([anchors_from_landmarks(smoother(points - 0.5)) for points in landmarks])  # - 0.5: whole numbers = pixel centres
    return AlignmentSmoother(resolution)(torch.from_numpy(anchors))


def on_face(landmarks: np.ndarray, matrices: np.ndarray, resolution: int) -> np.ndarray:
    """Landmarks of pictures (n k 2, 0 = outer edge of the first pixel) on their aligned faces (float32, whole numbers = pixel centres)."""
    crop = np.einsum("nij,nkj->nki", matrices[..., :2], landmarks - 0.5) + matrices[:, None, :, 2]
    return ((crop + 0.5) * (resolution / np.array(face_size(resolution))) - 0.5).astype(np.float32)
