"""The head as hair meets it: how far the skin reaches in every direction, where the face must stay free, where shoulders hold hair up."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.roots import RestSkin
from preprocess.talking_heads.template import BROW, CHEEKBONE, CHIN

_ROWS, _COLUMNS = 48, 96  # of the table of the head's radius by direction

# Where hair that falls before or behind the shoulders lies: z (cm) at heights y; clothes included
_FALL_Y = (-45.0, -34.0, -27.0, -22.0, -18.0, -14.0, -11.0)
_FRONT_Z = (12.6, 12.4, 10.4, 8.0, 5.8, 4.6, 2.0)
_BACK_Z = (-13.0, -13.0, -12.0, -10.4, -8.4, -7.2, -5.5)


@dataclass(frozen=True)
class HeadForm:
    """Radius of the head in every direction from a middle, and the face that stays free."""

    middle: np.ndarray  # float32 3, cm
    radius: np.ndarray  # float32 rows columns: over the angle from straight up, and around from the front
    brow: float  # y of the brows
    chin: float  # y of the chin
    half: float  # x of the cheekbone

    @staticmethod
    def of(skin: RestSkin) -> "HeadForm":
        """Measure a head: a direction's radius is the average of the nearest vertices."""
        middle = np.array([0.0, 0.5, -0.5], np.float32)
        offset = skin.vertices - middle
        distance = np.linalg.norm(offset, axis=1)
        polar, around = np.meshgrid((np.arange(_ROWS) + 0.5) * np.pi / _ROWS, np.arange(_COLUMNS) * 2 * np.pi / _COLUMNS, indexing="ij")
        rays = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1)
        gap, near = cKDTree(offset / distance[:, None]).query(rays.reshape(-1, 3), k=4)
        share = 1 / (gap + 0.01) ** 2
        radius = ((distance[near] * share).sum(1) / share.sum(1)).reshape(_ROWS, _COLUMNS)
        brow, chin, cheek = skin.near(*BROW[2]), skin.near(*CHIN), skin.near(*CHEEKBONE)
        return HeadForm(middle, radius.astype(np.float32), float(brow[1]), float(chin[1]), float(cheek[0]))

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit directions (... 3) from the middle, distances (...) from it, and the head's radius (...) there."""
        offset = points - self.middle
        distance = np.sqrt(np.einsum("...i,...i->...", offset, offset))
        towards = offset / np.maximum(distance, 1e-6)[..., None]
        row = np.clip(np.arccos(np.clip(towards[..., 1], -1, 1)) * (_ROWS / np.pi) - 0.5, 0, _ROWS - 1.001)
        column = np.arctan2(towards[..., 0], towards[..., 2]) * (_COLUMNS / (2 * np.pi)) % _COLUMNS
        i, j = row.astype(np.int32), column.astype(np.int32) % _COLUMNS
        u, v, after = row - i, column - np.floor(column), (j + 1) % _COLUMNS
        low = self.radius[i, j] * (1 - v) + self.radius[i, after] * v
        high = self.radius[i + 1, j] * (1 - v) + self.radius[i + 1, after] * v
        return towards, distance, low * (1 - u) + high * u

    def push_out(self, points: np.ndarray, clearance: np.ndarray | float) -> np.ndarray:
        """Points (... 3) moved away from the middle until they lie `clearance` (cm) off the head."""
        towards, distance, reach = self.locate(points)
        return points + towards * np.maximum(reach + clearance - distance, 0)[..., None]

    def hold(self, points: np.ndarray, clearance: np.ndarray, cling: np.ndarray) -> np.ndarray:
        """Points (n 3) moved out to `clearance` (n, cm) off the head; those beyond come closer by the share `cling` (n)."""
        towards, distance, reach = self.locate(points)
        off = reach + clearance - distance
        return points + towards * np.where(off > 0, off, cling * off)[:, None]

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """|x| (cm) that hair before the face keeps free at heights y."""
        return self.half * np.interp(
            y, (self.chin - 13, self.chin - 6, self.chin, 0.5 * self.chin, self.brow), (0.45, 0.62, 0.84, 1.04, 1.08)
        )

    def beside_face(self, points: np.ndarray, side: np.ndarray, top: np.ndarray) -> np.ndarray:
        """Points (n 3) before the face and under the height `top` (n) moved to their side (n, -1 or 1) of it."""
        x, y, z = points.T
        inside = smooth(top + 0.3, top - 0.9, y) * smooth(1.5, 3.5, z)
        shift = np.maximum(self.half_width(y) - x * side, 0) * side * inside
        return points + np.stack([shift, np.zeros_like(shift), np.zeros_like(shift)], -1)

    def freedom(self, points: np.ndarray, top: np.ndarray) -> np.ndarray:
        """How far (cm) points (n k 3) lie outside the part of the face, under `top` (n), that no hair may hide; negative inside."""
        x, y, z = np.moveaxis(points, -1, 0)
        return np.maximum.reduce([np.abs(x) - 0.9 * self.half_width(y), y - top[:, None], self.chin - y, 3.0 - z])


def drape(points: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Points (... 3) of hair kept clear of neck and shoulders: where `before` (...) in front of them, else behind."""
    x, y, z = np.moveaxis(points, -1, 0)
    front = np.interp(y, _FALL_Y, _FRONT_Z) - 0.012 * np.maximum(np.abs(x) - 4, 0) ** 2
    back = np.interp(y, _FALL_Y, _BACK_Z) + 0.01 * np.maximum(np.abs(x) - 4, 0) ** 2
    draped = points.copy()
    draped[..., 2] += smooth(-13.0, -18.5, y) * np.where(before, np.maximum(front - z, 0), np.minimum(back - z, 0))
    return draped
