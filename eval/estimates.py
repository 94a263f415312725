"""Values with their 95 % intervals, and how results are written: values for JSON, tables in Markdown."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

RESAMPLES, SEED = 2000, 0  # of the bootstrap
TAIL = 2.5  # per cent beyond either end of an interval
DIGITS = 6  # behind the point in JSON
NONE = "-"  # in the place of a number that is not there


class Estimate(NamedTuple):
    """A measured value."""

    value: float
    low: float | None  # of its 95 % interval; None where one clip is all there is
    high: float | None
    count: int  # clips (or, for shares, cases) that it rests on

    def text(self, digits: int) -> str:
        """Such as "1.20 [1.10, 1.30]"."""
        interval = "" if self.low is None or self.high is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.value:.{digits}f}{interval}"


def share(hits: Sequence[bool]) -> Estimate | None:
    """The share of hits with Wilson's score interval (1927); None of nothing."""
    from scipy.stats import binomtest  # takes a second to import, which a command's --help should not

    if not hits:
        return None
    found = binomtest(sum(map(bool, hits)), len(hits))
    return Estimate(found.statistic, *map(float, found.proportion_ci(method="wilson")), len(hits))


def bootstrap(statistic: Callable[[np.ndarray], float], clips: int) -> Estimate | None:
    """A statistic of the clips with these indices, with the interval of resampled clips (Efron 1979); None of nothing, or no number."""
    from scipy import stats  # as above

    if clips == 0 or not np.isfinite(value := float(statistic(np.arange(clips)))):
        return None
    if clips == 1:
        return Estimate(value, None, None, 1)
    how = {"n_resamples": RESAMPLES, "batch": 100, "vectorized": False, "method": "percentile", "rng": np.random.default_rng(SEED)}
    resampled = stats.bootstrap((np.arange(clips),), statistic, **how).bootstrap_distribution
    low, high = np.percentile(resampled[np.isfinite(resampled)], (TAIL, 100 - TAIL))  # resamples without a number do not count
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


def json_value(value: Any) -> Any:
    """A value for JSON: named fields become dictionaries, numbers are rounded, what is no number becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(part) for part in value]
    return value if not isinstance(value, float) else round(float(value), DIGITS) if math.isfinite(value) else None


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    body = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))
