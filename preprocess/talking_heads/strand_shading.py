"""What colour a hair shows under the lights of a scene.

Two highlights lie across a hair, shifted apart by its scales: a white one from its surface and a coloured one from inside (after Marschner
et al. 2003). Diffuse light depends on its direction as after Kajiya and Kay (1989), and a light from behind shines through.
"""

import math

import numpy as np

from preprocess.talking_heads.shading import Lights, irradiance, wrapped
from preprocess.talking_heads.vectors import Vector, along, clamp, dot, kernel, smoothstep, unit

SURFACE_SHIFT, INNER_SHIFT = 0.08, -0.12  # tilt of the two highlights, radians
SURFACE_WIDTH, INNER_WIDTH = 0.13, 0.30  # their spread along the hair, radians
SURFACE_WEIGHT, INNER_WEIGHT, THROUGH_WEIGHT = 0.16, 0.85, 0.5


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
def _highlights(tangent: Vector, normal: Vector, view: Vector, lights: Lights, tilt: float) -> tuple[float, float, float]:
    """Weights of the surface's and of the inner highlight, and of light that shines through, for the key light."""
    across_key = math.sqrt(max(0.0, 1.0 - dot(tangent, lights.key) ** 2))
    half = unit((lights.key[0] + view[0], lights.key[1] + view[1], lights.key[2] + view[2]))
    lean, lift = dot(tangent, half), dot(normal, half)
    lit = smoothstep(-0.2, 0.5, dot(normal, lights.key)) * across_key
    blur = 0.25 * lights.spread * lights.spread
    surface, inner = lean + (SURFACE_SHIFT + tilt) * lift, lean + (INNER_SHIFT + tilt) * lift
    surface_width, inner_width = SURFACE_WIDTH**2 + blur, INNER_WIDTH**2 + blur
    behind = clamp(-dot(lights.key, view), 0.0, 1.0)
    return (
        lit * math.exp(-0.5 * surface * surface / surface_width) * SURFACE_WIDTH**2 / surface_width,
        lit * math.exp(-0.5 * inner * inner / inner_width) * INNER_WIDTH**2 / inner_width,
        behind * behind * behind * across_key,
    )


@kernel
def shade_strand(
    tangent: Vector,
    normal: Vector,
    view: Vector,
    colour: Vector,
    shine: float,
    open_share: float,
    visible: float,
    lights: Lights,
    tilt: float,
) -> Vector:
    """Linear RGB of a point of a hair.

    tangent: unit, root to tip. normal: unit, out of the hairdo. view: unit, to the camera. colour: linear RGB. shine: weight of the highlights.
    open_share: share of the surroundings it sees. visible: share of the key light it sees. tilt: of this strand's scales, radians.
    """
    across = along(view, tangent, -dot(view, tangent))
    facing = unit(along(normal, across, 0.5))
    soft = irradiance(lights.ambient, facing)
    key_share = visible * (0.35 + 0.65 * open_share)
    diffuse = _along(tangent, facing, lights.key) * key_share
    fill = _along(tangent, facing, lights.fill) * open_share
    surface, inner, through = _highlights(tangent, facing, view, lights, tilt)
    surface, inner, through = SURFACE_WEIGHT * shine * surface * key_share, INNER_WEIGHT * shine * inner, THROUGH_WEIGHT * through
    inner, through = inner * key_share, through * key_share
    return (
        _channel(colour[0], diffuse, surface, inner, through, lights.key_colour[0])
        + colour[0] * (fill * lights.fill_colour[0] + soft[0] * open_share),
        _channel(colour[1], diffuse, surface, inner, through, lights.key_colour[1])
        + colour[1] * (fill * lights.fill_colour[1] + soft[1] * open_share),
        _channel(colour[2], diffuse, surface, inner, through, lights.key_colour[2])
        + colour[2] * (fill * lights.fill_colour[2] + soft[2] * open_share),
    )


@kernel
def _channel(colour: float, diffuse: float, surface: float, inner: float, through: float, light: float) -> float:
    """One channel of the key light on a hair. What shines through has crossed the hair: more saturated than its diffuse colour."""
    return light * (colour * (diffuse + inner + through * math.sqrt(max(colour, 0.0))) + surface)
