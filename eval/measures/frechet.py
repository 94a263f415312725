"""The Frechet distance of two sets of features, taken as Gaussians whose means and covariances are gathered piece by piece.

Frechet inception distance: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500, equation 6.
"""

import logging
from collections.abc import Sequence

import numpy as np

from eval.measures.estimates import Estimate
from latentsync.errors import InputError
from latentsync.training.statistics import CONFIDENCE_Z

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
    reach = CONFIDENCE_Z * variance**0.5
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
