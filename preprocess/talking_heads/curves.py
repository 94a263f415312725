"""The two curves that shapes and masks are made of: a smooth step and a bell."""

import numpy as np


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 at `low` and before, 1 at `high` and beyond, smooth in between; falls where `low` > `high`."""
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3 - 2 * u)


def bump(x: np.ndarray, width: float) -> np.ndarray:
    """A bell of height 1 around x = 0 that is 1/e high at `width`."""
    return np.exp(-((x / width) ** 2))
