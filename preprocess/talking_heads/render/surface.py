"""A mesh as the kernels read it, and what it is like at a place in one of its faces."""

import math
from typing import NamedTuple

import numpy as np

from preprocess.talking_heads.render.vectors import Vector, along, cross, dot, inlined, load, minus, unit

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
    """The normal, bent just enough to be seen: smooth normals and bumps may look away at the rim of a surface."""
    facing = dot(normal, view)
    return normal if facing >= 0.05 else unit(along(normal, view, 0.05 - facing))


@inlined
def curvature(surface: Surface, corners: Corners, footprint: float) -> float:
    """Turn of the smooth normal (radians) over a footprint in cm."""
    a, b, c = corners[0], corners[1], corners[2]
    bend = minus(load(surface.normals, b), load(surface.normals, a))
    side = minus(load(surface.vertices, b), load(surface.vertices, a))
    other_bend = minus(load(surface.normals, c), load(surface.normals, a))
    other = minus(load(surface.vertices, c), load(surface.vertices, a))
    turn = max(dot(bend, bend) / max(dot(side, side), 1e-8), dot(other_bend, other_bend) / max(dot(other, other), 1e-8))
    return math.sqrt(turn) * footprint


@inlined
def seen_from_behind(surface: Surface, corners: Corners, towards_eye: Vector) -> bool:
    """Whether the camera sees the inner side of a face."""
    a = load(surface.vertices, corners[0])
    return dot(cross(minus(load(surface.vertices, corners[1]), a), minus(load(surface.vertices, corners[2]), a)), towards_eye) < 0.0
