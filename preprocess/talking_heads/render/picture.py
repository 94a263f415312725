"""Pictures of meshes and strands: what is prepared once a person, and what is drawn each frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.render.normals import vertex_normals, weld
from preprocess.talking_heads.render.raster import draw_mesh, empty_samples, project
from preprocess.talking_heads.render.resolve import Scene, resolve
from preprocess.talking_heads.render.shading import pack_light
from preprocess.talking_heads.render.shadow import bounds, cast_shadows
from preprocess.talking_heads.render.strand_raster import draw_strands
from preprocess.talking_heads.render.surface import Surface
from preprocess.talking_heads.render.textures import Textures, pack, uv_density
from preprocess.talking_heads.solids import Camera, Light, Mesh, Strands


@dataclass(frozen=True)
class Prepared:
    """What stays the same in all frames of a person."""

    faces: np.ndarray  # int32 f 3
    face_material: np.ndarray  # int32 f
    one_sided: np.ndarray  # uint8 f: not drawn where seen from behind
    uv: np.ndarray  # float32 v 2
    uv_density: np.ndarray  # float32 v
    owner: np.ndarray  # int32 v: the vertex with which each one shares its normal
    textures: Textures
    centre: np.ndarray  # float32 3, cm: the middle of what casts shadows
    radius: float  # cm


def prepare(mesh: Mesh) -> Prepared:
    """Prepares a mesh at rest for `render`: textures with their pyramids, seams, extent."""
    centre, radius = bounds(mesh.vertices)
    two_sided = np.array([material.two_sided for material in mesh.materials], bool)
    return Prepared(
        faces=np.ascontiguousarray(mesh.faces, np.int32),
        face_material=mesh.face_material.astype(np.int32),
        one_sided=(~two_sided[mesh.face_material]).astype(np.uint8),
        uv=np.ascontiguousarray(mesh.uv, np.float32),
        uv_density=uv_density(mesh.vertices, mesh.faces, mesh.uv),
        owner=weld(mesh),
        textures=pack(mesh.materials),
        centre=centre,
        radius=radius,
    )


def render(
    mesh: Mesh,
    strands: Sequence[Strands],
    light: Light,
    camera: Camera,
    background: np.ndarray,
    width: int,
    height: int,
    prepared: Prepared,
) -> np.ndarray:
    """Linear RGB (float32 h w 3, before `tone`) of a scene.

    mesh: vertices and occlusion of the frame; the rest as it was prepared. strands: `root` numbers the vertices of this mesh.
    background: float32 h w 3, linear.
    """
    vertices = np.ascontiguousarray(mesh.vertices, np.float32)
    lights = pack_light(light)
    normals = vertex_normals(vertices, prepared.faces, prepared.owner)
    screen = project(vertices, camera, width, height)
    samples = empty_samples(width, height)
    draw_mesh(screen, prepared.faces, prepared.one_sided, samples)
    maps = cast_shadows(vertices, prepared.faces, strands, lights, prepared.centre, prepared.radius)
    draw_strands(strands, normals, camera, maps, lights, samples)
    occlusion = np.ascontiguousarray(mesh.occlusion, np.float32)
    surface = Surface(vertices, normals, screen, occlusion, prepared.faces, prepared.face_material, prepared.uv, prepared.uv_density)
    eye = tuple(float(value) for value in camera.eye)
    scene = Scene(surface, prepared.textures, lights, maps, eye, 1.0 / (height * camera.focal))
    return resolve(scene, samples, np.ascontiguousarray(background, np.float32))
