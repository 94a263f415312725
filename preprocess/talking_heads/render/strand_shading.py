"""What colour a hair shows under the lights of a scene.

Two highlights lie across a hair, shifted apart by its scales: a white one from its surface and a coloured one from inside (after Marschner
et al. 2003). Diffuse light depends on its direction as after Kajiya and Kay (1989), and a light from behind shines through.
"""

import math
from typing import NamedTuple

from preprocess.talking_heads.render.shading import Lights, irradiance, wrapped
from preprocess.talking_heads.render.vectors import Vector, along, clamp, dot, kernel, smoothstep, unit

SURFACE_SHIFT, INNER_SHIFT = 0.08, -0.12  # tilt of the two highlights, radians
SURFACE_WIDTH, INNER_WIDTH = 0.13, 0.30  # their spread along the hair, radians
SURFACE_WEIGHT, INNER_WEIGHT, THROUGH_WEIGHT = 0.16, 0.85, 0.5


class HairPoint(NamedTuple):
    """A place on a hair."""

    tangent: Vector  # unit, root to tip
    normal: Vector  # unit, out of the hairdo
    to_camera: Vector  # unit
    occlusion: float  # share of the surroundings it sees
    visible: float  # share of the key light it sees
    tilt: float  # of this hair's scales, radians


@kernel
def strand_noise(strand: int, salt: int) -> float:
    """A number in [0, 1) that belongs to a strand, the same in every frame."""
    value = (strand * 2654435761 + salt * 40503 + 974711) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 2246822519) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 3266489917) & 0xFFFFFFFF
    return ((value ^ (value >> 16)) & 0xFFFFFF) / 16777216.0


@kernel
def _along(tangent: Vector, normal: Vector, towards: Vector) -> float:
    """Diffuse light on a hair: by the side of the hairdo it lies on, and by its angle to the light."""
    cosine = dot(tangent, towards)
    return 0.85 * wrapped(dot(normal, towards), 0.6) * (0.4 + 0.6 * math.sqrt(max(0.0, 1.0 - cosine * cosine)))


@kernel
def _highlights(tangent: Vector, normal: Vector, to_camera: Vector, lights: Lights, tilt: float) -> tuple[float, float, float]:
    """Weights of the surface's and of the inner highlight, and of light that shines through, for the key light."""
    across_key = math.sqrt(max(0.0, 1.0 - dot(tangent, lights.key) ** 2))
    half = unit((lights.key[0] + to_camera[0], lights.key[1] + to_camera[1], lights.key[2] + to_camera[2]))
    lean, lift = dot(tangent, half), dot(normal, half)
    lit = smoothstep(-0.2, 0.5, dot(normal, lights.key)) * across_key
    blur = 0.25 * lights.spread * lights.spread
    surface, inner = lean + (SURFACE_SHIFT + tilt) * lift, lean + (INNER_SHIFT + tilt) * lift
    surface_width, inner_width = SURFACE_WIDTH**2 + blur, INNER_WIDTH**2 + blur
    behind = clamp(-dot(lights.key, to_camera), 0.0, 1.0)
    return (
        lit * math.exp(-0.5 * surface * surface / surface_width) * SURFACE_WIDTH**2 / surface_width,
        lit * math.exp(-0.5 * inner * inner / inner_width) * INNER_WIDTH**2 / inner_width,
        behind * behind * behind * across_key,
    )


@kernel
def shade_strand(point: HairPoint, colour: Vector, shine: float, lights: Lights) -> Vector:
    """Linear RGB that a point of a hair of a linear RGB `colour` sends to the camera; `shine` weighs its highlights."""
    across = along(point.to_camera, point.tangent, -dot(point.to_camera, point.tangent))
    facing = unit(along(point.normal, across, 0.5))
    soft = irradiance(lights.ambient, facing)
    key_share = point.visible * (0.35 + 0.65 * point.occlusion)
    diffuse = _along(point.tangent, facing, lights.key)
    fill = _along(point.tangent, facing, lights.fill) * point.occlusion
    surface, inner, through = _highlights(point.tangent, facing, point.to_camera, lights, point.tilt)
    surface, diffuse = SURFACE_WEIGHT * shine * surface, diffuse + INNER_WEIGHT * shine * inner
    red = _channel(colour[0], diffuse, surface, THROUGH_WEIGHT * through) * lights.key_colour[0] * key_share
    green = _channel(colour[1], diffuse, surface, THROUGH_WEIGHT * through) * lights.key_colour[1] * key_share
    blue = _channel(colour[2], diffuse, surface, THROUGH_WEIGHT * through) * lights.key_colour[2] * key_share
    return (
        red + colour[0] * (fill * lights.fill_colour[0] + soft[0] * point.occlusion),
        green + colour[1] * (fill * lights.fill_colour[1] + soft[1] * point.occlusion),
        blue + colour[2] * (fill * lights.fill_colour[2] + soft[2] * point.occlusion),
    )


@kernel
def _channel(colour: float, tinted: float, white: float, through: float) -> float:
    """One channel of a light on a hair. What shines through has crossed the hair: more saturated than its diffuse colour."""
    return colour * (tinted + through * math.sqrt(max(colour, 0.0))) + white
