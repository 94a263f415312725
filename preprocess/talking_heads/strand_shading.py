"""What colour a hair shows under the lights of a scene.

Two highlights lie across a hair, shifted apart by its scales: a white one from its surface and a coloured one from inside (after Marschner et al. 2003);
diffuse light falls along it as after Kajiya and Kay (1989), and a light from behind shines through.
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
def _lobe(tangent: Vector, normal: Vector, half: Vector, shift: float, width: float) -> float:
    """A highlight along a hair: a bell in the angle between the half vector and the plane across the (tilted) hair."""
    angle = dot(unit(along(tangent, normal, shift)), half)
    return math.exp(-0.5 * angle * angle / (width * width))


@kernel
def _one_light(
    tangent: Vector, normal: Vector, view: Vector, towards: Vector, spread: float, tilt: float
) -> tuple[float, float, float, float]:
    """Weights of diffuse light, of the surface's and of the inner highlight, and of light that shines through, for one light."""
    sine = math.sqrt(max(0.0, 1.0 - dot(tangent, towards) ** 2))
    facing = wrapped(dot(normal, towards), 0.6)
    half = unit((towards[0] + view[0], towards[1] + view[1], towards[2] + view[2]))
    lit = smoothstep(-0.2, 0.5, dot(normal, towards)) * sine
    surface_width = math.sqrt(SURFACE_WIDTH**2 + 0.25 * spread * spread)
    inner_width = math.sqrt(INNER_WIDTH**2 + 0.25 * spread * spread)
    surface = _lobe(tangent, normal, half, SURFACE_SHIFT + tilt, surface_width) * SURFACE_WIDTH / surface_width
    inner = _lobe(tangent, normal, half, INNER_SHIFT + tilt, inner_width) * INNER_WIDTH / inner_width
    behind = clamp(-dot(towards, view), 0.0, 1.0)
    return 0.85 * facing * (0.4 + 0.6 * sine), surface * lit, inner * lit, behind * behind * behind * sine


@kernel
def shade_strand(
    tangent: Vector,
    normal: Vector,
    view: Vector,
    colour: np.ndarray,
    shine: float,
    open_share: float,
    visible: float,
    lights: Lights,
    tilt: float,
) -> Vector:
    """Linear RGB of a point of a hair.

    tangent: unit, root to tip. normal: unit, out of the hairdo. colour: float32 3. shine: weight of the highlights. open_share: share of the
    surroundings seen. visible: share of the key light seen. tilt: of this strand's scales, radians.
    """
    across = unit(along(view, tangent, -dot(view, tangent)))
    soft_normal = unit(along(normal, across, 0.5))
    soft = irradiance(lights.ambient, soft_normal)
    key = _one_light(tangent, soft_normal, view, lights.key, lights.spread, tilt)
    fill = _one_light(tangent, soft_normal, view, lights.fill, 0.3, tilt)
    fill_share = 0.6 * open_share + 0.4 * open_share * open_share
    key_share = visible * (0.35 + 0.65 * open_share)
    return (
        _channel(colour[0], shine, key, lights.key_colour[0] * key_share, fill, lights.fill_colour[0] * fill_share, soft[0] * open_share),
        _channel(colour[1], shine, key, lights.key_colour[1] * key_share, fill, lights.fill_colour[1] * fill_share, soft[1] * open_share),
        _channel(colour[2], shine, key, lights.key_colour[2] * key_share, fill, lights.fill_colour[2] * fill_share, soft[2] * open_share),
    )


@kernel
def _channel(
    colour: float,
    shine: float,
    key: tuple[float, float, float, float],
    key_light: float,
    fill: tuple[float, float, float, float],
    fill_light: float,
    soft: float,
) -> float:
    """One channel of a hair: each light's weights (see `_one_light`) times how the hair tints them."""
    tint = math.sqrt(max(colour, 0.0))  # light from inside has crossed the hair: brighter and more saturated than its diffuse colour
    key_part = (
        colour * key[0] + shine * (SURFACE_WEIGHT * key[1] + INNER_WEIGHT * colour * key[2]) + THROUGH_WEIGHT * colour * tint * key[3]
    )
    fill_part = colour * fill[0] + 0.6 * shine * (SURFACE_WEIGHT * fill[1] + INNER_WEIGHT * colour * fill[2])
    return key_part * key_light + fill_part * fill_light + (colour + 0.02 * shine) * soft
