"""What colour a surface shows under the lights of a scene.

Diffuse light wraps around the terminator per channel (light that scatters under the skin). Highlights follow the microfacet model with
the GGX distribution (Walter et al. 2007) and Hammon's visibility term. Soft light from all around comes as spherical harmonics.
"""

import math
from typing import NamedTuple

import numpy as np

from preprocess.talking_heads.render.textures import ROUGHNESS, SCATTER, SPECULAR
from preprocess.talking_heads.render.vectors import Vector, along, clamp, dot, inlined, kernel, smoothstep, unit
from preprocess.talking_heads.solids import Light

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


class Point(NamedTuple):
    """A place on a surface."""

    normal: Vector  # of the smooth surface, towards the viewer's side
    bumped: Vector  # with the bump map
    to_camera: Vector  # unit
    occlusion: float  # share of the surroundings it sees
    visible: float  # share of the key light it sees
    curvature: float  # turn of the normal within a pixel, radians


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
def _mirror(point: Point, roughness: float, reflectance: float, ambient: np.ndarray) -> Vector:
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
def _diffuse(channel: int, point: Point, albedo: float, scatter: float, lights: Lights, visible: float, soft: float) -> float:
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
def shade(point: Point, texel: np.ndarray, surfaces: np.ndarray, material: int, lights: Lights) -> Vector:
    """Linear RGB that a point sends to the camera.

    texel: float32 6 (albedo, gloss, slopes), surfaces: float32 m 9, the table of materials.
    """
    roughness = surfaces[material, ROUGHNESS]
    reflectance = clamp(surfaces[material, SPECULAR] * texel[3], 0.0, 1.0)
    # the surface turns within a pixel: a wider lobe instead of sparks
    square = roughness * roughness
    alpha = min(math.sqrt(square * square + 0.17 * min(point.curvature * point.curvature, 1.0)), 1.0)
    visible = point.visible * min(1.0, 2.0 * point.occlusion)
    # a wet surface mirrors the bright surroundings of the light, not only its disc
    wet = 1.0 - smoothstep(0.07, 0.15, roughness)
    key_alpha = min(1.0, alpha + 0.5 * max(lights.spread, WET_SPREAD * wet))
    key = highlight(point.bumped, point.to_camera, lights.key, key_alpha, reflectance) * visible * (1.0 + WET_GAIN * wet)
    fill = highlight(point.bumped, point.to_camera, lights.fill, min(1.0, alpha + 0.25 - 0.2 * wet), reflectance) * point.occlusion
    mirrored = _mirror(point, math.sqrt(alpha), reflectance, lights.ambient)
    soft = irradiance(lights.ambient, point.bumped)
    red = _diffuse(0, point, texel[0], surfaces[material, SCATTER], lights, visible, soft[0])
    green = _diffuse(1, point, texel[1], surfaces[material, SCATTER + 1], lights, visible, soft[1])
    blue = _diffuse(2, point, texel[2], surfaces[material, SCATTER + 2], lights, visible, soft[2])
    return (
        red + mirrored[0] + key * lights.key_colour[0] + fill * lights.fill_colour[0],
        green + mirrored[1] + key * lights.key_colour[1] + fill * lights.fill_colour[1],
        blue + mirrored[2] + key * lights.key_colour[2] + fill * lights.fill_colour[2],
    )
