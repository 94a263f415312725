"""A value with its 95 % interval: Wilson's for shares, the bootstrap over clips for everything else."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from latentsync.training.statistics import wilson

RESAMPLES = 2000
TAIL = 2.5  # per cent beyond either end of an interval


class Estimate(NamedTuple):
    """A measured value."""

    value: float
    low: float | None  # of its 95 % interval; None where one clip is all there is
    high: float | None
    count: int  # clips (or, for shares, cases) that it rests on


def share(hits: Sequence[bool]) -> Estimate | None:
    """The share of hits with Wilson's score interval (1927); None of nothing."""
    if not hits:
        return None
    count, part = len(hits), sum(hits) / len(hits)
    return Estimate(part, *wilson(part, count), count)


def bootstrap(statistic: Callable[[np.ndarray], float], clips: int) -> Estimate | None:
    """A statistic of the clips with these indices, with the interval of resampled clips (Efron 1979); None of nothing, or no number."""
    if clips == 0 or not np.isfinite(value := float(statistic(np.arange(clips)))):
        return None
    if clips == 1:
        return Estimate(value, None, None, 1)
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(clips, size=clips)) for _ in range(RESAMPLES)])
    low, high = np.percentile(drawn[np.isfinite(drawn)], (TAIL, 100 - TAIL))
    return Estimate(value, float(low), float(high), clips)


def mean(values: Sequence[float | None]) -> Estimate | None:
    """The mean of those that are there."""
    return ratio([value for value in values if value is not None], None)


def ratio(above: Sequence[float], below: Sequence[float] | None) -> Estimate | None:
    """Mean above over mean below the line, clip by clip; None for `below` is 1. None where nothing is below."""
    top = np.asarray(above, dtype=np.float64)
    bottom = np.ones_like(top) if below is None else np.asarray(below, dtype=np.float64)
    if not bottom.sum() > 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap(lambda chosen: top[chosen].sum() / bottom[chosen].sum(), len(top))
