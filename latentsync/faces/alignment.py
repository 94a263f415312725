"""Landmarks to similarity transform, and frames to aligned faces of any size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.constants import TEMPLATE_RESOLUTION


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works in the calling thread inside: threads gain little on small pieces and wait long beside decoder and encoder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    """Rotation, one scale and translation that bring anchors to the template, in the least-squares sense (orthogonal Procrustes by SVD).

    anchors: [n 3 2] in pixels of the picture, in the order of `TEMPLATE`. Returns matrices float32 [n 2 3] (crop = matrix @ (x, y, 1)) and
    biases float32 [n 2]: by how much the nose misses the template, in standard deviations. Mirrored solutions are turned back.
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
    """Transforms of one face track in frame order, each shifted by a running mean of the nose's bias; a new one for each span."""

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
    """68 landmarks of one track in frame order; each keeps exp(-distance^2 / (0.3 width)) of its last place, width: the extent in x."""

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


FILL = 127.0  # what lies outside the picture
LANCZOS_TAPS = 8
LANCZOS_BITS = 11  # fixed-point bits of one filter weight


def warp_faces(frames: Sequence[np.ndarray], matrices: Tensor, resolution: int, device: torch.device | str = "cpu") -> Tensor:
    """Aligned faces uint8 [f R R 3] on `device` of frames uint8 [h w 3], only the boxes touched; matrices [f 2 3]: picture -> crop."""
    size, pairs = face_size(resolution), zip(frames, torch.as_tensor(matrices), strict=True)
    with one_thread():
        return torch.stack([resize_lanczos4(warp_crop(frame, matrix, size, device), resolution) for frame, matrix in pairs])


def warp_crop(frame: np.ndarray, matrix: Tensor, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """The crop of a frame, uint8 [height width 3]; whole numbers are pixel centres; outside: sample + 127 (1 - share that is inside)."""
    (height, width), device = frame.shape[:2], torch.device(device)
    theta = sampling_matrix(matrix, (width, height), size)
    grid = F.affine_grid(theta[None].to(device), [1, 1, size[1], size[0]], align_corners=True)  # 1 h w 2 in [-1, 1] of the frame
    box = bounding_box(matrix, size, (width, height))
    if box is None:
        return torch.full((size[1], size[0], 3), int(FILL), dtype=torch.uint8, device=device)
    x0, y0, x1, y1 = box
    half_x, half_y = half_extent(x1 - x0), half_extent(y1 - y0)
    allocate = torch.zeros if x1 == width or y1 == height else torch.empty  # beyond an inner edge nothing is read
    patch = allocate(1, 4, 2 * half_y + 1, 2 * half_x + 1, device=device)  # colours and "is inside"
    patch[0, :3, : y1 - y0, : x1 - x0] = to_planes(frame[y0:y1, x0:x1]).to(device)
    patch[0, 3, : y1 - y0, : x1 - x0] = 1
    x = ((grid[..., 0] + 1) * ((width - 1) / 2) - x0) / half_x - 1
    y = ((grid[..., 1] + 1) * ((height - 1) / 2) - y0) / half_y - 1
    sample = F.grid_sample(patch, torch.stack([x, y], dim=-1), mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    return to_picture((sample[:3] + FILL * (1 - sample[3:])).clamp_(0, 255).to(torch.uint8))


def to_planes(picture: np.ndarray) -> Tensor:
    """A picture uint8 [h w 3], also a part of one, as planes uint8 [3 h w]; OpenCV does this ten times faster than a strided copy."""
    return torch.from_numpy(np.stack(cv2.split(picture)))


def to_picture(planes: Tensor) -> Tensor:
    """Planes uint8 [3 h w] as a picture [h w 3] on the same device."""
    if planes.device.type != "cpu":
        return planes.permute(1, 2, 0)
    return torch.from_numpy(cv2.merge(list(planes.numpy())))


def half_extent(length: int) -> int:
    """A power of two so that 2 n + 1 holds `length` pixels: scaling a coordinate by it loses no bit of a float."""
    return 1 << max((length // 2 - 1).bit_length(), 0)


def pixels_to_unit(size: tuple[int, int]) -> Tensor:
    """The matrix float32 [3 3] that maps pixel centres 0 .. n - 1 of (width, height) to [-1, 1]."""
    width, height = size
    return torch.tensor([[2 / max(width - 1, 1), 0, -1], [0, 2 / max(height - 1, 1), -1], [0, 0, 1]], dtype=torch.float32)


def sampling_matrix(matrix: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Points of the target in the source, both in [-1, 1], float32 [2 3]; products in the published order: equal to the last bit."""
    full = torch.eye(3)
    full[:2] = matrix.float().cpu()
    return torch.linalg.inv(pixels_to_unit(target) @ (full @ torch.linalg.inv(pixels_to_unit(source))))[:2]


def bounding_box(matrix: Tensor, size: tuple[int, int], picture: tuple[int, int], margin: int = 3) -> tuple[int, int, int, int] | None:
    """The box x0 y0 x1 y1 (half open) of a picture (width, height) that a crop can touch with bilinear samples, or None."""
    full = torch.eye(3, dtype=torch.float64)
    full[:2] = matrix.double().cpu()
    right, bottom = float(size[0]), float(size[1])
    corners = torch.tensor([[-1, -1, 1], [right, -1, 1], [-1, bottom, 1], [right, bottom, 1]], dtype=torch.float64).T
    x, y = (torch.linalg.inv(full) @ corners)[:2]
    x0, x1 = max(int(x.min().floor()) - margin, 0), min(int(x.max().ceil()) + margin + 1, picture[0])
    y0, y1 = max(int(y.min().floor()) - margin, 0), min(int(y.max().ceil()) + margin + 1, picture[1])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def resize_lanczos4(face: Tensor, resolution: int) -> Tensor:
    """A crop uint8 [h w 3] stretched to [R R 3] with OpenCV's 8-tap Lanczos filter; off the CPU the same fixed-point sums on the device."""
    if face.device.type == "cpu":
        return torch.from_numpy(cv2.resize(face.numpy(), (resolution, resolution), interpolation=cv2.INTER_LANCZOS4))
    return resize_fixed_point(face, resolution)


def resize_fixed_point(face: Tensor, resolution: int) -> Tensor:
    """`resize_lanczos4` on any device: sums of taps, scaled by 2^11 in each axis, then rounded."""
    total = face.int()
    for dim in (1, 0):
        places, weights = (torch.from_numpy(part).to(face.device) for part in lanczos4_taps(face.shape[dim], resolution))
        weights = weights[:, :, None] if dim == 1 else weights[:, :, None, None]  # n 8 colours, n 8 columns colours
        total = sum(total.index_select(dim, places[:, tap]) * weights[:, tap] for tap in range(LANCZOS_TAPS))
    return ((total + (1 << (2 * LANCZOS_BITS - 1))) >> (2 * LANCZOS_BITS)).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=16)
def lanczos4_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the taps of each target pixel lie (int64 [n 8], edges repeated) and their fixed-point weights (int32 [n 8])."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centre).astype(np.int64)
    distance = (centre - first)[:, None] + 3 - np.arange(LANCZOS_TAPS)[None]  # of each tap from the centre
    weights = np.sinc(distance) * np.sinc(distance / 4)
    weights /= weights.sum(axis=1, keepdims=True)
    places = np.clip(first[:, None] - 3 + np.arange(LANCZOS_TAPS)[None], 0, source - 1)
    return places, np.rint(weights * (1 << LANCZOS_BITS)).astype(np.int32)


def resize_faces(faces: Tensor, resolution: int) -> Tensor:
    """Faces uint8 f h w 3 at `resolution` pixels a side: bicubic with antialiasing, in float and rounded; as they are if they fit."""
    if faces.shape[1:3] == (resolution, resolution):
        return faces
    planes = rearrange(faces, "f h w c -> f c h w").float()
    planes = F.interpolate(planes, size=(resolution, resolution), mode="bicubic", align_corners=False, antialias=True)
    return rearrange(planes.clamp(0, 255).round().to(torch.uint8), "f c h w -> f h w c").contiguous()
