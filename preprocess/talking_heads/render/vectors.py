"""Arithmetic of three-component vectors for compiled code: a vector is a tuple of three floats."""

import math

import numpy as np
from numba import njit

Vector = tuple[float, float, float]

# One thread, no lock held: frames are drawn side by side. Division follows IEEE 754: checks for zero would cost time in every pixel.
kernel = njit(cache=True, nogil=True, error_model="numpy")
# For what takes a table of arrays: handing dozens of them on costs more than many a function does.
inlined = njit(cache=True, nogil=True, error_model="numpy", inline="always")


@kernel
def load(rows: np.ndarray, index: int) -> Vector:
    """Row `index` of an array (n 3)."""
    return rows[index, 0], rows[index, 1], rows[index, 2]


@kernel
def dot(a: Vector, b: Vector) -> float:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def cross(a: Vector, b: Vector) -> Vector:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel
def minus(a: Vector, b: Vector) -> Vector:
    """a - b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@kernel
def along(a: Vector, b: Vector, amount: float) -> Vector:
    """a + amount * b."""
    return a[0] + amount * b[0], a[1] + amount * b[1], a[2] + amount * b[2]


@kernel
def unit(a: Vector) -> Vector:
    """The vector at length 1; a vector of no length stays as it is."""
    scale = 1.0 / math.sqrt(max(dot(a, a), 1e-24))
    return a[0] * scale, a[1] * scale, a[2] * scale


@kernel
def clamp(value: float, low: float, high: float) -> float:
    """The value, held between two bounds."""
    return min(max(value, low), high)


@kernel
def smoothstep(low: float, high: float, value: float) -> float:
    """0 below `low`, 1 above `high`, a cubic without corners between."""
    t = clamp((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
