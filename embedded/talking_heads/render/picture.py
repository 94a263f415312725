"""Pictures of meshes and strands on the processor: what is prepared once a person, what is shaded in each pixel, and the tone curve.

Surfaces are shaded once a pixel where its four samples agree and sample by sample where they do not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embedded.talking_heads.render.raster import NOTHING, SAMPLE_COLUMNS, SAMPLES, PixelSamples, draw_faces, empty_samples, project
from embedded.talking_heads.render.shading import (
    HAS_BUMP,
    SCATTER,
    Lights,
    SurfacePoint,
    Textures,
    pack,
    pack_light,
    sample,
    shade,
    uv_density,
)
from embedded.talking_heads.render.shadow import ShadowMaps, bounds, cast_shadows, key_light
from embedded.talking_heads.render.strands import draw_strands
from embedded.talking_heads.render.vectors import Vector, along, cross, dot, inlined, kernel, load, minus, unit, vertex_normals, weld
from embedded.talking_heads.solids import Camera, Light, Mesh, Strands

Corners = tuple[int, int, int]

OVERSHOOT = 0.6  # of a face's extent beyond its edges
STEEPEST_BUMP = 1.2  # cm per cm


class Surface(NamedTuple):
    """The mesh of a frame as the kernel reads it."""

    vertices: np.ndarray  # float32 v 3, cm
    normals: np.ndarray  # float32 v 3
    screen: np.ndarray  # float32 v 3
    occlusion: np.ndarray  # float32 v
    faces: np.ndarray  # int32 f 3
    material: np.ndarray  # int32 f
    uv: np.ndarray  # float32 v 2
    density: np.ndarray  # float32 v: units of uv a cm


@inlined
def corners(surface: Surface, face: int) -> Corners:
    """The vertices of a face."""
    return surface.faces[face, 0], surface.faces[face, 1], surface.faces[face, 2]


@inlined
def weights(screen: np.ndarray, corners: Corners, x: float, y: float) -> Vector:
    """Perspective-correct weights of a face's corners at a point of the picture, held in its neighbourhood.

    The middle of the samples of a pixel need not lie in the face that the first of them shows: a smooth surface goes on a little.
    """
    a, b, c = corners[0], corners[1], corners[2]
    xa, ya, xb, yb, xc, yc = screen[a, 0] - x, screen[a, 1] - y, screen[b, 0] - x, screen[b, 1] - y, screen[c, 0] - x, screen[c, 1] - y
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    sign = 1.0 if area >= 0.0 else -1.0
    least = -OVERSHOOT * abs(area)
    wa = max(sign * (xb * yc - xc * yb), least) * screen[a, 2]
    wb = max(sign * (xc * ya - xa * yc), least) * screen[b, 2]
    wc = max(sign * (xa * yb - xb * ya), least) * screen[c, 2]
    total = wa + wb + wc
    if total <= 0.0:
        return 1.0, 0.0, 0.0
    return wa / total, wb / total, wc / total


@inlined
def mixed(values: np.ndarray, corners: Corners, w: Vector) -> float:
    """A scalar of the vertices at a place in a face."""
    return w[0] * values[corners[0]] + w[1] * values[corners[1]] + w[2] * values[corners[2]]


@inlined
def mixed_vector(values: np.ndarray, corners: Corners, w: Vector) -> Vector:
    """A vector of the vertices at a place in a face."""
    a, b, c = corners[0], corners[1], corners[2]
    return (
        w[0] * values[a, 0] + w[1] * values[b, 0] + w[2] * values[c, 0],
        w[0] * values[a, 1] + w[1] * values[b, 1] + w[2] * values[c, 1],
        w[0] * values[a, 2] + w[1] * values[b, 2] + w[2] * values[c, 2],
    )


@inlined
def uphill(surface: Surface, corners: Corners, along_u: float, along_v: float) -> Vector:
    """The gradient along a face (cm per cm) of a height with the given slopes per unit of u and v."""
    a, b, c = corners[0], corners[1], corners[2]
    side, other = minus(load(surface.vertices, b), load(surface.vertices, a)), minus(load(surface.vertices, c), load(surface.vertices, a))
    normal = cross(side, other)
    square = max(dot(normal, normal), 1e-18)
    rise = along_u * (surface.uv[b, 0] - surface.uv[a, 0]) + along_v * (surface.uv[b, 1] - surface.uv[a, 1])
    other_rise = along_u * (surface.uv[c, 0] - surface.uv[a, 0]) + along_v * (surface.uv[c, 1] - surface.uv[a, 1])
    one, two = cross(other, normal), cross(normal, side)
    gradient = (
        (rise * one[0] + other_rise * two[0]) / square,
        (rise * one[1] + other_rise * two[1]) / square,
        (rise * one[2] + other_rise * two[2]) / square,
    )
    steepness = math.sqrt(dot(gradient, gradient))
    scale = STEEPEST_BUMP / steepness if steepness > STEEPEST_BUMP else 1.0
    return gradient[0] * scale, gradient[1] * scale, gradient[2] * scale


@inlined
def towards_viewer(normal: Vector, view: Vector) -> Vector:
    """The normal, bent just enough to be seen: smooth normals and bumps may point away at the rim of a surface."""
    facing = dot(normal, view)
    return normal if facing >= 0.05 else unit(along(normal, view, 0.05 - facing))


STEEPEST = 4.0  # pixels of depth a pixel of width: samples further apart belong to different surfaces
SAME_FACING = 0.8  # cosine of the angle between normals that count as one smooth surface


class ShadedScene(NamedTuple):
    """All that the colour of a place depends on."""

    surface: Surface
    textures: Textures
    lights: Lights
    maps: ShadowMaps
    eye: Vector  # of the camera, cm
    pixel: float  # width of a pixel in cm at distance 1 cm


@inlined
def _face_colour(scene: ShadedScene, face: int, x: float, y: float, texel: np.ndarray) -> Vector:
    """Linear RGB of a face at a point of the picture; texel: float32 6, room for a sample."""
    surface, traits = scene.surface, scene.textures.surface
    three, material = corners(surface, face), surface.material[face]
    w = weights(surface.screen, three, x, y)
    place = mixed_vector(surface.vertices, three, w)
    towards_eye = minus(scene.eye, place)
    footprint = scene.pixel * math.sqrt(dot(towards_eye, towards_eye))
    view = unit(towards_eye)
    normal = unit(mixed_vector(surface.normals, three, w))
    normal = towards_viewer(normal, view)
    # seen at a slant, a pixel covers more of the texture: the geometric mean of both directions
    extent = mixed(surface.density, three, w) * footprint / math.sqrt(max(dot(normal, view), 0.1))
    gradient = _texture(scene, three, w, extent, material, texel)
    bumped = towards_viewer(unit(minus(normal, gradient)), view)
    visible = key_light(scene.maps, place, normal, traits[material, SCATTER])
    occlusion = mixed(surface.occlusion, three, w)
    point = SurfacePoint(normal, bumped, view, occlusion, visible)
    return shade(point, texel, traits, material, scene.lights)


@inlined
def _texture(scene: ShadedScene, three: Corners, w: Vector, extent: float, material: int, texel: np.ndarray) -> Vector:
    """Reads the material at a place into `texel` and returns the gradient of its bumps (cm per cm). extent: of a pixel, in units of uv."""
    surface, textures = scene.surface, scene.textures
    u = w[0] * surface.uv[three[0], 0] + w[1] * surface.uv[three[1], 0] + w[2] * surface.uv[three[2], 0]
    v = w[0] * surface.uv[three[0], 1] + w[1] * surface.uv[three[1], 1] + w[2] * surface.uv[three[2], 1]
    sample(textures, material, (u, v), extent, texel)
    if textures.surface[material, HAS_BUMP] == 0.0:
        return 0.0, 0.0, 0.0
    return uphill(surface, three, texel[4], texel[5])


@inlined
def _one_surface(surface: Surface, face: int, other: int, depth: float, other_depth: float, pixel: float) -> bool:
    """Whether two samples of a pixel lie on one smooth surface and may share their shading."""
    if face == other:
        return True
    if surface.material[face] != surface.material[other]:
        return False
    if abs(depth - other_depth) > STEEPEST * pixel * max(depth, other_depth):  # 1/z changes by (dz/z)/z, a pixel is pixel*z wide
        return False
    return dot(load(surface.normals, surface.faces[face, 0]), load(surface.normals, surface.faces[other, 0])) > SAME_FACING


@inlined
def _gather(scene: ShadedScene, samples: PixelSamples, row: int, column: int, owner: np.ndarray) -> None:
    """Sets `owner` (int 4): for each sample of a pixel the first one of the same smooth surface, or NOTHING where no surface is seen."""
    depth, ids = samples.depth, samples.ids
    for index in range(SAMPLES):
        sample_row = row * SAMPLES + index
        face = ids[sample_row, column]
        owner[index] = index if face >= 0 else NOTHING
        if face < 0:
            continue
        for earlier in range(index):
            if owner[earlier] != earlier:
                continue
            other_row = row * SAMPLES + earlier
            if _one_surface(scene.surface, face, ids[other_row, column], depth[sample_row, column], depth[other_row, column], scene.pixel):
                owner[index] = earlier
                break


@inlined
def _middle(owner: np.ndarray, index: int, through: np.ndarray) -> Vector:
    """Middle of the samples that share the shading of one (x, y in the pixel), and how many they are, weighted by what is seen of them."""
    x, y, count, weight = 0.0, 0.0, 0, 0.0
    for other in range(index, SAMPLES):
        if owner[other] == index:
            x += SAMPLE_COLUMNS[other]
            y += (other + 0.5) / SAMPLES
            count += 1
            weight += through[other]
    return x / count, y / count, weight


@kernel
def resolve(scene: ShadedScene, samples: PixelSamples, background: np.ndarray) -> np.ndarray:
    """The picture (float32 h w 3): surfaces shaded, mixed with strands and background (float32 h w 3) by the samples of each pixel."""
    height, width = background.shape[:2]
    picture = np.zeros((height, width, 3), np.float32)
    texel = np.empty(6, np.float32)
    owner, through = np.empty(SAMPLES, np.int64), np.empty(SAMPLES, np.float32)
    for row in range(height):
        for column in range(width):
            _gather(scene, samples, row, column, owner)
            for index in range(SAMPLES):
                sample_row = row * SAMPLES + index
                through[index] = 1.0 - samples.paint[sample_row, column, 3]
                behind = through[index] if samples.ids[sample_row, column] == NOTHING else 0.0
                for channel in range(3):
                    picture[row, column, channel] += samples.paint[sample_row, column, channel] + behind * background[row, column, channel]
            for index in range(SAMPLES):
                if owner[index] == index:
                    x, y, weight = _middle(owner, index, through)
                    face = samples.ids[row * SAMPLES + index, column]
                    colour = _face_colour(scene, face, column + x, row + y, texel)
                    for channel in range(3):
                        picture[row, column, channel] += weight * colour[channel]
            for channel in range(3):
                picture[row, column, channel] /= SAMPLES
    return picture


KNEE, WHITE = 0.55, 4.0  # linear values from which on the shoulder bends, and that it brings to full white
_LIGHT = WHITE * np.linspace(0, 1, 8192) ** 2


def shoulder(light: np.ndarray) -> np.ndarray:
    """Light -> [0, 1]: unchanged below the knee, then bent without a corner so that WHITE and more become 1."""
    beyond = np.clip((light - KNEE) / (WHITE - KNEE), 0, 1)
    return np.where(light < KNEE, light, KNEE + (1 - KNEE) * (1 - (1 - beyond) ** ((WHITE - KNEE) / (1 - KNEE))))


def tone(linear: np.ndarray) -> np.ndarray:
    """Linear RGB (float32 h w 3) -> sRGB (uint8 h w 3, IEC 61966-2-1) through a film's soft shoulder."""
    light = shoulder(_LIGHT)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    place = np.sqrt(np.clip(linear / WHITE, 0, 1)) * (len(_LIGHT) - 1) + 0.5
    return np.round(255 * srgb).astype(np.uint8)[place.astype(np.int32)]


@dataclass(frozen=True)
class Prepared:
    """What stays the same in all frames of a person."""

    faces: np.ndarray  # int32 f 3
    face_material: np.ndarray  # int32 f
    uv: np.ndarray  # float32 v 2
    uv_density: np.ndarray  # float32 v
    owner: np.ndarray  # int32 v: the vertex with which each one shares its normal
    textures: Textures
    centre: np.ndarray  # float32 3, cm: the middle of what casts shadows
    radius: float  # cm


def prepare(mesh: Mesh) -> Prepared:
    """Prepares a mesh at rest for `render`: textures with their pyramids, seams, extent."""
    centre, radius = bounds(mesh.vertices)
    return Prepared(
        faces=np.ascontiguousarray(mesh.faces, np.int32),
        face_material=mesh.face_material.astype(np.int32),
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
    prepared: Prepared,
) -> np.ndarray:
    """Linear RGB (float32 h w 3, before `tone`) of a scene.

    mesh: vertices and occlusion of the frame; the rest as it was prepared. strands: `root` numbers the vertices of this mesh.
    background: float32 h w 3, linear.
    """
    height, width = background.shape[:2]
    vertices = np.ascontiguousarray(mesh.vertices, np.float32)
    lights = pack_light(light)
    normals = vertex_normals(vertices, prepared.faces, prepared.owner)
    screen = project(vertices, camera, width, height)
    samples = empty_samples(width, height)
    draw_faces(screen, prepared.faces, True, SAMPLE_COLUMNS, samples.depth, samples.ids)
    maps = cast_shadows(vertices, prepared.faces, strands, lights, prepared.centre, prepared.radius)
    draw_strands(strands, normals, camera, maps, lights, samples)
    occlusion = np.ascontiguousarray(mesh.occlusion, np.float32)
    surface = Surface(vertices, normals, screen, occlusion, prepared.faces, prepared.face_material, prepared.uv, prepared.uv_density)
    eye = tuple(float(value) for value in camera.eye)
    scene = ShadedScene(surface, prepared.textures, lights, maps, eye, 1.0 / (height * camera.focal))
    return resolve(scene, samples, np.ascontiguousarray(background, np.float32))
