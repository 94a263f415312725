"""Swept tubes: frames of glasses, hoops, chains."""

import numpy as np

from preprocess.talking_heads.solids import Material, Mesh, grid_faces


def tube(
    path: np.ndarray, across: np.ndarray, half_across: float, half_along: float, material: Material, closed: bool, sides: int = 8
) -> Mesh:
    """A tube along a polyline (k 3, cm) with a rounded section.

    `across` (3 or k 3) is a direction roughly at right angles to the path; the section is `half_across` cm wide to both sides of the path
    along it and `half_along` cm at right angles to it. Open tubes taper to a point at both ends, so that no hole shows.
    """
    path = np.asarray(path, np.float64)
    tangent = _unit(np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0))
    wide = np.broadcast_to(np.asarray(across, np.float64), path.shape)
    if not closed:  # the ends once more, for their points
        path, tangent, wide = (np.concatenate([rows[:1], rows, rows[-1:]]) for rows in (path, tangent, wide))
    wide = _unit(wide - (wide * tangent).sum(-1, keepdims=True) * tangent)
    deep = np.cross(tangent, wide)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    size = np.ones((len(path), 1, 1))
    if not closed:
        size[[0, -1]] = 0.02
    ring = wide[:, None] * (half_across * np.cos(angle))[:, None] + deep[:, None] * (half_along * np.sin(angle))[:, None]
    points = path[:, None] + size * ring
    if closed:
        points = np.concatenate([points, points[:1]])
    rows = len(points)
    uv = np.stack(np.meshgrid(np.linspace(0, 1, rows), np.arange(sides) / sides, indexing="ij"), -1)
    return Mesh.of(points.reshape(-1, 3), grid_faces(rows, sides, closed=True)[:, ::-1], uv.reshape(-1, 2), material)


def ball(centre: np.ndarray, radius: np.ndarray | float, material: Material, rings: int = 8, columns: int = 12) -> Mesh:
    """An ellipsoid about `centre` (3) with one radius or three."""
    tilt = np.linspace(0.02, np.pi - 0.02, rings)[:, None]
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    sphere = np.stack(np.broadcast_arrays(np.sin(tilt) * np.sin(turn), np.cos(tilt), np.sin(tilt) * np.cos(turn)), -1)
    points = np.asarray(centre) + sphere * radius
    return Mesh.of(points.reshape(-1, 3), grid_faces(rings, columns, closed=True), np.zeros((rings * columns, 2)), material)


def metal(colour: np.ndarray, roughness: float = 0.28) -> Material:
    """Polished metal of a colour (3): hardly any diffuse light, a strong highlight."""
    return Material(np.full((1, 1, 3), 0.45 * np.asarray(colour), np.float32), roughness=roughness, specular=0.55)


GOLD, ROSE, SILVER, STEEL = np.array([[0.75, 0.52, 0.20], [0.75, 0.46, 0.34], [0.72, 0.72, 0.72], [0.22, 0.22, 0.24]])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
