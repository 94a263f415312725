"""Frechet distances: FID of faces, FVD of clips."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Estimate, check_features, load_torchscript
from latentsync.errors import InputError
from latentsync.faces.alignment import bounding_box, face_size
from latentsync.weights import WEIGHTS

logger = logging.getLogger(__name__)

FEWEST = 2  # features that have a covariance
GROUPS = 10  # of videos: each is left out once for the interval


class Gaussian:
    """Mean and covariance of features that go by; holds d x d numbers however many there are.

    Attributes:
        count: features so far.
        mean: of them, float64 d; empty before the first.
        scatter: sum of the products of their deviations from the mean, float64 d d.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.scatter = 0, np.zeros(0), np.zeros((0, 0))

    def add(self, features: np.ndarray) -> None:
        """Take more of them, n d; n may be 0. Raises ValueError where they have another width."""
        features = np.asarray(features, dtype=np.float64)
        if not len(features):
            return
        mean = features.mean(axis=0)
        away = features - mean
        self._merge(len(features), mean, away.T @ away)

    def merge(self, other: "Gaussian") -> None:
        """Take all that another has seen."""
        if other.count:
            self._merge(other.count, other.mean, other.scatter)

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983, equation 2.1."""
        if self.count == 0:
            self.count, self.mean, self.scatter = count, mean.copy(), scatter.copy()
            return
        total, apart = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + np.outer(apart, apart) * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Float64 d d, divided by n - 1. Raises InputError where there are fewer than two features."""
        if self.count < FEWEST:
            raise InputError(f"A set of {self.count} features has no covariance: measure more or longer videos")
        return self.scatter / (self.count - 1)

    @property
    def has_full_rank(self) -> bool:
        """Whether there are enough features for a covariance that can be inverted."""
        return self.count > len(self.mean)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The trace of the root of S1 S2 is that of the symmetric R S2 R, where R is the root of S1: its eigenvalues are real and
    not negative, also where covariances cannot be inverted. Raises InputError where a set has fewer than two features.
    """
    one, other = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    apart = first.mean - second.mean
    return float(apart @ apart + np.trace(one) + np.trace(other) - 2 * between)


def gather(videos: Sequence[np.ndarray]) -> Gaussian:
    """The features n d of several videos as one Gaussian."""
    found = Gaussian()
    for features in videos:
        found.add(features)
    return found


def set_distance(made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
    """The distance of two sets of videos by the features n d of each. Raises InputError where a set has fewer than two features."""
    first, second = gather(made), gather(real)
    if not (first.has_full_rank and second.has_full_rank):
        logger.warning(
            "Sets of %d and %d features of %d numbers: from fewer features than numbers the distance comes out too large, and only "
            "sets of the same size can be compared.",
            *(first.count, second.count, len(first.mean)),
        )
    return frechet_distance(first, second)


def distance_estimate(made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> Estimate:
    """The distance with its 95 % interval by the jackknife of groups of videos of either set (Efron and Stein 1981).

    A bootstrap would draw videos twice, which alone moves a covariance away from that of the other set. No interval where a set
    has too few videos to leave a group out. Raises InputError as `set_distance`.
    """
    value, count = set_distance(made, real), len([features for features in made if len(features)])
    parts = _groups(made), _groups(real)
    if any(len(groups) < FEWEST or sum(part.count for part in groups) - part.count < FEWEST for groups in parts for part in groups):
        return Estimate(value, None, None, count)
    whole = [_merged(groups) for groups in parts]
    variance = 0.0
    for side, groups in enumerate(parts):
        left = [_merged(groups[:index] + groups[index + 1 :]) for index in range(len(groups))]
        values = np.array([frechet_distance(*((one, whole[1]) if side == 0 else (whole[0], one))) for one in left])
        variance += (len(values) - 1) * float(values.var())
    reach = NormalDist().inv_cdf(0.975) * variance**0.5  # of a 95 % interval
    return Estimate(value, max(0.0, value - reach), value + reach, count)


def _groups(videos: Sequence[np.ndarray]) -> list[Gaussian]:
    """At most `GROUPS` groups of videos that have features."""
    filled = [features for features in videos if len(features)]
    return [gather(filled[index::GROUPS]) for index in range(min(GROUPS, len(filled)))]


def _merged(groups: Sequence[Gaussian]) -> Gaussian:
    found = Gaussian()
    for group in groups:
        found.merge(group)
    return found


INCEPTION = f"the Inception of the original FID as TorchScript, {WEIGHTS['inception'].origin}"
_INCEPTION_SWITCHES = {"return_features": True}


class Fid:
    """A `SetMeasure`.

    Args:
        network: Inception, see `load_inception`.
        every: of how many frames one is looked at; neighbours hardly differ.
        device: where the network is.
    """

    name = "fid"
    column = Column("fid", better="low", digits=2)

    def __init__(self, network: torch.nn.Module, every: int = 1, device: torch.device | str = "cpu") -> None:
        self.network, self.every, self.device = network, every, device
        which = "all frames" if every == 1 else f"every {every}th frame, counted from the first,"
        self.protocol = (
            f"Frechet distance of the pooled features of Inception (TensorFlow's of 2015, as TorchScript, which resizes as the "
            f"original does) of the aligned faces of {which} that show a face."
        )

    def open(self, case: Case) -> "_FaceTally":
        """Begin with a video."""
        return _FaceTally(self)

    def compare(self, made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
        """See `SetMeasure`."""
        return set_distance(made, real)


class _FaceTally:
    """One video."""

    def __init__(self, measure: Fid) -> None:
        self._measure = measure
        self._features: list[np.ndarray] = []

    @torch.inference_mode()
    def add(self, chunk: Chunk) -> None:
        numbers = np.flatnonzero(chunk.has_face) + chunk.start
        faces = chunk.faces[torch.from_numpy(numbers % self._measure.every == 0)]  # n R R 3
        if len(faces):
            pictures = faces.permute(0, 3, 1, 2).to(self._measure.device)  # n c h w, uint8
            self._features.append(check_features(self._measure.network(pictures, **_INCEPTION_SWITCHES), len(faces), INCEPTION).numpy())

    def finish(self) -> np.ndarray:
        return np.concatenate(self._features) if self._features else np.zeros((0, 0))


def load_inception(path: Path | str, device: torch.device | str = "cpu") -> torch.nn.Module:
    """Inception. Raises WeightsError: the file is missing, no TorchScript, or another network."""
    return load_torchscript(path, INCEPTION, _INCEPTION_SWITCHES, device)


Windows = Literal["one", "all"]
WINDOW = 16  # frames that I3D looks at together
FIRST = 20  # frame at which the one window of a video begins
SIDE = 224  # pixels of its pictures
I3D = f"I3D trained on Kinetics-400 as TorchScript, {WEIGHTS['i3d'].origin}"
_I3D_SWITCHES = {"rescale": False, "resize": False, "return_features": True}
_WHICH = {
    "one": f"frames {FIRST} to {FIRST + WINDOW - 1} of each video; a video that shows no face in one of them is left out",
    "all": f"every {WINDOW} successive frames of each video that show a face, without overlap: more features than LatentSync's one "
    "window a video, so that the covariance has full rank, and therefore another number than published ones",
}


class Fvd:
    """A `SetMeasure`.

    Args:
        network: I3D, see `load_i3d`.
        windows: "one": one window of a video, as LatentSync measures; "all": all that do not overlap.
        device: where the network is.
    """

    def __init__(self, network: torch.nn.Module, windows: Windows = "one", device: torch.device | str = "cpu") -> None:
        self.network, self.windows, self.device = network, windows, device
        self.name = "fvd" if windows == "one" else "fvd_all"
        self.column = Column(self.name, better="low", digits=1)
        self.protocol = (
            f"Frechet distance of the features of I3D (TorchScript, rescale and resize off) of {_WHICH[windows]}. The box around the "
            f"aligned face, in the frame, is brought to {SIDE} x {SIDE} pixels by the area filter; RGB in [0, 1]."
        )

    def open(self, case: Case) -> "_WindowTally":
        """Begin with a video."""
        return _WindowTally(self)

    def compare(self, made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
        """See `SetMeasure`."""
        return set_distance(made, real)

    @torch.inference_mode()
    def look(self, pictures: np.ndarray) -> np.ndarray:
        """One window, uint8 16 224 224 3 -> features float64 1 d. Raises WeightsError where the network gives something else."""
        pixels = torch.from_numpy(pictures).to(self.device).float() / 255
        return check_features(self.network(pixels.permute(3, 0, 1, 2)[None], **_I3D_SWITCHES), 1, I3D).numpy()  # n c t h w


class _WindowTally:
    """One video; holds the pictures of one window."""

    def __init__(self, measure: Fvd) -> None:
        self._measure = measure
        self._held: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, chunk: Chunk) -> None:
        matrices, resolution = iter(chunk.matrices), chunk.faces.shape[1]
        for number, (frame, has_face) in enumerate(zip(chunk.frames, chunk.has_face, strict=True), chunk.start):
            matrix = next(matrices) if has_face else None
            if self._measure.windows == "one" and not FIRST <= number < FIRST + WINDOW:
                continue
            picture = None if matrix is None else face_box_picture(frame, matrix, resolution)
            if picture is None:
                self._held.clear()
                continue
            self._held.append(picture)
            if len(self._held) == WINDOW:
                self._features.append(self._measure.look(np.stack(self._held)))
                self._held.clear()

    def finish(self) -> np.ndarray:
        return np.concatenate(self._features) if self._features else np.zeros((0, 0))


def face_box_picture(frame: np.ndarray, matrix: Tensor, resolution: int) -> np.ndarray | None:
    """The upright box around the aligned face in a frame uint8 h w 3, as uint8 224 224 3; None where it lies outside."""
    box = bounding_box(matrix, face_size(resolution), (frame.shape[1], frame.shape[0]), margin=0)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return cv2.resize(frame[y0:y1, x0:x1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def load_i3d(path: Path | str, device: torch.device | str = "cpu") -> torch.nn.Module:
    """I3D. Raises WeightsError: the file is missing, no TorchScript, or another network."""
    return load_torchscript(path, I3D, _I3D_SWITCHES, device)
