"""What is drawn: triangle meshes, strands of hair, materials, lights, the camera. Lengths in cm, colours linear RGB.

Axes: x to the right of the picture, y up, z towards the viewer. Head space has its origin between the pupils, in the plane of the ear
canals: the pupils lie at y = 0, the ear canals at z = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Material:
    """How a surface answers light."""

    albedo: np.ndarray  # float32 h w 3, linear RGB in [0, 1]; 1x1 for one colour. v = 0 is the first row; clamped at the rim
    roughness: float = 0.5  # GGX roughness, 0.05 (wet) .. 1 (chalk)
    specular: float = 0.04  # reflectance at normal incidence
    scatter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # how far light wraps past the terminator per channel: skin about 0.5 0.2 0.12
    bump: np.ndarray | None = None  # float32 h w, height in cm over the same uv as albedo
    gloss: np.ndarray | None = None  # float32 h w, factor on specular over the same uv as albedo


@dataclass(frozen=True)
class Mesh:
    """Triangles. Counter-clockwise seen from outside."""

    vertices: np.ndarray  # float32 v 3, cm
    faces: np.ndarray  # int32 f 3
    uv: np.ndarray  # float32 v 2, texture coordinates in [0, 1], v downwards
    materials: tuple[Material, ...]
    face_material: np.ndarray  # int16 f, index into materials
    occlusion: np.ndarray  # float32 v, share of the surroundings a vertex sees, 0..1

    @staticmethod
    def of(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, material: Material) -> "Mesh":
        """A mesh of one material that sees everything around it."""
        return Mesh(
            np.asarray(vertices, np.float32),
            np.asarray(faces, np.int32),
            np.asarray(uv, np.float32),
            (material,),
            np.zeros(len(faces), np.int16),
            np.ones(len(vertices), np.float32),
        )


def join(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of many, in order: vertices, faces and materials are renumbered."""
    vertex_start = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    material_start = np.cumsum([0, *(len(mesh.materials) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + np.int32(start) for mesh, start in zip(meshes, vertex_start, strict=False)]),
        np.concatenate([mesh.uv for mesh in meshes]),
        tuple(material for mesh in meshes for material in mesh.materials),
        np.concatenate([mesh.face_material + np.int16(start) for mesh, start in zip(meshes, material_start, strict=False)]),
        np.concatenate([mesh.occlusion for mesh in meshes]),
    )


def grid_faces(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles (int32 f 3) of a grid of rows x columns vertices numbered row by row; `closed` joins the last column to the first.

    Counter-clockwise from outside where columns run to the right and rows run down, seen from there.
    """
    row = np.arange(rows - 1)[:, None]
    column = np.arange(columns if closed else columns - 1)[None]
    after = (column + 1) % columns
    a, b, c, d = (row * columns + column, row * columns + after, (row + 1) * columns + column, (row + 1) * columns + after)
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]).astype(np.int32)


@dataclass(frozen=True)
class Strands:
    """Hairs: polylines with thickness, each bound to a vertex of the skin whose motion it follows."""

    points: np.ndarray  # float32 s k 3, cm, root first
    radius: np.ndarray  # float32 s k, cm: half the drawn width
    colour: np.ndarray  # float32 s 3, linear RGB
    root: np.ndarray  # int32 s, vertex of the skin mesh that carries the strand
    shine: float = 0.5  # weight of the highlights along the strand, 0..1
    occlusion: np.ndarray | None = None  # float32 s k, share of light that reaches a point, 0..1; None: all

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Light:
    """Light of a scene: one key light with a shadow, and soft light from all around."""

    key_direction: np.ndarray  # float32 3, unit, from the scene towards the light
    key_colour: np.ndarray  # float32 3: radiance of a white, facing surface = this
    softness: float  # half angle of the key light's disc in radians, 0.01 (sun) .. 0.3 (window, soft box)
    ambient: np.ndarray  # float32 9 3: real spherical harmonics of the irradiance / pi, order 1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2
    fill_direction: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0], np.float32))
    fill_colour: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))  # a second light without a shadow


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in front of the scene at `eye`, directed along -z."""

    eye: np.ndarray  # float32 3, cm
    focal: float  # focal length in picture heights: y_picture = height * (0.5 - focal * (y - eye_y) / (eye_z - z))

    def project(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """Points (... 3) cm -> (... 3): x and y in pixels (0 is the outer edge of the first pixel), and distance along -z in cm."""
        offset = points - self.eye
        distance = -offset[..., 2]
        scale = height * self.focal / distance
        return np.stack([0.5 * width + offset[..., 0] * scale, 0.5 * height - offset[..., 1] * scale, distance], -1).astype(np.float32)
