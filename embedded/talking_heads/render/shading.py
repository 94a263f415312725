"""What colour a surface shows under the lights of a scene, and its materials packed for that: one pyramid of texels for all surfaces.

A texel holds red, green, blue, gloss and the slopes of the bump map along u and v (cm per unit of uv). Slopes instead of heights can be
averaged: a bump that is too fine for the picture fades out in the smaller levels. Diffuse light wraps around the terminator per channel
(light that scatters under the skin). Highlights follow the microfacet model with the GGX distribution (Walter et al. 2007) and Hammon's
visibility term. Soft light from all around comes as spherical harmonics.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from embedded.talking_heads.render.vectors import Vector, along, clamp, dot, inlined, kernel, smoothstep, unit
from embedded.talking_heads.solids import Light, Material

# Columns of the table of surfaces
ROUGHNESS, SPECULAR, SCATTER, HAS_BUMP, COLUMNS = 0, 1, 2, 5, 6


class Textures(NamedTuple):
    """All materials of a mesh."""

    texels: np.ndarray  # float32 n 6
    levels: np.ndarray  # int32 m l 3: first texel, height and width of each level of each material; unused levels repeat the last
    surface: np.ndarray  # float32 m 6, see the columns above


def pack(materials: Sequence[Material]) -> Textures:
    """Packs the materials of a mesh, in order."""
    pyramids = [_pyramid(_surface_image(material)) for material in materials]
    table = np.zeros((len(materials), max(len(pyramid) for pyramid in pyramids), 3), np.int32)
    start, texels = 0, []
    for index, pyramid in enumerate(pyramids):
        for level, image in enumerate(pyramid):
            table[index, level:] = start, *image.shape[:2]
            texels.append(image.reshape(-1, 6))
            start += len(texels[-1])
    surface = [(material.roughness, material.specular, *material.scatter, material.bump is not None) for material in materials]
    return Textures(np.concatenate(texels), table, np.array(surface, np.float32))


def _surface_image(material: Material) -> np.ndarray:
    """The texels (h w 6) of a material at the resolution of its finest map."""
    maps = [image for image in (material.albedo, material.bump, material.gloss) if image is not None]
    size = (max(image.shape[1] for image in maps), max(image.shape[0] for image in maps))

    def resized(image: np.ndarray) -> np.ndarray:
        return cv2.resize(np.asarray(image, np.float32), size, interpolation=cv2.INTER_LINEAR)

    image = np.zeros((size[1], size[0], 6), np.float32)
    image[..., :3] = resized(material.albedo)
    image[..., 3] = 1.0 if material.gloss is None else resized(material.gloss)
    if material.bump is not None:
        rim = np.pad(resized(material.bump), 1, mode="edge")
        image[..., 4] = (rim[1:-1, 2:] - rim[1:-1, :-2]) * (0.5 * size[0])
        image[..., 5] = (rim[2:, 1:-1] - rim[:-2, 1:-1]) * (0.5 * size[1])
    return image


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    """The image and its halves down to one texel; channels in groups of three, the most the resampler is quick with."""
    levels = [image]
    while max(levels[-1].shape[:2]) > 1:
        height, width = (max(1, size // 2) for size in levels[-1].shape[:2])
        groups = [np.ascontiguousarray(levels[-1][..., first : first + 3]) for first in (0, 3)]
        halves = [cv2.resize(group, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, 3) for group in groups]
        levels.append(np.concatenate(halves, -1))
    return levels


@kernel
def _bilinear(texels: np.ndarray, level: np.ndarray, uv: tuple[float, float], out: np.ndarray, weight: float) -> None:
    """Adds `weight` times the texel at (u, v) of one level (int32 3: first texel, height, width) to `out`."""
    start, height, width = level[0], level[1], level[2]
    x, y = uv[0] * width - 0.5, uv[1] * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    left, right = min(max(x0, 0), width - 1), min(max(x0 + 1, 0), width - 1)
    above, below = start + min(max(y0, 0), height - 1) * width, start + min(max(y0 + 1, 0), height - 1) * width
    w00, w01 = weight * (1.0 - fx) * (1.0 - fy), weight * fx * (1.0 - fy)
    w10, w11 = weight * (1.0 - fx) * fy, weight * fx * fy
    for channel in range(len(out)):
        upper = w00 * texels[above + left, channel] + w01 * texels[above + right, channel]
        out[channel] += upper + w10 * texels[below + left, channel] + w11 * texels[below + right, channel]


@kernel
def sample(textures: Textures, material: int, uv: tuple[float, float], footprint: float, out: np.ndarray) -> None:
    """Sets `out` (float32 6) to the texel of a material at (u, v), averaged over a footprint: the width of a pixel in units of uv."""
    levels = textures.levels
    size = footprint * math.sqrt(levels[material, 0, 1] * levels[material, 0, 2])
    last = levels.shape[1] - 1
    level = min(math.log2(size), float(last)) if size > 1.0 else 0.0
    low = int(level)
    blend = level - low
    out[:] = 0.0
    _bilinear(textures.texels, levels[material, low], uv, out, 1.0 - blend)
    if blend > 0.0:
        _bilinear(textures.texels, levels[material, min(low + 1, last)], uv, out, blend)


def uv_density(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Units of uv per cm of surface around each vertex (float32 v): the geometric mean of both directions."""
    corner, texture = vertices[faces], uv[faces]
    sides, turns = corner[:, 1:] - corner[:, :1], texture[:, 1:] - texture[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    texture_area = np.abs(turns[:, 0, 0] * turns[:, 1, 1] - turns[:, 0, 1] * turns[:, 1, 0])
    sums = [np.bincount(faces.reshape(-1), np.repeat(values, 3), len(vertices)) for values in (area, texture_area)]
    return np.sqrt(sums[1] / np.maximum(sums[0], 1e-12)).astype(np.float32)


# Constants of the real spherical harmonics up to order 2
_Y0, _Y1, _Y2, _Y20, _Y22 = 0.2820948, 0.4886025, 1.0925484, 0.3153916, 0.5462742
WET_SPREAD, WET_GAIN = 0.07, 3.0  # size (radians) and additional strength of the highlights of eyes
SHEEN = 0.35  # of the fine down on skin, seen edge-on, times `scatter`


class Lights(NamedTuple):
    """A `Light` as the kernels read it."""

    key: Vector  # unit
    key_colour: Vector
    fill: Vector  # unit
    fill_colour: Vector
    ambient: np.ndarray  # float32 9 3
    spread: float  # tangent of the half angle of the key light


def pack_light(light: Light) -> Lights:
    """The lights of a scene with plain numbers and arrays."""
    vectors = (light.key_direction, light.key_colour, light.fill_direction, light.fill_colour)
    red_green_blue = (tuple(float(value) for value in vector) for vector in vectors)
    return Lights(*red_green_blue, np.ascontiguousarray(light.ambient, np.float32), math.tan(light.softness))


class SurfacePoint(NamedTuple):
    """A place on a surface."""

    normal: Vector  # of the smooth surface, towards the viewer's side
    bumped: Vector  # with the bump map
    to_camera: Vector  # unit
    occlusion: float  # share of the surroundings it sees
    visible: float  # share of the key light it sees


@kernel
def irradiance(ambient: np.ndarray, n: Vector) -> Vector:
    """Soft light (irradiance / pi, 3 channels, not below 0) on a surface with unit normal n."""
    x, y, z = n
    basis = (_Y0, _Y1 * y, _Y1 * z, _Y1 * x, _Y2 * x * y, _Y2 * y * z, _Y20 * (3.0 * z * z - 1.0), _Y2 * x * z, _Y22 * (x * x - y * y))
    red, green, blue = 0.0, 0.0, 0.0
    for index in range(9):
        red += basis[index] * ambient[index, 0]
        green += basis[index] * ambient[index, 1]
        blue += basis[index] * ambient[index, 2]
    return max(red, 0.0), max(green, 0.0), max(blue, 0.0)


@kernel
def wrapped(cosine: float, width: float) -> float:
    """max(0, cosine) blurred over +-width: light that reaches past the terminator, unchanged on the lit side."""
    if cosine >= width:
        return cosine
    if cosine <= -width:
        return 0.0
    return (cosine + width) * (cosine + width) / (4.0 * width)


@kernel
def highlight(n: Vector, view: Vector, towards: Vector, alpha: float, reflectance: float) -> float:
    """Mirrored share of a light of irradiance pi: GGX with roughness `alpha`, Fresnel after Schlick, times the cosine."""
    cosine = dot(n, towards)
    if cosine <= 0.0:
        return 0.0
    half = unit((towards[0] + view[0], towards[1] + view[1], towards[2] + view[2]))
    facing = max(dot(n, view), 0.05)
    peak = dot(n, half)
    square = alpha * alpha
    spread = peak * peak * (square - 1.0) + 1.0
    visibility = 0.5 / ((1.0 - alpha) * 2.0 * cosine * facing + alpha * (cosine + facing))
    grazing = 1.0 - clamp(dot(towards, half), 0.0, 1.0)
    fresnel = reflectance + (1.0 - reflectance) * grazing * grazing * grazing * grazing * grazing
    return square / (spread * spread) * visibility * fresnel * cosine


@inlined
def _mirror(point: SurfacePoint, roughness: float, reflectance: float, ambient: np.ndarray) -> Vector:
    """What a surface mirrors of the soft light (3 channels): Karis' fit of the environment integral, less where surroundings are hidden."""
    facing = clamp(dot(point.bumped, point.to_camera), 0.0, 1.0)
    falloff = min((1.0 - roughness) * (1.0 - roughness), math.exp(-6.432 * facing)) * (1.0 - roughness) + 0.0425 - 0.0275 * roughness
    share = reflectance * (1.04 - 0.572 * roughness - 1.04 * falloff) + 1.04 * falloff + 0.022 * roughness - 0.04
    # at its rim a rough surface hides its own reflections
    rim = 1.0 - min(1.0, 2.0 * roughness) * (1.0 - smoothstep(0.0, 0.6, facing))
    share = max(share, 0.0) * point.occlusion * point.occlusion * rim
    mirrored = along((-point.to_camera[0], -point.to_camera[1], -point.to_camera[2]), point.bumped, 2.0 * facing)
    seen = irradiance(ambient, unit(mirrored))
    return share * seen[0], share * seen[1], share * seen[2]


@inlined
def _diffuse(channel: int, point: SurfacePoint, albedo: float, scatter: float, lights: Lights, visible: float, soft: float) -> float:
    """Light of one channel that leaves the surface in all directions."""
    blur = min(1.0, 1.6 * scatter)  # scattered light does not see small bumps
    towards_key = dot(point.bumped, lights.key) + blur * (dot(point.normal, lights.key) - dot(point.bumped, lights.key))
    towards_fill = dot(point.bumped, lights.fill)
    key = wrapped(towards_key, 0.02 + scatter + 0.5 * lights.spread)
    fill = wrapped(towards_fill, 0.2 + scatter)
    # light bleeds into the edge of a shadow, red furthest
    lit = visible * (1.0 + scatter * (1.0 - visible))
    # what is hidden from afar is lit by its bright neighbourhood
    filled = point.occlusion / (1.0 - min(albedo, 0.9) * (1.0 - point.occlusion))
    rim = 1.0 - clamp(dot(point.normal, point.to_camera), 0.0, 1.0)
    down = 1.0 + SHEEN * scatter * rim * rim * rim
    return albedo * (lit * key * lights.key_colour[channel] + filled * (fill * lights.fill_colour[channel] + soft * down))


@inlined
def shade(point: SurfacePoint, texel: np.ndarray, surfaces: np.ndarray, material: int, lights: Lights) -> Vector:
    """Linear RGB that a point sends to the camera.

    texel: float32 6 (albedo, gloss, slopes), surfaces: float32 m 6, the table of materials.
    """
    roughness = surfaces[material, ROUGHNESS]
    reflectance = clamp(surfaces[material, SPECULAR] * texel[3], 0.0, 1.0)
    alpha = roughness * roughness
    visible = point.visible * min(1.0, 2.0 * point.occlusion)
    # a wet surface mirrors the bright surroundings of the light, not only its disc
    wet = 1.0 - smoothstep(0.07, 0.15, roughness)
    key_alpha = min(1.0, alpha + 0.5 * max(lights.spread, WET_SPREAD * wet))
    key = highlight(point.bumped, point.to_camera, lights.key, key_alpha, reflectance) * visible * (1.0 + WET_GAIN * wet)
    fill = highlight(point.bumped, point.to_camera, lights.fill, min(1.0, alpha + 0.25 - 0.2 * wet), reflectance) * point.occlusion
    mirrored = _mirror(point, roughness, reflectance, lights.ambient)
    soft = irradiance(lights.ambient, point.bumped)
    red = _diffuse(0, point, texel[0], surfaces[material, SCATTER], lights, visible, soft[0])
    green = _diffuse(1, point, texel[1], surfaces[material, SCATTER + 1], lights, visible, soft[1])
    blue = _diffuse(2, point, texel[2], surfaces[material, SCATTER + 2], lights, visible, soft[2])
    return (
        red + mirrored[0] + key * lights.key_colour[0] + fill * lights.fill_colour[0],
        green + mirrored[1] + key * lights.key_colour[1] + fill * lights.fill_colour[1],
        blue + mirrored[2] + key * lights.key_colour[2] + fill * lights.fill_colour[2],
    )
