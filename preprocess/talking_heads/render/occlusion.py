"""How much of its surroundings each vertex of a mesh sees, from depth maps drawn in many directions."""

import numpy as np

from preprocess.talking_heads.render.normals import vertex_normals, weld
from preprocess.talking_heads.render.shadow import bounds, depth_map, light_axes, to_map
from preprocess.talking_heads.solids import Mesh

MAP = 224  # texels of a depth map
SMOOTHING = 2  # rounds of averaging with the neighbours


def even_directions(count: int) -> np.ndarray:
    """Unit vectors (count 3) spread evenly over the sphere along a spiral."""
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    across = np.sqrt(1 - z * z)
    return np.stack([across * np.cos(turn), z, across * np.sin(turn)], -1)


def _seen(depth: np.ndarray, mapped: np.ndarray, softness: float) -> np.ndarray:
    """Share (v) of the four texels around each mapped point that do not cover it; a step of `softness` cm instead of a hard one.

    Points outside the map see everything.
    """
    size = len(depth)
    inside = ((mapped[:, :2] > 0.5) & (mapped[:, :2] < size - 0.5)).all(1)
    place = np.clip(mapped[:, :2] - 0.5, 0, size - 1.001)
    column, row = place[:, 0].astype(np.int32), place[:, 1].astype(np.int32)
    fx, fy = place[:, 0] - column, place[:, 1] - row
    share = np.zeros(len(mapped), np.float32)
    for down, weight_y in ((0, 1 - fy), (1, fy)):
        for right, weight_x in ((0, 1 - fx), (1, fx)):
            gap = depth[row + down, column + right] - mapped[:, 2]
            share += weight_x * weight_y * np.clip(1 - gap / softness, 0, 1)
    return np.where(inside, share, 1.0)


def _smoothed(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Values of the vertices (v), averaged with those of the faces around."""
    corners = faces.reshape(-1)
    count = np.maximum(np.bincount(corners, minlength=len(values)), 1)
    for _ in range(rounds):
        around = np.bincount(corners, np.repeat(values[faces].mean(1), 3), len(values)) / count
        values = np.where(np.bincount(corners, minlength=len(values)) > 0, around, values)
    return values


def bake_occlusion(mesh: Mesh, directions: int = 48) -> np.ndarray:
    """Share (float32 v, 0..1) of the light from all around that reaches each vertex, weighted by its cosine.

    A vertex is looked at from a little above its surface, so that a flat or bulging surface sees everything.
    """
    owner = weld(mesh)
    normals = vertex_normals(mesh.vertices, mesh.faces, owner)
    centre, radius = bounds(mesh.vertices)
    texel = 2 * radius / MAP
    seen, whole = np.zeros(len(normals), np.float32), np.full(len(normals), 1e-6, np.float32)
    for direction in even_directions(directions):
        axes = light_axes(direction)
        cosine = np.maximum(normals @ axes[2], 0)
        depth = depth_map(mesh.vertices, mesh.faces, axes, centre, radius, MAP)
        # a slanted surface rises within a texel: the flatter the view, the further the point is lifted towards it
        lift = 1.2 * texel * np.sqrt(1 - np.minimum(cosine, 1) ** 2)[:, None] * normals + 0.8 * texel * axes[2]
        mapped = to_map(mesh.vertices + lift, axes, centre, radius, MAP)
        seen += cosine * _seen(depth, mapped, texel)
        whole += cosine
    share = _smoothed(np.minimum(seen / whole, 1.0), mesh.faces, SMOOTHING)
    return share[owner].astype(np.float32)
