"""The body below the neck as a distance field, and points on it by angle and distance from the neck.

A point of the surface is named by (angle, down): angle 0 is the front, pi / 2 the shoulder at the right of the picture; down 0 lies on the
neck, about 0.15 at its root, about 0.45 on the shoulder's edge and 1 at the lower end of the bust, y = -47 cm. A larger `down` is further
from the head everywhere, so that necklines and collars are curves down(angle), and cloth is the same surface at a greater distance.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.interpolate import PchipInterpolator

from preprocess.talking_heads.traits import Traits, stream

NECK_Z = -1.5  # cm, the neck's axis
_START = 26.0  # cm from the anchor of a ray, outside of everybody
_STEPS = 70

# Rays that find the surface: height of their anchor, how far the anchor moves out, elevation in degrees, by `down`
_DOWN = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 1.0])
_SIDE = {
    "height": [-19.0, -24.0, -26.5, -27.5, -29.5, -47.0],
    "out": [0.0, 4.5, 10.5, 13.0, 13.0, 13.0],
    "rise": [52.0, 78.0, 82.0, 42.0, 2.0, 0.0],
}
_FRONT = {"height": [-19.0, -21.5, -24.5, -28.0, -32.0, -47.0], "out": [0.0] * 6, "rise": [30.0, 24.0, 16.0, 7.0, 0.0, 0.0]}
_BACK = {"height": [-19.0, -22.5, -25.5, -28.5, -32.0, -47.0], "out": [0.0] * 6, "rise": [52.0, 48.0, 34.0, 16.0, 0.0, 0.0]}


@dataclass(frozen=True)
class Torso:
    """The body of a person as round cones that melt into each other."""

    cones: np.ndarray  # float32 c 8, cm: one end xyz and radius, other end xyz and radius
    melt: float  # cm over which neighbours blend

    def surface(self, angle: np.ndarray, down: np.ndarray, distance: np.ndarray | float = 0.0) -> np.ndarray:
        """Points (float32 ... 3) at (angle, down), `distance` cm outside of the skin; the three broadcast."""
        angle, down, distance = np.broadcast_arrays(angle, down, distance)
        anchor, direction = _rays(angle.ravel(), down.ravel())
        found = _march(self.cones, self.melt, anchor, direction, distance.ravel().astype(np.float32))
        return found.reshape(*angle.shape, 3)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """How far points (n 3) lie outside of the skin in cm (float32 n), about; negative inside."""
        return _distances(self.cones, self.melt, np.ascontiguousarray(points, np.float32))

    def lift(self, points: np.ndarray, margin: np.ndarray | float = 0.03, width: float = 0.45) -> np.ndarray:
        """Points (n 3) of which those inside of the skin are moved straight out to `margin` cm above it, the others stay.

        Points up to `width` cm above the margin rise a little too, so that a sheet that dips in meets the skin without a crease.
        """
        points = np.ascontiguousarray(points, np.float32)
        here = self.distance(points)
        step = 0.1 * np.eye(3, dtype=np.float32)
        slope = np.stack([self.distance(points + axis) - self.distance(points - axis) for axis in step], -1)
        slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
        above = here - margin
        wanted = np.where(above > width, above, np.clip(above + width, 0, None) ** 2 / (4 * width))
        return points + (wanted - above)[:, None] * slope


def build_torso(traits: Traits, neck_radius: float) -> Torso:
    """The body of a person; `neck_radius` in cm as the head ends, about 5 (feminine) .. 6.2 (masculine)."""
    rng = stream(traits.seed, "torso")
    fem, full = traits.femininity, traits.fullness
    half = 21.2 - 2.9 * fem + 0.9 * full + rng.normal(0, 0.45)  # shoulder half width
    slope = rng.normal(0, 0.45)  # sloping or square shoulders
    top = -21.6 - 0.5 * fem - slope
    arm = 4.4 - 0.9 * fem + 0.7 * full
    deep = 8.2 - 1.2 * fem + 1.4 * full
    wide = 6.4 - 0.8 * fem + 0.6 * full
    trapezius = 2.6 - 0.8 * fem + 0.3 * full
    middle = [
        [0.0, -12.0, -1.35, neck_radius - 0.6, 0.0, -19.5, -1.3, neck_radius + 0.06],  # leaves the neck at a flat angle
        [0.0, -20.2, -0.75, neck_radius, 0.0, -30.0, 0.2, 6.5],  # the pit of the throat, just outside of the neck's lower rim
        [0.0, -17.0, -4.6, 2.6, 0.0, -26.0, -6.5, 4.0],
    ]
    chest = 0.9 * (1 - fem) + 0.2
    right = [
        [1.7, -13.0, -4.2, 0.65 * trapezius, half - 6.5, top, -2.0, trapezius],
        [1.4, -20.0, -0.45, neck_radius - 0.85, 4.0, -30.0, -0.2, 5.5],
        [2.2, -20.6, 3.2, 0.9, half - 5.5, top + 0.6, 0.8, 1.0],
        [half - arm - 0.4, top - 1.6, -1.2, arm - 0.2, half - arm + 0.8, -52.0, -0.6, arm],
        [wide, -27.0, -1.8, deep, wide - 0.6, -52.0, -1.2, deep - 0.2],
        [7.0, -29.5, 3.6 + 0.3 * deep - 2.0, 3.4 + chest, 5.0, -31.0, 3.4 + 0.3 * deep - 2.0, 3.6 + chest],
        [5.5, -22.5, -6.0, 3.6, 7.0, -34.0, -6.5, 4.4],
    ]
    if fem > 0.5:
        size = float(np.clip(4.2 + 0.8 * full + rng.normal(0, 0.4), 3.3, 5.6))
        right.append([6.9, -31.5, 3.6, size - 0.6, 7.2, -35.5, 4.3, size])
        middle.append([-5.5, -34.5, 4.1, size - 0.5, 5.5, -34.5, 4.1, size - 0.5])  # cloth spans the cleft
    mirror = np.array([-1, 1, 1, 1, -1, 1, 1, 1])
    cones = np.array([*middle, *right, *(np.array(cone) * mirror for cone in right)], np.float32)
    return Torso(cones, 1.9)


def _rays(angle: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anchors and unit directions (both float32 n 3) of the rays that meet the surface at (angle, down)."""
    side = np.sin(angle) ** 2
    front = np.where(np.cos(angle) > 0, 1 - side, 0.0)
    back = 1 - side - front

    def blend(name: str) -> np.ndarray:
        tables = [PchipInterpolator(_DOWN, table[name])(np.clip(down, 0, 1)) for table in (_SIDE, _FRONT, _BACK)]
        return side * tables[0] + front * tables[1] + back * tables[2]

    height, out, rise = blend("height"), blend("out"), np.radians(blend("rise"))
    anchor = np.stack([out * np.sin(angle), height, np.full_like(height, NECK_Z)], -1)
    direction = np.stack([np.sin(angle) * np.cos(rise), np.sin(rise), np.cos(angle) * np.cos(rise)], -1)
    return anchor.astype(np.float32), direction.astype(np.float32)


@njit(cache=True, nogil=True)
def _field(cones: np.ndarray, melt: float, x: float, y: float, z: float) -> float:
    """Distance in cm from (x, y, z) to the body: round cones under a smooth minimum."""
    total = np.float32(1e6)
    for c in range(cones.shape[0]):
        ax, ay, az = x - cones[c, 0], y - cones[c, 1], z - cones[c, 2]
        bx, by, bz = cones[c, 4] - cones[c, 0], cones[c, 5] - cones[c, 1], cones[c, 6] - cones[c, 2]
        along = (ax * bx + ay * by + az * bz) / max(bx * bx + by * by + bz * bz, 1e-6)
        along = min(max(along, 0.0), 1.0)
        dx, dy, dz = ax - along * bx, ay - along * by, az - along * bz
        radius = cones[c, 3] + along * (cones[c, 7] - cones[c, 3])
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) - radius
        blend = max(melt - abs(total - distance), 0.0) / melt
        total = min(total, distance) - blend * blend * melt * 0.25
    return total


@njit(cache=True, nogil=True)
def _march(cones: np.ndarray, melt: float, anchor: np.ndarray, direction: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """From outside towards the anchor until the field falls to `distance`: float32 n 3."""
    found = np.empty_like(anchor)
    for ray in range(anchor.shape[0]):
        length = np.float32(_START)
        for _ in range(_STEPS):
            x = anchor[ray, 0] + length * direction[ray, 0]
            y = anchor[ray, 1] + length * direction[ray, 1]
            z = anchor[ray, 2] + length * direction[ray, 2]
            gap = _field(cones, melt, x, y, z) - distance[ray]
            if abs(gap) < 0.004 or length <= 0.0:
                break
            length -= np.float32(0.85) * gap
        for axis in range(3):
            found[ray, axis] = anchor[ray, axis] + length * direction[ray, axis]
    return found


@njit(cache=True, nogil=True)
def _distances(cones: np.ndarray, melt: float, points: np.ndarray) -> np.ndarray:
    result = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        result[i] = _field(cones, melt, points[i, 0], points[i, 1], points[i, 2])
    return result
