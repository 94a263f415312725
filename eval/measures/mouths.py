"""Where mouths are and how they look on aligned faces of two videos of one head: distances, jitter, opening of the lips."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.faces.mask import HIDDEN, to_pixels
from latentsync.losses.perceptual import load_lpips
from latentsync.losses.reader import ReaderLoss
from latentsync.models.mouth_reader import Mouth, MouthReader, measure
from latentsync.training.statistics import pearson

FACES_AT_ONCE = 16  # faces that go through a network together
CLOSED_CM = 0.02  # lips less far apart than this count as closed
SPEECH_SHARES = (5, 95)  # percentiles of the opening between which speech moves the lips
MOST_PSNR = 100.0  # decibels, said of pictures that are the same


class PixelDifference(NamedTuple):
    """How far the pixels of two mouths are apart."""

    l1: float  # mean absolute difference, grey levels
    psnr: float  # decibels, of the mean squared difference


class SpeechRange(NamedTuple):
    """Readings of the opening between which lips move, in units of the face's side."""

    closed: float  # mean reading of lips that truly are closed
    low: float
    high: float

    def share(self, opening: np.ndarray) -> np.ndarray:
        """Openings as shares of the range, 0 where lips are closed."""
        return (opening - self.closed) / (self.high - self.low)


class Appearance(NamedTuple):
    """A distance of how mouths look, and its name."""

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]  # pixels 1 f 3 h w of both -> a scalar, a mean over frames


@torch.no_grad()
def read_mouths(reader: MouthReader, faces: Tensor) -> Mouth:
    """The mouths on aligned faces uint8 f h w 3, on the CPU; points float32 f 20 2 in units of the face's side."""
    device = next(reader.parameters()).device
    return measure(torch.cat([reader(to_pixels(part.to(device))).points.cpu() for part in faces.split(FACES_AT_ONCE)]))


def landmark_distance(points: Tensor, true: Tensor) -> float:
    """LMD: mean distance of the points of two mouths, f 20 2 each, in their unit (Chen et al., ECCV 2018, without a normalisation)."""
    return float((points - true).norm(dim=-1).mean())


def landmark_jitter(points: Tensor) -> float:
    """Mean length of the second difference along time of points f 20 2; 0 for fewer than three frames."""
    return float(points.diff(n=2, dim=0).norm(dim=-1).mean()) if len(points) > 2 else 0.0


def mouth_box(resolution: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the mouth on an aligned face: that of the outline of the mask of the mouth alone."""
    (outline,) = HIDDEN["mask3"]
    columns, rows = (sorted(values) for values in zip(*outline, strict=True))
    scale = resolution / TEMPLATE_RESOLUTION
    return slice(int(rows[0] * scale), int((rows[-1] + 1) * scale)), slice(int(columns[0] * scale), int((columns[-1] + 1) * scale))


def pixel_difference(faces: Tensor, true: Tensor) -> PixelDifference:
    """Of the mouth boxes of aligned faces uint8 f h w 3."""
    apart = _boxes(faces) - _boxes(true)
    error = float(apart.double().square().mean())
    psnr = 10 * float(np.log10(255**2 / error)) if error > 0 else MOST_PSNR
    return PixelDifference(float(apart.abs().mean()), min(psnr, MOST_PSNR))


def pixel_jitter(faces: Tensor) -> float:
    """Mean absolute second difference along time of the mouth boxes of uint8 f h w 3, grey levels; 0 for fewer than three frames."""
    return float(_boxes(faces).diff(n=2, dim=0).abs().mean()) if len(faces) > 2 else 0.0


def opening_follows(gap: Tensor, true: Tensor) -> float | None:
    """Pearson's r of the read and the true opening along a clip, both n; None where the true lips do not move."""
    return float(pearson(gap, true)) if float(true.std(correction=0)) > 0 else None


def speech_range(openings: np.ndarray, closed: np.ndarray) -> SpeechRange | None:
    """The range of pooled openings, and the reading of closed lips; None where lips were never closed, or nothing moved."""
    if not len(closed) or not len(openings):
        return None
    low, high = np.percentile(openings, SPEECH_SHARES)
    return SpeechRange(float(np.mean(closed)), float(low), float(high)) if high > low else None


@torch.no_grad()
def appearance_distance(appearance: Appearance, faces: Tensor, true: Tensor, device: torch.device | str = "cpu") -> float:
    """Mean distance over the frames of aligned faces uint8 f h w 3."""
    parts = zip(faces.split(FACES_AT_ONCE), true.split(FACES_AT_ONCE), strict=True)
    sums = [
        len(seen) * float(appearance.distance(to_pixels(seen.to(device))[None], to_pixels(real.to(device))[None])) for seen, real in parts
    ]
    return sum(sums) / len(faces)


def make_appearance(reader: MouthReader, vgg16: Path | None, device: torch.device | str = "cpu") -> Appearance:
    """LPIPS of the lower half where the file of VGG-16 is at hand, else the distance of the reader's features that stands in for it.

    Raises WeightsError where the file is there and no VGG-16.
    """
    if vgg16 is not None:
        return Appearance("LPIPS (VGG-16, lower half)", load_lpips(vgg16).to(device))
    loss = ReaderLoss(reader)
    return Appearance("features of the mouth reader, standing in for LPIPS", lambda seen, real: loss(seen, real).appearance)


def _boxes(faces: Tensor) -> Tensor:
    """Mouth boxes of uint8 f h w 3, as float32."""
    rows, columns = mouth_box(faces.shape[1])
    return faces[:, rows, columns].float()
