"""Draws strands as ribbons that face the camera into the samples of a picture.

A strand thinner than the samples can show is drawn as wide as they need, but let through what lies behind it: thin hair is faint instead
of broken. Strands are drawn nearest first; what is translucent collects in front of what comes later.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from preprocess.talking_heads.render.raster import SAMPLE_COLUMNS, SAMPLES, STRAND, Samples, project
from preprocess.talking_heads.render.shading import Lights
from preprocess.talking_heads.render.shadow import ShadowMaps, strand_light
from preprocess.talking_heads.render.strand_shading import HairPoint, shade_strand, strand_noise
from preprocess.talking_heads.render.vectors import Vector, along, clamp, dot, inlined, kernel, load, minus, smoothstep, unit
from preprocess.talking_heads.solids import Camera, Strands

THINNEST = 0.7  # pixels: a narrower ribbon would beat with the grid of samples
OPAQUE = 0.85  # share of light held back from which on a strand hides what is behind
LIFT = 0.04  # cm by which strands win against the surface they lie on
HIDDEN = 0.3  # cm behind a surface at which a point of a strand counts as out of sight
MANY = 1500  # strands of one kind from which on some are left out where the picture is small
SAG = 0.4  # pixels that a piece may lie off the curve
MOST_PIECES = 3
LONG = 3.0  # cm from its root at which a strand follows the hairdo instead of the skin
SCALE_TILT = 0.16  # radians: how far the tilt of the scales differs between strands


class Group(NamedTuple):
    """Strands of one kind, ready to be drawn."""

    points: np.ndarray  # float32 s k 3, cm
    screen: np.ndarray  # float32 s k 3, pixels and inverse distance
    radius: np.ndarray  # float32 s k, pixels at distance 1 cm
    colour: np.ndarray  # float32 s 3
    root_normals: np.ndarray  # float32 s 3
    occlusion: np.ndarray  # float32 s k
    shine: float
    middle: Vector  # cm: of the roots
    pieces: int  # into how many each piece between two knots was cut
    order: np.ndarray  # int64: the strands to be drawn, the nearest first


@kernel
def _hidden(screen: np.ndarray, strand: int, knot: int, depth: np.ndarray) -> bool:
    """Whether a knot lies clearly behind all that is seen in its pixel, or cannot be projected."""
    x, y, z = screen[strand, knot, 0], screen[strand, knot, 1], screen[strand, knot, 2]
    if z <= 0.0:
        return True
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
def _point_colour(group: Group, strand: int, knot: int, eye: Vector, maps: ShadowMaps, lights: Lights) -> Vector:
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
    tilt = SCALE_TILT * (strand_noise(strand, 1) - 0.5)
    point = HairPoint(tangent, normal, unit(minus(eye, place)), group.occlusion[strand, knot], visible, tilt)
    return shade_strand(point, load(group.colour, strand), group.shine, lights)


@inlined
def _draw_piece(group: Group, strand: int, knot: int, colours: np.ndarray, samples: Samples) -> None:
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
def _half_width(group: Group, strand: int, knot: int) -> float:
    """Half the width in pixels at which a strand is drawn at a knot."""
    return max(group.radius[strand, knot] * group.screen[strand, knot, 2], 0.5 * THINNEST)


@inlined
def _cover(group: Group, strand: int, knot: int) -> float:
    """Share of light that the ribbon holds back at a knot: less than 1 where the strand is thinner than the ribbon drawn for it."""
    return min(1.0, 2.0 * group.radius[strand, knot] * group.screen[strand, knot, 2] / THINNEST)


@inlined
def _mix(samples: Samples, row: int, column: int, z: float, colour: Vector, cover: float) -> None:
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
def _draw_group(group: Group, eye: Vector, maps: ShadowMaps, lights: Lights, samples: Samples) -> None:
    """Shades the knots (as many as before the strands were refined) and draws all strands of a group."""
    pieces = group.pieces
    last = group.points.shape[1] - 1
    hidden = np.empty(last + 1, np.bool_)
    colours = np.empty((last + 1, 3), np.float32)
    for strand in group.order:
        for knot in range(last + 1):
            hidden[knot] = _hidden(group.screen, strand, knot, samples.depth)
        shaded = -1
        for start in range(0, last, pieces):
            end = start + pieces
            if hidden[start : end + 1].all():
                continue
            if shaded != start:
                colours[start, 0], colours[start, 1], colours[start, 2] = _point_colour(group, strand, start, eye, maps, lights)
            colours[end, 0], colours[end, 1], colours[end, 2] = _point_colour(group, strand, end, eye, maps, lights)
            shaded = end
            for knot in range(start, end):
                t = (knot - start) / pieces
                for channel in range(3):
                    colours[knot, channel] = colours[start, channel] * (1.0 - t) + colours[end, channel] * t
            for knot in range(start, end):
                if not (hidden[knot] and hidden[knot + 1]) and group.screen[strand, knot, 2] > 0 and group.screen[strand, knot + 1, 2] > 0:
                    _draw_piece(group, strand, knot, colours, samples)


@kernel
def _refine(points: np.ndarray, pieces: int) -> np.ndarray:
    """Strands (s k c) with every piece cut into `pieces`, bent as a Catmull-Rom curve."""
    count, knots, channels = points.shape
    fine = np.empty((count, (knots - 1) * pieces + 1, channels), np.float32)
    for strand in range(count):
        for knot in range(knots - 1):
            before, after = max(knot - 1, 0), min(knot + 2, knots - 1)
            for piece in range(pieces):
                t = piece / pieces
                for channel in range(channels):
                    a, b = points[strand, knot, channel], points[strand, knot + 1, channel]
                    start, end = 0.5 * (b - points[strand, before, channel]), 0.5 * (points[strand, after, channel] - a)
                    turn = t * (1.0 - t) * ((1.0 - t) * (start - (b - a)) - t * (end - (b - a)))
                    fine[strand, knot * pieces + piece, channel] = a + t * (b - a) + turn
        for channel in range(channels):
            fine[strand, -1, channel] = points[strand, knots - 1, channel]
    return fine


def _pieces(screen: np.ndarray) -> int:
    """Into how many pieces the projected strands (s k 3) have to be cut so that their corners do not show."""
    if screen.shape[1] < 3:
        return 1
    corners = screen[:: max(1, len(screen) // 400), :, :2]
    sag = 0.125 * np.linalg.norm(corners[:, 2:] - 2 * corners[:, 1:-1] + corners[:, :-2], axis=-1)
    return int(np.clip(np.ceil(np.sqrt(np.percentile(sag, 80) / SAG)), 1, MOST_PIECES))


def _group(strands: Strands, normals: np.ndarray, camera: Camera, width: int, height: int) -> Group:
    """A kind of strands with what its drawing needs."""
    occlusion = np.ones(strands.radius.shape, np.float32) if strands.occlusion is None else strands.occlusion
    knots = np.concatenate([strands.points, strands.radius[..., None], occlusion[..., None]], -1, dtype=np.float32)
    pieces = _pieces(project(strands.points, camera, width, height))
    if pieces > 1:
        knots = _refine(knots, pieces)
    points = np.ascontiguousarray(knots[..., :3])
    screen = project(points, camera, width, height)
    pixels = float(height * camera.focal)
    middle = strands.points[:, 0].mean(0, dtype=np.float64)
    per_cm = pixels / max(float(camera.eye[2] - middle[2]), 1.0)
    stride = 2 if len(strands) > MANY and per_cm < 5.0 else 1
    nearest = np.argsort(-screen[..., 2].max(1), kind="stable")
    return Group(
        points=points,
        screen=screen,
        radius=np.maximum(knots[..., 3], 0) * np.float32(pixels * stride**0.8),
        colour=np.ascontiguousarray(strands.colour, np.float32),
        root_normals=normals[strands.root],
        occlusion=np.ascontiguousarray(knots[..., 4]),
        shine=float(strands.shine),
        middle=tuple(float(value) for value in middle),
        pieces=pieces,
        order=nearest[nearest % stride == 0],
    )


def draw_strands(
    strands: Sequence[Strands], normals: np.ndarray, camera: Camera, maps: ShadowMaps, lights: Lights, samples: Samples
) -> None:
    """Draws strands over the surfaces in `samples`, in place. normals: float32 v 3, of the mesh whose vertices carry the strands."""
    rows, width = samples.depth.shape
    eye = tuple(float(value) for value in camera.eye)
    for kind in strands:
        if len(kind):
            _draw_group(_group(kind, normals, camera, width, rows // SAMPLES), eye, maps, lights, samples)
