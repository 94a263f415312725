"""Strands of hair: their colour under the lights of a scene, and how they are drawn as ribbons that face the camera.

Two highlights lie across a hair, shifted apart by its scales: a white one from its surface and a coloured one from inside (after Marschner
et al. 2003). Diffuse light depends on its direction as after Kajiya and Kay (1989), and a light from behind shines through.

A strand thinner than the samples can show is drawn as wide as they need, but lets through what lies behind it. Strands are drawn nearest
first; what is translucent collects in front of what comes later.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedded.talking_heads.render.raster import SAMPLE_COLUMNS, SAMPLES, STRAND, PixelSamples, project
from embedded.talking_heads.render.shading import Lights, irradiance, wrapped
from embedded.talking_heads.render.shadow import ShadowMaps, strand_light
from embedded.talking_heads.render.vectors import Vector, along, clamp, dot, inlined, kernel, load, minus, smoothstep, unit
from embedded.talking_heads.solids import Camera, Strands

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


@kernel
def _diffuse_along(tangent: Vector, normal: Vector, towards: Vector) -> float:
    """Diffuse light on a hair: by the side of the hairdo it lies on, and by its angle to the light."""
    cosine = dot(tangent, towards)
    return 0.85 * wrapped(dot(normal, towards), 0.6) * (0.4 + 0.6 * math.sqrt(max(0.0, 1.0 - cosine * cosine)))


@kernel
def _highlights(tangent: Vector, normal: Vector, to_camera: Vector, lights: Lights) -> tuple[float, float, float]:
    """Weights of the surface's and of the inner highlight, and of light that shines through, for the key light."""
    across_key = math.sqrt(max(0.0, 1.0 - dot(tangent, lights.key) ** 2))
    half = unit((lights.key[0] + to_camera[0], lights.key[1] + to_camera[1], lights.key[2] + to_camera[2]))
    lean, lift = dot(tangent, half), dot(normal, half)
    lit = smoothstep(-0.2, 0.5, dot(normal, lights.key)) * across_key
    blur = 0.25 * lights.spread * lights.spread
    surface, inner = lean + SURFACE_SHIFT * lift, lean + INNER_SHIFT * lift
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
    diffuse = _diffuse_along(point.tangent, facing, lights.key)
    fill = _diffuse_along(point.tangent, facing, lights.fill) * point.occlusion
    surface, inner, through = _highlights(point.tangent, facing, point.to_camera, lights)
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


THINNEST = 0.7  # pixels: a narrower ribbon would beat with the grid of samples
OPAQUE = 0.85  # share of light held back from which on a strand hides what is behind
LIFT = 0.04  # cm by which strands win against the surface they lie on
HIDDEN = 0.3  # cm behind a surface at which a point of a strand counts as out of sight
MANY = 1500  # strands of one kind from which on some are left out where the picture is small
LONG = 3.0  # cm from its root at which a strand follows the hairdo instead of the skin


class StrandGroup(NamedTuple):
    """Strands of one kind, ready to be drawn."""

    points: np.ndarray  # float32 s k 3, cm
    screen: np.ndarray  # float32 s k 3, pixels and inverse distance
    radius: np.ndarray  # float32 s k, pixels at distance 1 cm
    colour: np.ndarray  # float32 s 3
    root_normals: np.ndarray  # float32 s 3
    occlusion: np.ndarray  # float32 s k
    shine: float
    middle: Vector  # cm: of the roots
    order: np.ndarray  # int64: the strands to be drawn, the nearest first


@kernel
def _hidden(screen: np.ndarray, strand: int, knot: int, depth: np.ndarray) -> bool:
    """Whether a knot lies clearly behind all that is seen in its pixel."""
    x, y, z = screen[strand, knot, 0], screen[strand, knot, 1], screen[strand, knot, 2]
    rows, width = depth.shape
    column, row = int(x), int(y) * SAMPLES
    if x < 0 or y < 0 or column >= width or row >= rows:
        return False
    nearest = min(min(depth[row, column], depth[row + 1, column]), min(depth[row + 2, column], depth[row + 3, column]))
    return z < nearest * (1.0 - HIDDEN * z)


@kernel
def _knot(points: np.ndarray, strand: int, knot: int) -> Vector:
    """A point of a strand."""
    return points[strand, knot, 0], points[strand, knot, 1], points[strand, knot, 2]


@inlined
def _point_colour(group: StrandGroup, strand: int, knot: int, eye: Vector, maps: ShadowMaps, lights: Lights) -> Vector:
    """Colour of a knot of a strand."""
    last = group.points.shape[1] - 1
    place = _knot(group.points, strand, knot)
    tangent = unit(minus(_knot(group.points, strand, min(knot + 1, last)), _knot(group.points, strand, max(knot - 1, 0))))
    outwards = unit(minus(place, group.middle))
    from_root = minus(place, _knot(group.points, strand, 0))
    far = smoothstep(0.0, LONG, math.sqrt(dot(from_root, from_root)))
    root_normal = load(group.root_normals, strand)
    normal = unit(along((root_normal[0] * (1 - far), root_normal[1] * (1 - far), root_normal[2] * (1 - far)), outwards, far))
    visible = strand_light(maps, place)
    point = HairPoint(tangent, normal, unit(minus(eye, place)), group.occlusion[strand, knot], visible)
    return shade_strand(point, load(group.colour, strand), group.shine, lights)


@inlined
def _draw_piece(group: StrandGroup, strand: int, knot: int, colours: np.ndarray, samples: PixelSamples) -> None:
    """Draws the ribbon from a knot to the next: what lies between its ends and within half its width. colours: float32 k 3."""
    rows, width = samples.depth.shape
    start, end = _knot(group.screen, strand, knot), _knot(group.screen, strand, knot + 1)
    first_cover, last_cover = _cover(group, strand, knot), _cover(group, strand, knot + 1)
    dx, dy = end[0] - start[0], end[1] - start[1]
    dx, dy = math.copysign(max(abs(dx), 1e-5), dx), math.copysign(max(abs(dy), 1e-5), dy)
    square = dx * dx + dy * dy
    half = 0.5 * (_half_width(group, strand, knot) + _half_width(group, strand, knot + 1)) / math.sqrt(square)  # of the length
    side = half * square / abs(dy)  # from the middle line to the rim along a row
    reach = half * abs(dx)
    first_row = max(0, math.ceil((min(start[1], end[1]) - reach) * SAMPLES - 0.5))
    last_row = min(rows - 1, math.floor((max(start[1], end[1]) + reach) * SAMPLES - 0.5))
    for row in range(first_row, last_row + 1):
        down = (row + 0.5) / SAMPLES - start[1]
        middle = start[0] + down * dx / dy
        one, two = start[0] - down * dy / dx, start[0] + (square - down * dy) / dx  # where the row passes the two ends
        offset = SAMPLE_COLUMNS[row & 3]
        first = max(0, math.ceil(max(middle - side, min(one, two)) - offset))
        last = min(width, math.ceil(min(middle + side, max(one, two)) - offset))
        for column in range(first, last):
            t = clamp(((column + offset - start[0]) * dx + down * dy) / square, 0.0, 1.0)
            z = start[2] + t * (end[2] - start[2])
            z += LIFT * z * z
            if z > samples.depth[row, column]:
                colour = (
                    colours[knot, 0] + t * (colours[knot + 1, 0] - colours[knot, 0]),
                    colours[knot, 1] + t * (colours[knot + 1, 1] - colours[knot, 1]),
                    colours[knot, 2] + t * (colours[knot + 1, 2] - colours[knot, 2]),
                )
                _mix(samples, row, column, z, colour, first_cover + t * (last_cover - first_cover))


@inlined
def _half_width(group: StrandGroup, strand: int, knot: int) -> float:
    """Half the width in pixels at which a strand is drawn at a knot."""
    return max(group.radius[strand, knot] * group.screen[strand, knot, 2], 0.5 * THINNEST)


@inlined
def _cover(group: StrandGroup, strand: int, knot: int) -> float:
    """Share of light that the ribbon holds back at a knot: less than 1 where the strand is thinner than the ribbon drawn for it."""
    return min(1.0, 2.0 * group.radius[strand, knot] * group.screen[strand, knot, 2] / THINNEST)


@inlined
def _mix(samples: PixelSamples, row: int, column: int, z: float, colour: Vector, cover: float) -> None:
    """Lays a piece of a strand into one sample: over an opaque strand behind it, under the translucent ones drawn before."""
    paint = samples.paint
    over = samples.ids[row, column] == STRAND
    weight = cover if over else cover * (1.0 - paint[row, column, 3])
    keep = 1.0 - cover if over else 1.0
    for channel in range(3):
        paint[row, column, channel] = paint[row, column, channel] * keep + colour[channel] * weight
    paint[row, column, 3] = paint[row, column, 3] * keep + weight
    full = paint[row, column, 3]
    if full > OPAQUE:
        for channel in range(4):
            paint[row, column, channel] /= full
        samples.depth[row, column] = z
        samples.ids[row, column] = STRAND


@kernel
def _draw_group(group: StrandGroup, eye: Vector, maps: ShadowMaps, lights: Lights, samples: PixelSamples) -> None:
    """Shades the knots that are in sight and draws all strands of a group."""
    last = group.points.shape[1] - 1
    hidden = np.empty(last + 1, np.bool_)
    colours = np.empty((last + 1, 3), np.float32)
    for strand in group.order:
        for knot in range(last + 1):
            hidden[knot] = _hidden(group.screen, strand, knot, samples.depth)
        for knot in range(last + 1):
            if not (hidden[max(knot - 1, 0)] and hidden[knot] and hidden[min(knot + 1, last)]):
                colours[knot, 0], colours[knot, 1], colours[knot, 2] = _point_colour(group, strand, knot, eye, maps, lights)
        for knot in range(last):
            if not (hidden[knot] and hidden[knot + 1]):
                _draw_piece(group, strand, knot, colours, samples)


def _group(strands: Strands, normals: np.ndarray, camera: Camera, width: int, height: int) -> StrandGroup:
    """A kind of strands with what its drawing needs."""
    points, screen = np.ascontiguousarray(strands.points, np.float32), project(strands.points, camera, width, height)
    pixels = float(height * camera.focal)
    middle = points[:, 0].mean(0, dtype=np.float64)
    stride = 2 if len(strands) > MANY and pixels < 5.0 * max(float(camera.eye[2] - middle[2]), 1.0) else 1
    nearest = np.argsort(-screen[..., 2].max(1), kind="stable")
    return StrandGroup(
        points=points,
        screen=screen,
        radius=(strands.radius * (pixels * stride**0.8)).astype(np.float32),
        colour=np.ascontiguousarray(strands.colour, np.float32),
        root_normals=normals[strands.root],
        occlusion=np.ones(strands.radius.shape, np.float32) if strands.occlusion is None else strands.occlusion,
        shine=float(strands.shine),
        middle=tuple(float(value) for value in middle),
        order=nearest[nearest % stride == 0],
    )


def draw_strands(
    strands: Sequence[Strands], normals: np.ndarray, camera: Camera, maps: ShadowMaps, lights: Lights, samples: PixelSamples
) -> None:
    """Draws strands over the surfaces in `samples`, in place. normals: float32 v 3, of the mesh whose vertices carry the strands."""
    rows, width = samples.depth.shape
    eye = tuple(float(value) for value in camera.eye)
    for kind in strands:
        if len(kind):
            _draw_group(_group(kind, normals, camera, width, rows // SAMPLES), eye, maps, lights, samples)
