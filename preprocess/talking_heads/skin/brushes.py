"""Tools to paint on the template plane: soft regions, noise, spots and creases. Lengths in cm on the plane."""

import cv2
import numpy as np
from numba import njit

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.template import S_LIMIT, T_TOP

EXTENT = 2 * S_LIMIT  # cm: side of the square plane


def blob(s: np.ndarray, t: np.ndarray, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """A soft ellipse: 1 in the middle, 1/e at the radii."""
    return np.exp(-(((s - centre[0]) / radii[0]) ** 2) - ((t - centre[1]) / radii[1]) ** 2)


def noise(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    """Smooth noise (float32 size size) of about unit spread whose lumps are `cell` cm wide."""
    cells = max(4, round(EXTENT / cell))
    coarse = rng.standard_normal((min(cells, size), min(cells, size)), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def enlarge(field: np.ndarray, size: int) -> np.ndarray:
    """A field painted on a coarser grid of the same plane, at `size` texels a side."""
    return cv2.resize(np.ascontiguousarray(field, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def window(size: int, s_range: tuple[float, float], t_range: tuple[float, float]) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of a texture over a rectangle of the plane: its slices (rows, columns), and s (1 w) and t (h 1) at its texel centres."""
    texel = EXTENT / size
    columns = slice(max(0, int((s_range[0] + S_LIMIT) / texel)), min(size, int((s_range[1] + S_LIMIT) / texel) + 1))
    rows = slice(max(0, int((T_TOP - t_range[1]) / texel)), min(size, int((T_TOP - t_range[0]) / texel) + 1))
    s = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * texel - S_LIMIT
    t = T_TOP - (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * texel
    return (rows, columns), s[None], t[:, None]


def polygon(size: int, outline: list[tuple[float, float]], softness: float) -> np.ndarray:
    """A filled outline on both halves of the plane (float32 size size, 0..1) with an edge of `softness` cm."""
    mask = np.zeros((size, size), np.float32)
    scale = size / EXTENT
    for side in (1.0, -1.0):
        points = [((side * s + S_LIMIT) * scale, (T_TOP - t) * scale) for s, t in outline]
        cv2.fillPoly(mask, [np.round(np.array(points)).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (0, 0), max(softness * scale, 0.5))


def rim_fade(size: int, band: float) -> np.ndarray:
    """1 inside the plane, 0 at its rim, where textures are continued by repeating the last texel (float32 size size)."""
    middle = (np.arange(size, dtype=np.float32) + 0.5) * EXTENT / size
    edge = smooth(0.0, band, np.minimum(middle, EXTENT - middle))
    return edge[:, None] * edge[None]


def spots(field: np.ndarray, marks: np.ndarray) -> None:
    """Adds soft-edged elliptic spots to a field. `marks` (n 6): s, t, radius in cm, aspect, angle, strength."""
    _stamp(field, np.ascontiguousarray(marks, np.float32), np.float32(field.shape[0] / EXTENT), np.float32(S_LIMIT), np.float32(T_TOP))


def crease(field: np.ndarray, path: np.ndarray, width: float, depth: np.ndarray) -> None:
    """Adds a groove along a polyline: `path` (k 2) in cm, `depth` (k) at its points, a Gaussian of `width` cm across."""
    knots = np.concatenate([path, np.asarray(depth).reshape(-1, 1)], 1)
    _groove(field, np.ascontiguousarray(knots, np.float32), np.float32(width), np.float32(field.shape[0] / EXTENT))


def curve(points: list[tuple[float, float]], count: int = 12) -> np.ndarray:
    """A smooth path (count 2) through 3 or more points: a Catmull-Rom spline."""
    knots = np.array(points, np.float64)
    knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    place = np.linspace(0, len(points) - 1, count)
    index = np.minimum(place.astype(int), len(points) - 2)
    u = (place - index)[:, None]
    a, b, c, d = (knots[index + k] for k in range(4))
    path = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
    return path.astype(np.float32)


def tile_noise(rng: np.random.Generator, size: int, period: float) -> np.ndarray:
    """Noise that repeats without a seam (float32 size size, unit spread), its lumps about `period` texels apart."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    band = np.exp(-((frequency * period - 1.0) ** 2) / 0.18)
    wave = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * band, s=(size, size))
    return (wave / wave.std()).astype(np.float32)


@njit(cache=True, nogil=True)
def _stamp(field: np.ndarray, marks: np.ndarray, scale: np.float32, s_limit: np.float32, t_top: np.float32) -> None:
    height, width = field.shape
    for k in range(marks.shape[0]):
        s, t, radius, aspect, angle, strength = marks[k]
        cosine, sine = np.cos(angle), np.sin(angle)
        reach = np.float32(1.6) * radius * max(aspect, np.float32(1.0)) * scale
        x, y = (s + s_limit) * scale - np.float32(0.5), (t_top - t) * scale - np.float32(0.5)
        for row in range(max(0, int(y - reach)), min(height, int(y + reach) + 2)):
            for column in range(max(0, int(x - reach)), min(width, int(x + reach) + 2)):
                dx, dy = (column - x) / scale, (row - y) / scale
                along, across = (dx * cosine + dy * sine) / (radius * aspect), (dy * cosine - dx * sine) / radius
                square = along * along + across * across
                if square < np.float32(2.5):
                    field[row, column] += strength * np.exp(-square * square)


@njit(cache=True, nogil=True)
def _groove(field: np.ndarray, knots: np.ndarray, width: np.float32, scale: np.float32) -> None:
    height, columns = field.shape
    reach = np.float32(2.2) * width
    texel = np.float32(1.0) / scale
    left, right = knots[:, 0].min() - reach, knots[:, 0].max() + reach
    low, high = knots[:, 1].min() - reach, knots[:, 1].max() + reach
    first_row, last_row = max(0, int((T_TOP - high) * scale)), min(height, int((T_TOP - low) * scale) + 1)
    first_column, last_column = max(0, int((left + S_LIMIT) * scale)), min(columns, int((right + S_LIMIT) * scale) + 1)
    for row in range(first_row, last_row):
        t = np.float32(T_TOP) - (row + np.float32(0.5)) * texel
        for column in range(first_column, last_column):
            s = (column + np.float32(0.5)) * texel - np.float32(S_LIMIT)
            deepest = np.float32(0.0)
            for k in range(knots.shape[0] - 1):
                ds, dt = knots[k + 1, 0] - knots[k, 0], knots[k + 1, 1] - knots[k, 1]
                length = ds * ds + dt * dt + np.float32(1e-9)
                u = ((s - knots[k, 0]) * ds + (t - knots[k, 1]) * dt) / length
                u = min(max(u, np.float32(0.0)), np.float32(1.0))
                x, y = s - knots[k, 0] - u * ds, t - knots[k, 1] - u * dt
                square = (x * x + y * y) / (width * width)
                if square < np.float32(4.8):
                    depth = (knots[k, 2] + u * (knots[k + 1, 2] - knots[k, 2])) * np.exp(-square)
                    if abs(depth) > abs(deepest):
                        deepest = depth
            field[row, column] += deepest
