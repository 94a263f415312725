"""Where hairs root: points strewn over a region of the skin, with the surface around each of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Density = Callable[[np.ndarray, np.ndarray], np.ndarray]  # plane coordinates s, t (cm) -> 0..1

SEAM = 12.0  # cm: a triangle wider than this in s crosses the seam at the back, where s jumps
SLIVER = 0.03  # height over length of triangles that only close the rim of the plane; in space they may cut through the head


@dataclass(frozen=True)
class RestSkin:
    """The skin at rest."""

    st: np.ndarray  # float32 v 2, template plane
    vertices: np.ndarray  # float32 v 3, cm, head space, neutral face
    normals: np.ndarray  # float32 v 3, unit, outwards
    faces: np.ndarray  # int32 f 3

    def near(self, s: float, t: float) -> np.ndarray:
        """The vertex (3) whose place on the plane is nearest to (s, t)."""
        return self.vertices[np.argmin(np.square(self.st - (s, t)).sum(1))]


@dataclass(frozen=True)
class Roots:
    """Points of the skin out of which hair grows."""

    points: np.ndarray  # float32 n 3, cm
    normals: np.ndarray  # float32 n 3, unit
    st: np.ndarray  # float32 n 2, template plane
    along_s: np.ndarray  # float32 n 3, unit: where s grows
    along_t: np.ndarray  # float32 n 3, unit: where t grows
    vertex: np.ndarray  # int32 n, nearest vertex

    def __len__(self) -> int:
        return len(self.points)

    def choose(self, keep: np.ndarray) -> "Roots":
        """The roots of a mask or of indices."""
        return Roots(self.points[keep], self.normals[keep], self.st[keep], self.along_s[keep], self.along_t[keep], self.vertex[keep])

    def tangent(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Unit directions (n 3) in space of directions s, t (n) of the plane."""
        return unit(self.along_s * s[:, None] + self.along_t * t[:, None])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (... 3) scaled to length 1; zero stays zero."""
    return vectors / np.maximum(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), 1e-9)[..., None]


def strew(skin: RestSkin, density: Density, count: int, rng: np.random.Generator) -> Roots:
    """About `count` roots, as dense in space as `density` says on the plane.

    Candidates are drawn evenly (stratified) over the triangles by area and highest density, then kept with the chance that the density at
    their own place gives, so that regions narrower than a triangle come out sharp. Narrow regions yield fewer roots than `count`.
    """
    corners, plane = skin.vertices[skin.faces], skin.st[skin.faces].astype(np.float32)  # f 3 3, f 3 2
    at_vertices = density(skin.st[:, 0], skin.st[:, 1])
    at_middles = density(plane[..., 0].mean(1), plane[..., 1].mean(1))
    highest = np.maximum(at_vertices[skin.faces].max(1), at_middles)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    area[_slivers(plane)] = 0
    total = np.cumsum(area * highest, dtype=np.float64)
    drawn = 3 * count
    triangle = np.searchsorted(total, (np.arange(drawn) + rng.random(drawn)) / drawn * total[-1]).clip(0, len(total) - 1)
    weights = _barycentric(drawn, rng)
    across = plane[triangle]
    seam = np.ptp(across[..., 0], axis=1) > SEAM
    across[seam] = across[seam][:, :1]
    st = np.einsum("nk,nkd->nd", weights, across)
    chosen = np.flatnonzero(rng.random(drawn) * highest[triangle] < density(st[:, 0], st[:, 1]))
    chosen = np.sort(rng.permutation(chosen)[:count])
    return _roots(skin, triangle[chosen], weights[chosen], st[chosen])


def _slivers(plane: np.ndarray) -> np.ndarray:
    """Which triangles (f 3 2) of the plane are hardly more than a line (bool f)."""
    first, second = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
    longest = np.maximum.reduce([np.square(edge).sum(1) for edge in (first, second, first - second)])
    return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) < SLIVER * longest


def _barycentric(count: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (float32 n 3) of points spread evenly over a triangle."""
    a, b = rng.random((2, count), np.float32)
    root = np.sqrt(a)
    return np.stack([1 - root, root * (1 - b), root * b], -1)


def _roots(skin: RestSkin, triangle: np.ndarray, weights: np.ndarray, st: np.ndarray) -> Roots:
    faces = skin.faces[triangle]
    corners, plane = skin.vertices[faces], skin.st[faces]
    edge, turn = corners[:, 1:] - corners[:, :1], plane[:, 1:] - plane[:, :1]  # n 2 3, n 2 2
    sign = np.sign(turn[:, 0, 0] * turn[:, 1, 1] - turn[:, 0, 1] * turn[:, 1, 0] + 1e-12)[:, None]
    return Roots(
        points=np.einsum("nk,nkd->nd", weights, corners).astype(np.float32),
        normals=unit(np.einsum("nk,nkd->nd", weights, skin.normals[faces])).astype(np.float32),
        st=st.astype(np.float32),
        along_s=unit(sign * (edge[:, 0] * turn[:, 1, 1:] - edge[:, 1] * turn[:, 0, 1:])).astype(np.float32),
        along_t=unit(sign * (edge[:, 1] * turn[:, 0, :1] - edge[:, 0] * turn[:, 1, :1])).astype(np.float32),
        vertex=faces[np.arange(len(faces)), weights.argmax(1)].astype(np.int32),
    )
