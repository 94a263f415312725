"""Frechet distances of sets of videos: FID of faces, FVD of windows of frames."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from eval.estimates import Estimate
from eval.metrics.base import Chunk, Column, SetMetric, check_features, load_torchscript
from latentsync.errors import InputError
from latentsync.faces.alignment import bounding_box, face_size
from latentsync.weights import WEIGHTS

logger = logging.getLogger(__name__)

FEWEST = 2  # features that have a covariance
GROUPS = 10  # of videos: each is left out once for the interval
CONFIDENCE_Z = float(norm.ppf(0.975))  # standard deviations that 95 % of a normal distribution lie within


class Gaussian(NamedTuple):
    """Mean and covariance of features."""

    count: int  # of features
    mean: np.ndarray  # float64 d; empty of no features
    scatter: np.ndarray  # sum of the products of their deviations from the mean, float64 d d

    @property
    def covariance(self) -> np.ndarray:
        """Float64 d d, divided by n - 1. Raises InputError where there are fewer than two features."""
        if self.count < FEWEST:
            raise InputError(f"A set of {self.count} features has no covariance: measure more or longer videos")
        return self.scatter / (self.count - 1)


def gaussian_of(videos: Sequence[np.ndarray]) -> Gaussian:
    """The Gaussian of the features n d of several videos; n may be 0."""
    if not (filled := [features for features in videos if len(features)]):
        return Gaussian(0, np.zeros(0), np.zeros((0, 0)))
    features = np.concatenate(filled).astype(np.float64)
    deviations = features - (mean := features.mean(axis=0))
    return Gaussian(len(features), mean, deviations.T @ deviations)


def merged(parts: Sequence[Gaussian]) -> Gaussian:
    """The Gaussian of all features of several sets, none of them empty (Chan, Golub and LeVeque 1983)."""
    counts = np.array([part.count for part in parts], dtype=np.float64)
    means = np.stack([part.mean for part in parts])
    deviations = means - (mean := counts @ means / counts.sum())
    scatter = sum(part.scatter for part in parts) + (deviations * counts[:, None]).T @ deviations
    return Gaussian(int(counts.sum()), mean, scatter)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the root by the symmetric R S2 R, R^2 = S1. Raises InputError: under two features."""
    one, other = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    apart = first.mean - second.mean
    return float(apart @ apart + np.trace(one) + np.trace(other) - 2 * between)


def set_distance(generated: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
    """The distance of two sets of videos by the features n d of each. Raises InputError where a set has fewer than two features."""
    first, second = gaussian_of(generated), gaussian_of(real)
    if min(first.count, second.count) <= len(first.mean):
        logger.warning(
            "Sets of %d and %d features of %d numbers: from fewer features than numbers the distance comes out too large, and only "
            "sets of the same size can be compared.",
            *(first.count, second.count, len(first.mean)),
        )
    return frechet_distance(first, second)


def distance_estimate(generated: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> Estimate:
    """The distance with its 95 % interval by the jackknife of groups of videos (Efron and Stein 1981). Raises as `set_distance`."""
    value, count = set_distance(generated, real), len([features for features in generated if len(features)])
    sides = []
    for videos in (generated, real):
        filled = [features for features in videos if len(features)]
        sides.append([gaussian_of(filled[index::GROUPS]) for index in range(min(GROUPS, len(filled)))])
    if any(len(groups) < 2 or sum(part.count for part in groups) - part.count < FEWEST for groups in sides for part in groups):
        return Estimate(value, None, None, count)
    variance = 0.0
    for groups, other in (sides, sides[::-1]):  # the distance is symmetric
        whole = merged(other)
        values = np.array([frechet_distance(merged(groups[:k] + groups[k + 1 :]), whole) for k in range(len(groups))])
        variance += (len(values) - 1) * float(values.var())
    reach = CONFIDENCE_Z * variance**0.5
    return Estimate(value, max(0.0, value - reach), value + reach, count)


INCEPTION = f"the Inception of the original FID as TorchScript, {WEIGHTS['inception'].origin}"
_INCEPTION_SWITCHES = {"return_features": True}
load_inception = partial(load_torchscript, origin=INCEPTION, arguments=_INCEPTION_SWITCHES)


class Fid(SetMetric):
    """Frechet inception distance of faces (arXiv 1706.08500)."""

    name = "fid"
    columns = (Column("fid", better="low", digits=2),)

    protocol = (
        "Frechet distance of the pooled features of Inception (TensorFlow's of 2015, as TorchScript, which resizes as the original does) "
        "of the aligned faces of all frames that show a face."
    )

    def __init__(self, network: torch.nn.Module, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network, device

    @torch.no_grad()
    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Features of the faces: n 2048."""
        if not len(chunk.faces):
            return np.empty((0, 0))
        pixels = chunk.faces.permute(0, 3, 1, 2).to(self.device)  # n c h w, uint8
        return check_features(self.network(pixels, **_INCEPTION_SWITCHES), len(pixels), INCEPTION).numpy()


Windows = Literal["one", "all"]
WINDOW = 16  # frames of one input of I3D
FIRST = 20  # frame at which the one window of a video begins
SIDE = 224  # pixels of its pictures
I3D = f"I3D trained on Kinetics-400 as TorchScript, {WEIGHTS['i3d'].origin}"
_I3D_SWITCHES = {"rescale": False, "resize": False, "return_features": True}
load_i3d = partial(load_torchscript, origin=I3D, arguments=_I3D_SWITCHES)
_WHICH = {
    "one": f"frames {FIRST} to {FIRST + WINDOW - 1} of each video; a video that shows no face in one of them is left out",
    "all": f"every {WINDOW} successive frames of each video that show a face, without overlap: more features than LatentSync's one "
    "window a video, so that the covariance has full rank, and therefore another number than published ones",
}


class Fvd(SetMetric):
    """Frechet video distance of the boxes around faces (arXiv 1812.01717); of "one" window of a video, or of "all" without overlap."""

    def __init__(self, network: torch.nn.Module, windows: Windows = "one", device: torch.device | str = "cpu") -> None:
        self.network, self.windows, self.device = network, windows, device
        self.name = "fvd" if windows == "one" else "fvd_all"
        self.columns = (Column(self.name, better="low", digits=1),)
        self.protocol = (
            f"Frechet distance of the features of I3D (TorchScript, rescale and resize off) of {_WHICH[windows]}. The box around the "
            f"aligned face, in the frame, is brought to {SIDE} x {SIDE} pixels by the area filter; RGB in [0, 1]."
        )

    @torch.no_grad()
    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Features of the windows that end here: n 400. Carries the pictures of the one that has begun."""
        matrices, features = iter(chunk.matrices), []
        for number, (frame, has_face) in enumerate(zip(chunk.frames, chunk.has_face, strict=True), chunk.start):
            matrix = next(matrices) if has_face else None
            if self.windows == "one" and not FIRST <= number < FIRST + WINDOW:
                continue
            picture = None if matrix is None else face_box_picture(frame, matrix, chunk.faces.shape[1])
            if picture is None:
                carried.clear()
                continue
            carried.append(picture)
            if len(carried) == WINDOW:
                pixels = torch.from_numpy(np.stack(carried)).to(self.device).float() / 255  # t h w c
                found = self.network(pixels.permute(3, 0, 1, 2)[None], **_I3D_SWITCHES)
                features.append(check_features(found, 1, I3D).numpy())
                carried.clear()
        return np.concatenate(features) if features else np.empty((0, 0))


def face_box_picture(frame: np.ndarray, matrix: Tensor, resolution: int) -> np.ndarray | None:
    """The upright box around the aligned face in a frame uint8 h w 3, as uint8 224 224 3; None where it lies outside."""
    box = bounding_box(matrix, face_size(resolution), (frame.shape[1], frame.shape[0]), margin=0)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return cv2.resize(frame[y0:y1, x0:x1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
