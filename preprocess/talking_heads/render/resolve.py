"""What is seen in each pixel: surfaces shaded once where its samples agree and sample by sample where they do not, strands, background."""

import math
from typing import NamedTuple

import numpy as np

from preprocess.talking_heads.render.raster import NOTHING, SAMPLE_COLUMNS, SAMPLES, Samples
from preprocess.talking_heads.render.shading import Lights, Point, shade
from preprocess.talking_heads.render.shadow import ShadowMaps, key_light
from preprocess.talking_heads.render.surface import (
    Corners,
    Surface,
    corners,
    curvature,
    mixed,
    mixed_vector,
    seen_from_behind,
    towards_viewer,
    uphill,
    weights,
)
from preprocess.talking_heads.render.textures import DETAIL_REPEAT, HAS_BUMP, HAS_DETAIL, SCATTER, TWO_SIDED, Textures, sample
from preprocess.talking_heads.render.vectors import Vector, along, dot, inlined, kernel, load, minus, unit

STEEPEST = 4.0  # pixels of depth a pixel of width: samples further apart belong to different surfaces
SAME_FACING = 0.8  # cosine of the angle between normals that count as one smooth surface


class Scene(NamedTuple):
    """All that the colour of a place depends on."""

    surface: Surface
    textures: Textures
    lights: Lights
    maps: ShadowMaps
    eye: Vector  # of the camera, cm
    pixel: float  # width of a pixel in cm at distance 1 cm


@inlined
def _face_colour(scene: Scene, face: int, x: float, y: float, texel: np.ndarray, tile: np.ndarray) -> Vector:
    """Linear RGB of a face at a point of the picture. texel, tile: float32 6 and 2, room for samples."""
    surface, traits = scene.surface, scene.textures.surface
    three, material = corners(surface, face), surface.material[face]
    w = weights(surface.screen, three, x, y)
    place = mixed_vector(surface.vertices, three, w)
    towards_eye = minus(scene.eye, place)
    footprint = scene.pixel * math.sqrt(dot(towards_eye, towards_eye))
    view = unit(towards_eye)
    normal = unit(mixed_vector(surface.normals, three, w))
    inside = traits[material, TWO_SIDED] > 0.0 and seen_from_behind(surface, three, towards_eye)
    if inside:
        normal = (-normal[0], -normal[1], -normal[2])
    normal = towards_viewer(normal, view)
    # seen at a slant, a pixel covers more of the texture: the geometric mean of both directions
    extent = mixed(surface.density, three, w) * footprint / math.sqrt(max(dot(normal, view), 0.1))
    gradient = _texture(scene, three, w, extent, material, texel, tile)
    bumped = towards_viewer(unit(along(normal, gradient, 1.0 if inside else -1.0)), view)
    visible = key_light(scene.maps, place, normal, traits[material, SCATTER])
    occlusion = mixed(surface.occlusion, three, w)
    point = Point(normal, bumped, view, occlusion, visible, curvature(surface, three, footprint))
    return shade(point, texel, traits, material, scene.lights)


@inlined
def _texture(scene: Scene, three: Corners, w: Vector, extent: float, material: int, texel: np.ndarray, tile: np.ndarray) -> Vector:
    """Reads the material at a place into `texel` and returns the gradient of its bumps (cm per cm). extent: of a pixel, in units of uv."""
    surface, textures = scene.surface, scene.textures
    u = w[0] * surface.uv[three[0], 0] + w[1] * surface.uv[three[1], 0] + w[2] * surface.uv[three[2], 0]
    v = w[0] * surface.uv[three[0], 1] + w[1] * surface.uv[three[1], 1] + w[2] * surface.uv[three[2], 1]
    sample(textures.texels, textures.texel_levels, material, (u, v), False, extent, texel)
    if textures.surface[material, HAS_BUMP] == 0.0 and textures.surface[material, HAS_DETAIL] == 0.0:
        return 0.0, 0.0, 0.0
    tile[0], tile[1] = 0.0, 0.0
    repeat = textures.surface[material, DETAIL_REPEAT]
    if textures.surface[material, HAS_DETAIL] > 0.0:
        sample(textures.tiles, textures.tile_levels, material, (u * repeat, v * repeat), True, extent * repeat, tile)
    return uphill(surface, three, texel[4] + repeat * tile[0], texel[5] + repeat * tile[1])


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
def _gather(scene: Scene, samples: Samples, row: int, column: int, owner: np.ndarray) -> None:
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
def resolve(scene: Scene, samples: Samples, background: np.ndarray) -> np.ndarray:
    """The picture (float32 h w 3): surfaces shaded, mixed with strands and background (float32 h w 3) by the samples of each pixel."""
    height, width = background.shape[:2]
    picture = np.zeros((height, width, 3), np.float32)
    texel, tile = np.empty(6, np.float32), np.empty(2, np.float32)
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
                    colour = _face_colour(scene, face, column + x, row + y, texel, tile)
                    for channel in range(3):
                        picture[row, column, channel] += weight * colour[channel]
            for channel in range(3):
                picture[row, column, channel] /= SAMPLES
    return picture
