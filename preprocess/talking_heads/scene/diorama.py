"""A small deferred renderer for what stands behind a person: flat polygons with depth, lit by windows and lamps, seen out of focus.

Scene coordinates in cm: the camera is the origin, x to the right, y up, z away from the camera.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Paint = np.ndarray | Callable[[np.ndarray], np.ndarray]  # one colour (3), or a function of scene points (n 3) -> colours (n 3)

_NEAR = 20.0  # cm; nothing is drawn nearer
_AVERAGE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Lamp:
    """A light of a diorama that shines evenly to all sides."""

    place: np.ndarray  # float 3, cm
    colour: np.ndarray  # float 3, linear RGB
    power: float  # irradiance on a facing surface at 100 cm
    size: float = 40.0  # cm: nearer than this it does not grow brighter


class Diorama:
    """Buffers of one picture: add polygons in any order, then `shade`. The scene is turned by `yaw` radians about the camera."""

    def __init__(self, width: int, height: int, focal: float, yaw: float = 0.0) -> None:
        self.width, self.height, self.focal = width, height, focal
        cosine, sine = np.cos(yaw), np.sin(yaw)
        self._turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        self._depth = np.full((height, width), np.inf, np.float32)
        self._albedo = np.zeros((height, width, 3), np.float32)
        self._normal = np.zeros((height, width, 3), np.float32)
        self._point = np.zeros((height, width, 3), np.float32)
        self._emission = np.zeros((height, width, 3), np.float32)

    def polygon(self, corners: np.ndarray, paint: Paint, emission: bool = False, normal: np.ndarray | None = None) -> None:
        """A flat convex polygon (k 3, scene cm). `emission`: paint is radiance, not albedo. `normal` (3) bends how it is lit."""
        corners = np.asarray(corners, np.float64)
        view = _clip(corners @ self._turn.T)
        if len(view) < 3:
            return
        pixels = np.stack(
            [0.5 * self.width + view[:, 0] / view[:, 2] * self._scale, 0.5 * self.height - view[:, 1] / view[:, 2] * self._scale], -1
        )
        low = np.clip(np.floor(pixels.min(0)), 0, [self.width, self.height]).astype(int)
        high = np.clip(np.ceil(pixels.max(0)) + 1, 0, [self.width, self.height]).astype(int)
        if (high <= low).any():
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillConvexPoly(mask, np.round((np.clip(pixels, -4000, 8000) - low - 0.5) * 16).astype(np.int32), 1, shift=4)
        row, column = np.nonzero(mask)
        if len(row):
            self._fill(row + low[1], column + low[0], view, paint, emission, normal)

    @property
    def _scale(self) -> float:
        return self.focal * self.height

    def _fill(self, row: np.ndarray, column: np.ndarray, view: np.ndarray, paint: Paint, emission: bool, normal: np.ndarray | None) -> None:
        """Writes the pixels of a polygon that are nearer than what stands there."""
        flat = np.cross(view[1] - view[0], view[2] - view[0])
        flat = flat / max(float(np.linalg.norm(flat)), 1e-9)
        ray = np.stack(
            [(column + 0.5 - 0.5 * self.width) / self._scale, (0.5 * self.height - row - 0.5) / self._scale, np.ones(len(row))], -1
        )
        slope = ray @ flat
        depth = (flat @ view[0]) / np.where(np.abs(slope) < 1e-6, 1e-6, slope)
        seen = (depth > 0.5 * _NEAR) & (depth < self._depth[row, column])
        row, column, depth = row[seen], column[seen], depth[seen]
        point = (ray[seen] * depth[:, None]) @ self._turn
        colour = paint(point) if callable(paint) else paint
        scene_normal = self._turn.T @ flat if normal is None else normal
        if scene_normal @ (self._turn.T @ view.mean(0)) > 0:
            scene_normal = -scene_normal
        self._depth[row, column] = depth
        self._point[row, column] = point
        self._normal[row, column] = scene_normal
        self._albedo[row, column] = 0.0 if emission else colour
        self._emission[row, column] = colour if emission else 0.0

    def box(self, low: Sequence[float], high: Sequence[float], paint: Paint) -> None:
        """A box from its least to its greatest corner; the faces that can be seen."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        self.polygon([[x0, y0, z0], [x1, y0, z0], [x1, y1, z0], [x0, y1, z0]], paint)
        for x in (x0, x1):
            self.polygon([[x, y0, z0], [x, y1, z0], [x, y1, z1], [x, y0, z1]], paint)
        for y in (y0, y1):
            self.polygon([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]], paint)

    def shade(self, lamps: Sequence[Lamp], ambient: np.ndarray, level: float) -> np.ndarray:
        """Radiance (float32 h w 3): lamps and an even ambient light (3), scaled to a mean luminance of `level` where nothing glows."""
        total = np.ones_like(self._point) * ambient * (0.8 + 0.2 * self._normal[..., 1:2])
        for lamp in lamps:
            to_lamp = lamp.place.astype(np.float32) - self._point
            square = (to_lamp**2).sum(-1, keepdims=True)
            cosine = np.clip((to_lamp * self._normal).sum(-1, keepdims=True) / np.sqrt(square + 1), 0, 1)
            total += lamp.power * lamp.colour * cosine * 1e4 / (square + lamp.size**2)
        lit = self._albedo * total
        matt = self._albedo.any(-1)
        mean = float((lit[matt] @ _AVERAGE).mean()) if matt.any() else 1.0
        return (lit * (level / max(mean, 1e-6)) + self._emission).astype(np.float32)


def _clip(corners: np.ndarray) -> np.ndarray:
    """The part of a polygon (k 3) in front of the near plane."""
    result = []
    for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if here[2] >= _NEAR:
            result.append(here)
        if (here[2] >= _NEAR) != (there[2] >= _NEAR):
            result.append(here + (there - here) * ((_NEAR - here[2]) / (there[2] - here[2])))
    return np.array(result)


def defocus(picture: np.ndarray, radius: float) -> np.ndarray:
    """Linear RGB (float32 h w 3) through a lens whose blur disc has `radius` pixels: even, with the brighter rim of real lenses."""
    reach = int(np.ceil(radius + 1))
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(offset[:, None], offset[None])
    kernel = np.clip(radius + 0.5 - distance, 0, 1) * (1 + 0.3 * np.clip(distance / max(radius, 1), 0, 1) ** 4)
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def even_noise(points: np.ndarray, size: float) -> np.ndarray:
    """Smooth noise (n) in about -1 .. 1 of scene points (n 3) with features of `size` cm; the same for the same points."""
    p = points / size
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    return (
        np.sin(2.1 * x + 1.3 * np.sin(1.7 * y + z)) + np.sin(1.9 * y + 1.1 * np.sin(2.3 * z - x)) + np.sin(2.7 * z + np.sin(1.3 * x + y))
    ) / 3
