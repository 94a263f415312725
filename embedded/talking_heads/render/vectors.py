"""Arithmetic of three-component vectors for compiled code (a vector is a tuple of three floats), and smooth normals of meshes."""

import math

import numpy as np
from numba import njit

from embedded.talking_heads.solids import Mesh

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


SEAM = 1e-3  # cm: vertices nearer than this lie on one seam
CREASE = 0.2  # cosine: vertices of one place whose normals differ more keep a hard edge


@kernel
def _sum_normals(vertices: np.ndarray, faces: np.ndarray, owner: np.ndarray, normals: np.ndarray) -> None:
    """Adds to each vertex (or the one it is welded to) the normals of its faces, as long as twice their area."""
    for face in range(len(faces)):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        corner = load(vertices, a)
        normal = cross(minus(load(vertices, b), corner), minus(load(vertices, c), corner))
        for vertex in (owner[a], owner[b], owner[c]):
            normals[vertex, 0] += normal[0]
            normals[vertex, 1] += normal[1]
            normals[vertex, 2] += normal[2]


@kernel
def _unit_normals(owner: np.ndarray, normals: np.ndarray) -> None:
    """Brings normals to length 1 and hands those of welded vertices on."""
    for vertex in range(len(owner)):
        if owner[vertex] == vertex:
            x, y, z = normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]
            scale = 1.0 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
            normals[vertex, 0] = x * scale
            normals[vertex, 1] = y * scale
            normals[vertex, 2] = z * scale
    for vertex in range(len(owner)):
        if owner[vertex] != vertex:
            normals[vertex] = normals[owner[vertex]]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray, owner: np.ndarray | None = None) -> np.ndarray:
    """Unit normals (float32 v 3) of a mesh, weighted by the area of the faces around a vertex.

    owner: int32 v: the vertex with which each one shares its normal (see `weld`); None: each for itself.
    """
    if owner is None:
        owner = np.arange(len(vertices), dtype=np.int32)
    normals = np.zeros((len(vertices), 3), np.float32)
    vertices = np.ascontiguousarray(vertices, np.float32)
    _sum_normals(vertices, faces, owner, normals)
    _unit_normals(owner, normals)
    return normals


def weld(mesh: Mesh) -> np.ndarray:
    """For each vertex the first one at the same place with the same material and a similar normal (int32 v): no seam is seen there."""
    material = np.zeros(len(mesh.vertices), np.int64)
    material[mesh.faces] = mesh.face_material[:, None]
    place = np.round(mesh.vertices.astype(np.float64) / SEAM).astype(np.int64)
    _, first, group = np.unique(np.column_stack([place, material]), axis=0, return_index=True, return_inverse=True)
    owner = first[group.reshape(-1)].astype(np.int32)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    known = (normals * normals).sum(1) > 0.5  # a vertex of nothing but folded faces, as at a pole, has no normal of its own
    hard = known & known[owner] & ((normals * normals[owner]).sum(1) < CREASE)
    owner[hard] = np.flatnonzero(hard)
    return owner
