"""Measures of how aligned faces look beside those of the source: "ssim", "psnr", "lpips" (reconstruction alone) and "jitter"."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from eval.measures.measure import Case, Chunk, Column, Numbers, Tally
from eval.measures.mouths import MOST_PSNR, Appearance, appearance_distance, mouth_box
from latentsync.errors import InputError
from latentsync.faces.threads import one_thread
from latentsync.losses.perceptual import LowerHalfLPIPS

LARGEST = 255.0  # grey level
SSIM_SIDE, SSIM_SIGMA = 11, 1.5  # pixels: window of SSIM
SSIM_CONSTANTS = ((0.01 * LARGEST) ** 2, (0.03 * LARGEST) ** 2)
RIM = SSIM_SIDE // 2  # pixels at the edge of a picture around which no whole window lies
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (Rec. 601)
RECONSTRUCTION_ALONE = "Of reconstructions alone: with other words the mouth should differ."


class NothingTally:
    """A video of which a measure says nothing."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    def add(self, chunk: Chunk) -> None:
        """Nothing."""

    def finish(self) -> Numbers:
        return dict.fromkeys(column.name for column in self._columns)


class Ssim:
    """A `Measure`: structural similarity (Wang et al., IEEE Transactions on Image Processing 13, 2004)."""

    name = "ssim"
    columns = (Column("ssim_face", better="high"), Column("ssim_mouth", better="high"))
    protocol = (
        f"SSIM of the luma of aligned faces of made and source, Gaussian windows of {SSIM_SIDE} x {SSIM_SIDE} pixels (sigma {SSIM_SIGMA}) "
        "that lie whole in the face; mean over the face, over windows around the pixels of the mouth box, and over frames. "
        + RECONSTRUCTION_ALONE
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _SsimTally() if case.kind == "reconstruction" else NothingTally(self.columns)


class _SsimTally:
    """One video: sums over frames."""

    def __init__(self) -> None:
        self._sums, self._count = np.zeros(2), 0

    def add(self, chunk: Chunk) -> None:
        for face, source in zip(chunk.faces, chunk.source_faces, strict=True):
            similarity = ssim_map(luma(face), luma(source))
            rows, columns = (slice(max(part.start - RIM, 0), part.stop - RIM) for part in mouth_box(len(face)))
            self._sums += similarity.mean(), similarity[rows, columns].mean()
            self._count += 1

    def finish(self) -> Numbers:
        face, mouth = self._sums / require_faces(self._count)
        return {"ssim_face": float(face), "ssim_mouth": float(mouth)}


class Psnr:
    """A `Measure`: peak signal to noise ratio."""

    name = "psnr"
    columns = (Column("psnr_face", "dB", "high", 2), Column("psnr_mouth", "dB", "high", 2))
    protocol = (
        "PSNR of aligned faces of made and source, RGB, of the squared difference averaged over all frames of a video; "
        f"{MOST_PSNR:.0f} dB where nothing differs. {RECONSTRUCTION_ALONE}"
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _PsnrTally() if case.kind == "reconstruction" else NothingTally(self.columns)


class _PsnrTally:
    """One video: sums of squares and numbers of values, of faces and of mouth boxes."""

    def __init__(self) -> None:
        self._squares, self._values = np.zeros(2), np.zeros(2)

    def add(self, chunk: Chunk) -> None:
        if not len(chunk.faces):
            return
        rows, columns = mouth_box(chunk.faces.shape[1])
        squares = (chunk.faces.float() - chunk.source_faces.float()).square_()  # k R R 3
        parts = squares, squares[:, rows, columns]
        self._squares += [float(part.sum(dtype=torch.float64)) for part in parts]
        self._values += [part.numel() for part in parts]

    def finish(self) -> Numbers:
        require_faces(int(self._values[0]))
        face, mouth = (decibels(error) for error in self._squares / self._values)
        return {"psnr_face": face, "psnr_mouth": mouth}


class Lpips:
    """A `Measure`: learned perceptual similarity (arXiv 1801.03924).

    Args:
        network: see `latentsync.losses.perceptual.load_lpips`.
        device: where it is.
    """

    name = "lpips"
    columns = (Column("lpips", better="low", digits=4),)
    protocol = (
        "LPIPS (VGG-16, linear layers of version 0.1) of the lower halves of aligned faces of made and source, mean over frames. "
        + RECONSTRUCTION_ALONE
    )

    def __init__(self, network: LowerHalfLPIPS, device: torch.device | str = "cpu") -> None:
        self.appearance, self.device = Appearance(self.name, network), device

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _LpipsTally(self) if case.kind == "reconstruction" else NothingTally(self.columns)


class _LpipsTally:
    """One video: the sum over frames."""

    def __init__(self, measure: Lpips) -> None:
        self._measure, self._sum, self._count = measure, 0.0, 0

    def add(self, chunk: Chunk) -> None:
        count, pair = len(chunk.faces), (chunk.faces, chunk.source_faces)
        if not count:
            return
        same = pair[0] is pair[1]  # the source beside itself
        self._sum += 0.0 if same else count * appearance_distance(self._measure.appearance, *pair, self._measure.device)
        self._count += count

    def finish(self) -> Numbers:
        return {"lpips": self._sum / require_faces(self._count)}


class Jitter:
    """A `Measure`: how restless the mouth is along time, against the source."""

    name = "jitter"
    columns = (Column("jitter"),)
    protocol = (
        "Mean absolute second difference along time of the pixels of the mouth box of aligned faces, made over source: 1 is as restless as "
        "the source, less is stiffer or smoother, more trembles. None where the mouth of the source does not move at all."
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _JitterTally()


class _JitterTally:
    """One video: sums of differences, and the mouth boxes of the last two faces."""

    def __init__(self) -> None:
        self._made, self._source, self._count = 0.0, 0.0, 0
        self._last: list[tuple[int, Tensor, Tensor]] = []  # frame, mouth boxes of both

    def add(self, chunk: Chunk) -> None:
        rows, columns = mouth_box(chunk.faces.shape[1])
        numbers = np.flatnonzero(chunk.has_face) + chunk.start
        for number, face, source in zip(numbers.tolist(), chunk.faces, chunk.source_faces, strict=True):
            if self._last and self._last[-1][0] != number - 1:
                self._last.clear()
            self._last.append((number, face[rows, columns].float(), source[rows, columns].float()))
            if len(self._last) == 3:
                (_, *first), (_, *second), (_, *third) = self._last
                made, real = (float((a - 2 * b + c).abs().mean()) for a, b, c in zip(first, second, third, strict=True))
                self._made, self._source, self._count = self._made + made, self._source + real, self._count + 1
                self._last.pop(0)

    def finish(self) -> Numbers:
        if not self._count:
            raise InputError("No three successive frames show a face: measure longer videos")
        if self._source == 0:
            return {"jitter": 1.0 if self._made == 0 else None}
        return {"jitter": self._made / self._source}


def luma(face: Tensor) -> np.ndarray:
    """The luma of a face uint8 h w 3, float32 h w in [0, 255]."""
    return face.numpy().astype(np.float32) @ np.array(LUMA, np.float32)


def ssim_map(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SSIM (Wang et al. 2004, equation 13) of every whole window of two pictures float32 h w in [0, 255]; h - 10, w - 10.

    Raises InputError where the pictures are smaller than a window.
    """
    if min(picture.shape) < SSIM_SIDE:
        raise InputError(
            f"SSIM looks at windows of {SSIM_SIDE} pixels a side and the faces have {min(picture.shape)}: use a larger resolution"
        )
    one, two = picture.astype(np.float64), other.astype(np.float64)
    with one_thread():
        mean, other_mean, square, other_square, product = (_window_means(part) for part in (one, two, one * one, two * two, one * two))
    spread, other_spread, together = square - mean * mean, other_square - other_mean * other_mean, product - mean * other_mean
    light, contrast = SSIM_CONSTANTS
    above = (2 * mean * other_mean + light) * (2 * together + contrast)
    return above / ((mean * mean + other_mean * other_mean + light) * (spread + other_spread + contrast))


def _window_means(picture: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(picture, (SSIM_SIDE, SSIM_SIDE), SSIM_SIGMA)
    return blurred[RIM:-RIM, RIM:-RIM]


def decibels(error: float) -> float:
    """A mean squared difference of grey levels as PSNR."""
    return min(float(10 * np.log10(LARGEST**2 / error)), MOST_PSNR) if error > 0 else MOST_PSNR


def require_faces(count: int) -> int:
    """The count itself. Raises InputError where it is 0."""
    if count == 0:
        raise InputError("No frame shows a face that could be measured: leave the video out")
    return count
