"""What of the surfaces is seen in a pixel, shaded once where its samples agree and sample by sample where they do not."""

import math
from typing import NamedTuple

import numpy as np

from preprocess.talking_heads.raster import NOTHING, SAMPLE_COLUMNS, SAMPLES
from preprocess.talking_heads.shading import Lights, Point, shade
from preprocess.talking_heads.shadow import ShadowMaps, key_light
from preprocess.talking_heads.textures import DETAIL_REPEAT, HAS_BUMP, HAS_DETAIL, SCATTER, TWO_SIDED, Textures, sample
from preprocess.talking_heads.vectors import Vector, along, cross, dot, kernel, load, minus, unit

Corners = tuple[int, int, int]

STEEPEST = 4.0  # pixels of depth a pixel of width: samples further apart belong to different surfaces
SAME_FACING = 0.8  # cosine of the angle between normals that count as one smooth surface
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


@kernel
def _corners(surface: Surface, face: int) -> Corners:
    """The vertices of a face."""
    return surface.faces[face, 0], surface.faces[face, 1], surface.faces[face, 2]


@kernel
def _weights(screen: np.ndarray, corners: Corners, x: float, y: float) -> Vector:
    """Perspective-correct weights of a face's corners at a point of the picture, held inside the face."""
    a, b, c = corners[0], corners[1], corners[2]
    xa, ya, xb, yb, xc, yc = screen[a, 0] - x, screen[a, 1] - y, screen[b, 0] - x, screen[b, 1] - y, screen[c, 0] - x, screen[c, 1] - y
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    sign = 1.0 if area >= 0.0 else -1.0
    wa = max(sign * (xb * yc - xc * yb), 0.0) * screen[a, 2]
    wb = max(sign * (xc * ya - xa * yc), 0.0) * screen[b, 2]
    wc = max(sign * (xa * yb - xb * ya), 0.0) * screen[c, 2]
    total = wa + wb + wc
    if total <= 0.0:
        return 1.0, 0.0, 0.0
    return wa / total, wb / total, wc / total


@kernel
def _mixed(values: np.ndarray, corners: Corners, w: Vector) -> float:
    """A scalar of the vertices at a place in a face."""
    return w[0] * values[corners[0]] + w[1] * values[corners[1]] + w[2] * values[corners[2]]


@kernel
def _mixed_vector(values: np.ndarray, corners: Corners, w: Vector) -> Vector:
    """A vector of the vertices at a place in a face."""
    a, b, c = corners[0], corners[1], corners[2]
    return (
        w[0] * values[a, 0] + w[1] * values[b, 0] + w[2] * values[c, 0],
        w[0] * values[a, 1] + w[1] * values[b, 1] + w[2] * values[c, 1],
        w[0] * values[a, 2] + w[1] * values[b, 2] + w[2] * values[c, 2],
    )


@kernel
def _uphill(surface: Surface, corners: Corners, along_u: float, along_v: float) -> Vector:
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


@kernel
def _towards_viewer(normal: Vector, view: Vector) -> Vector:
    """The normal, bent just enough to be seen: smooth normals and bumps may look away at the rim of a surface."""
    facing = dot(normal, view)
    return normal if facing >= 0.05 else unit(along(normal, view, 0.05 - facing))


@kernel
def _curvature(surface: Surface, corners: Corners, footprint: float) -> float:
    """Turn of the smooth normal (radians) over a footprint in cm."""
    a, b, c = corners[0], corners[1], corners[2]
    bend = minus(load(surface.normals, b), load(surface.normals, a))
    side = minus(load(surface.vertices, b), load(surface.vertices, a))
    other_bend = minus(load(surface.normals, c), load(surface.normals, a))
    other = minus(load(surface.vertices, c), load(surface.vertices, a))
    turn = max(dot(bend, bend) / max(dot(side, side), 1e-8), dot(other_bend, other_bend) / max(dot(other, other), 1e-8))
    return math.sqrt(turn) * footprint


@kernel
def _face_colour(
    surface: Surface,
    textures: Textures,
    lights: Lights,
    maps: ShadowMaps,
    eye: Vector,
    pixel: float,
    face: int,
    x: float,
    y: float,
    texel: np.ndarray,
    tile: np.ndarray,
) -> Vector:
    """Linear RGB of a face at a point of the picture. pixel: its width in cm at distance 1 cm; texel, tile: room for samples."""
    corners, material = _corners(surface, face), surface.material[face]
    traits = textures.surface
    w = _weights(surface.screen, corners, x, y)
    place = _mixed_vector(surface.vertices, corners, w)
    towards_eye = minus(eye, place)
    footprint = pixel * math.sqrt(dot(towards_eye, towards_eye))
    view = unit(towards_eye)
    normal = unit(_mixed_vector(surface.normals, corners, w))
    sign = 1.0
    if traits[material, TWO_SIDED] > 0.0 and _seen_from_behind(surface, corners, towards_eye):
        sign, normal = -1.0, (-normal[0], -normal[1], -normal[2])
    normal = _towards_viewer(normal, view)
    u = w[0] * surface.uv[corners[0], 0] + w[1] * surface.uv[corners[1], 0] + w[2] * surface.uv[corners[2], 0]
    v = w[0] * surface.uv[corners[0], 1] + w[1] * surface.uv[corners[1], 1] + w[2] * surface.uv[corners[2], 1]
    # seen at a slant, a pixel covers more of the texture: the geometric mean of both directions
    extent = _mixed(surface.density, corners, w) * footprint / math.sqrt(max(dot(normal, view), 0.1))
    sample(textures.texels, textures.texel_levels, material, (u, v), False, extent, texel)
    bumped = normal
    if traits[material, HAS_BUMP] > 0.0 or traits[material, HAS_DETAIL] > 0.0:
        tile[:] = 0.0
        repeat = traits[material, DETAIL_REPEAT]
        if traits[material, HAS_DETAIL] > 0.0:
            sample(textures.tiles, textures.tile_levels, material, (u * repeat, v * repeat), True, extent * repeat, tile)
        gradient = _uphill(surface, corners, texel[4] + repeat * tile[0], texel[5] + repeat * tile[1])
        bumped = _towards_viewer(unit(along(normal, gradient, -sign)), view)
    visible = key_light(maps, place, normal, traits[material, SCATTER])
    occlusion = _mixed(surface.occlusion, corners, w)
    return shade(Point(normal, bumped, view, occlusion, visible, _curvature(surface, corners, footprint)), texel, traits, material, lights)


@kernel
def _seen_from_behind(surface: Surface, corners: Corners, towards_eye: Vector) -> bool:
    """Whether the camera sees the inner side of a face."""
    a = load(surface.vertices, corners[0])
    return dot(cross(minus(load(surface.vertices, corners[1]), a), minus(load(surface.vertices, corners[2]), a)), towards_eye) < 0.0


@kernel
def _one_surface(surface: Surface, face: int, other: int, depth: float, other_depth: float, pixel: float) -> bool:
    """Whether two samples of a pixel lie on one smooth surface and may share their shading."""
    if face == other:
        return True
    if surface.material[face] != surface.material[other]:
        return False
    if abs(depth - other_depth) > STEEPEST * pixel * max(depth, other_depth):  # 1/z changes by (dz/z)/z, a pixel is pixel*z wide
        return False
    return dot(load(surface.normals, surface.faces[face, 0]), load(surface.normals, surface.faces[other, 0])) > SAME_FACING


@kernel
def _gather(surface: Surface, pixel: float, depth: np.ndarray, ids: np.ndarray, row: int, column: int, owner: np.ndarray) -> None:
    """Sets `owner` (int 4): for each sample of a pixel the first one of the same smooth surface, or NOTHING where no surface is seen."""
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
            if _one_surface(surface, face, ids[other_row, column], depth[sample_row, column], depth[other_row, column], pixel):
                owner[index] = earlier
                break


@kernel
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
def resolve(
    surface: Surface,
    textures: Textures,
    lights: Lights,
    maps: ShadowMaps,
    eye: Vector,
    pixel: float,
    depth: np.ndarray,
    ids: np.ndarray,
    paint: np.ndarray,
    background: np.ndarray,
) -> np.ndarray:
    """The picture (float32 h w 3): surfaces shaded, mixed with strands and background by the samples of each pixel.

    eye: of the camera, cm. pixel: its width in cm at distance 1 cm. depth, ids: of the samples (4h w). paint: float32 4h w 4: colour of the
    strands times the share of light they hold back, and that share. background: float32 h w 3.
    """
    height, width = background.shape[:2]
    picture = np.zeros((height, width, 3), np.float32)
    texel, tile = np.empty(6, np.float32), np.empty(2, np.float32)
    owner, through = np.empty(SAMPLES, np.int64), np.empty(SAMPLES, np.float32)
    for row in range(height):
        for column in range(width):
            _gather(surface, pixel, depth, ids, row, column, owner)
            for index in range(SAMPLES):
                sample_row = row * SAMPLES + index
                through[index] = 1.0 - paint[sample_row, column, 3]
                behind = through[index] if ids[sample_row, column] == NOTHING else 0.0
                for channel in range(3):
                    picture[row, column, channel] += paint[sample_row, column, channel] + behind * background[row, column, channel]
            for index in range(SAMPLES):
                if owner[index] != index:
                    continue
                x, y, weight = _middle(owner, index, through)
                face = ids[row * SAMPLES + index, column]
                colour = _face_colour(surface, textures, lights, maps, eye, pixel, face, column + x, row + y, texel, tile)
                for channel in range(3):
                    picture[row, column, channel] += weight * colour[channel]
            for channel in range(3):
                picture[row, column, channel] /= SAMPLES
    return picture
