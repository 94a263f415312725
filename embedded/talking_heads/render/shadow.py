"""Shadows of the key light, and how much of its surroundings each vertex of a mesh sees.

A depth map of the surfaces, and a map of how much hair lies in the way, are drawn in the light's own frame, fitted to the head.
Hair is not solid: below the outermost hair the light fades, so that hair shades itself softly.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from embedded.talking_heads.render.raster import ONE_SAMPLE, draw_faces
from embedded.talking_heads.render.shading import Lights
from embedded.talking_heads.render.vectors import Vector, along, clamp, dot, inlined, kernel, load, minus, smoothstep, vertex_normals, weld
from embedded.talking_heads.solids import Mesh, Strands

SIZE = 384  # texels of the surface map
HAIR_SIZE = 192
FAR = -1e6  # cm: depth of an empty texel
HAIR_DEPTH = 3.0  # cm below the outermost hair at which the light has passed all of it
DENSEST = 2.5  # times that hair is held to cover a texel at most
HAIR_OPACITY = 0.9  # optical depth of strands that cover a texel once
SHADOW_STRANDS = 2500  # strands of one kind that cast shadows; more are thinned out and weigh more
PENUMBRA = 2.2  # cm: how far what casts a shadow is held to lie above what shows it
REACH_DOWN = 36.0  # cm below the top of a scene that the maps reach: head, neck and the top of the shoulders
MOST_RADIUS = 21.0  # cm, the most they span to each side
MOTION = 2.0  # cm of room for what moves out of its place at rest
_GOLDEN = 2.399963
_COUNT = 16
_TURN, _REACH = np.arange(_COUNT) * _GOLDEN, np.sqrt((np.arange(_COUNT) + 0.5) / _COUNT)
# Even spread over a disc, from its middle outwards
DISC = np.stack([np.cos(_TURN) * _REACH, np.sin(_TURN) * _REACH], -1).astype(np.float32)


class ShadowMaps(NamedTuple):
    """Depths are heights towards the light in cm above the centre."""

    depth: np.ndarray  # float32 n n, FAR where empty
    hair_top: np.ndarray  # float32 m m, height of the outermost hair
    hair: np.ndarray  # float32 m m: how often hair covers the texel
    axes: np.ndarray  # float32 3 3: rows: the map's x, its y and the direction to the light
    centre: Vector  # cm
    radius: float  # cm: the map covers a square of this half width
    spread: float  # tangent of the half angle of the light


def bounds(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and radius (cm) of a ball around the upper part of a scene."""
    upper = vertices[vertices[:, 1] > vertices[:, 1].max() - REACH_DOWN]
    low, high = upper.min(0), upper.max(0)
    return ((low + high) / 2).astype(np.float32), min(float(np.linalg.norm(high - low)) / 2 + MOTION, MOST_RADIUS)


def light_axes(direction: np.ndarray) -> np.ndarray:
    """A right-handed frame (float32 3 3, rows) whose last axis is the given unit direction."""
    towards = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    up = np.array([0.0, 1.0, 0.0]) if abs(towards[1]) < 0.9 else np.array([0.0, 0.0, -1.0])
    right = np.cross(up, towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards]).astype(np.float32)


def to_map(points: np.ndarray, axes: np.ndarray, centre: np.ndarray, radius: float, size: int) -> np.ndarray:
    """Points (... 3) cm -> (... 3) float32: x and y in texels of a map, height towards the light in cm."""
    mapped = (points - centre) @ axes.T
    mapped[..., :2] = (mapped[..., :2] / (2 * radius) + 0.5) * size
    return np.ascontiguousarray(mapped, np.float32)


def depth_map(vertices: np.ndarray, faces: np.ndarray, axes: np.ndarray, centre: np.ndarray, radius: float, size: int) -> np.ndarray:
    """Height (float32 size size) of the surface nearest to the light, FAR where there is none; both sides of every face are drawn."""
    depth = np.full((size, size), FAR, np.float32)
    ids = np.empty((size, size), np.int32)
    draw_faces(to_map(vertices, axes, centre, radius, size), faces, False, ONE_SAMPLE, depth, ids)
    return depth


@kernel
def _splat(points: np.ndarray, radius: np.ndarray, stride: int, texel: float, top: np.ndarray, hair: np.ndarray, covering: bool) -> None:
    """Walks along strands in steps of a texel; first pass: the outermost hair, second pass (`covering`): what it covers."""
    size = len(top)
    for strand in range(0, len(points), stride):
        for knot in range(points.shape[1] - 1):
            start = points[strand, knot, 0], points[strand, knot, 1], points[strand, knot, 2]
            step = minus((points[strand, knot + 1, 0], points[strand, knot + 1, 1], points[strand, knot + 1, 2]), start)
            length = math.sqrt(step[0] * step[0] + step[1] * step[1])
            count = int(length) + 1
            covered = stride * (length / count) * 2.0 * radius[strand, knot] / texel
            for index in range(count):
                place = along(start, step, (index + 0.5) / count)
                column, row = int(place[0]), int(place[1])
                if place[0] < 0 or place[1] < 0 or column >= size or row >= size:
                    continue
                if not covering:
                    top[row, column] = max(top[row, column], place[2])
                    continue
                hair[row, column] += covered


def _hair_maps(
    strands: Sequence[Strands], axes: np.ndarray, centre: np.ndarray, radius: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Height of the outermost hair and how often hair covers each texel (m m each)."""
    top = np.full((HAIR_SIZE, HAIR_SIZE), FAR, np.float32)
    hair = np.zeros((HAIR_SIZE, HAIR_SIZE), np.float32)
    texel = 2 * radius / HAIR_SIZE
    width = 5 + 2 * round(min(spread, 0.3) * 0.6 / texel)
    mapped = [to_map(group.points, axes, centre, radius, HAIR_SIZE) for group in strands]
    strides = [1 + (len(group) - 1) // SHADOW_STRANDS for group in strands]
    for covering in (False, True):
        for group, points, stride in zip(strands, mapped, strides, strict=True):
            _splat(points, group.radius, stride, texel, top, hair, covering)
        if not covering:
            top = _spread_top(top, 2 * width - 1)
    hair = np.minimum(hair, DENSEST)  # or the blurred edge of dense hair would still be hard
    return top, cv2.blur(cv2.blur(hair, (width, width)), (width, width))


def _spread_top(top: np.ndarray, width: int) -> np.ndarray:
    """The outermost hair, smooth and `width` texels wider than it is: as far as what it covers is blurred."""
    top = cv2.dilate(top, np.ones((width, width), np.uint8))
    there = (top > FAR).astype(np.float32)
    mean = cv2.blur(top * there, (width, width)) / np.maximum(cv2.blur(there, (width, width)), 1e-6)
    return np.where(there > 0, mean, np.float32(FAR)).astype(np.float32)


def cast_shadows(
    vertices: np.ndarray, faces: np.ndarray, strands: Sequence[Strands], lights: Lights, centre: np.ndarray, radius: float
) -> ShadowMaps:
    """Draws the shadow maps of a frame for a ball (`centre`, `radius` in cm) around what is to cast and to show shadows."""
    axes = light_axes(np.array(lights.key))
    depth = depth_map(vertices, faces, axes, centre, radius, SIZE)
    top, hair = _hair_maps(strands, axes, centre, radius, lights.spread)
    return ShadowMaps(depth, top, hair, axes, tuple(float(value) for value in centre), float(radius), lights.spread)


@kernel
def _behind(depth: np.ndarray, x: float, y: float, height: float) -> float:
    """Share of the four texels around a place of the map that lie lower than `height`, blended: a soft step of one texel."""
    size = len(depth)
    x, y = x - 0.5, y - 0.5
    column, row = math.floor(x), math.floor(y)
    if column < 0 or row < 0 or column >= size - 1 or row >= size - 1:
        return 1.0
    fx, fy = x - column, y - row
    above = (1.0 - fx) * (depth[row, column] <= height) + fx * (depth[row, column + 1] <= height)
    below = (1.0 - fx) * (depth[row + 1, column] <= height) + fx * (depth[row + 1, column + 1] <= height)
    return above + fy * (below - above)


@inlined
def _surface_light(maps: ShadowMaps, offset: Vector, normal: Vector, facing: float) -> float:
    """Share of the key light past the surfaces, at a place relative to the centre of the map."""
    size = len(maps.depth)
    texels = size / (2.0 * maps.radius)  # a cm
    x, y = dot(offset, load(maps.axes, 0)) * texels + 0.5 * size, dot(offset, load(maps.axes, 1)) * texels + 0.5 * size
    height = dot(offset, load(maps.axes, 2)) + 0.03
    # what is compared is the plane of the surface, not one height: a wide filter would find a tilted surface in its own light
    steep = -smoothstep(0.0, 0.25, facing) / (max(facing, 0.25) * texels)
    slope = dot(normal, load(maps.axes, 0)) * steep, dot(normal, load(maps.axes, 1)) * steep
    radius = PENUMBRA * maps.spread * texels + 0.8
    light = 0.0
    for index in range(_COUNT):
        dx, dy = DISC[index, 0] * radius, DISC[index, 1] * radius
        light += _behind(maps.depth, x + dx, y + dy, height + slope[0] * dx + slope[1] * dy)
    return light / _COUNT


@inlined
def hair_light(maps: ShadowMaps, offset: Vector) -> float:
    """Share of the key light that passes the hair above a place (relative to the centre of the map)."""
    size = len(maps.hair)
    texels = size / (2.0 * maps.radius)
    column = int(dot(offset, load(maps.axes, 0)) * texels + 0.5 * size)
    row = int(dot(offset, load(maps.axes, 1)) * texels + 0.5 * size)
    if column < 0 or row < 0 or column >= size or row >= size:
        return 1.0
    below = maps.hair_top[row, column] - dot(offset, load(maps.axes, 2))
    return math.exp(-HAIR_OPACITY * maps.hair[row, column] * clamp(below / HAIR_DEPTH, 0.0, 1.0))


@inlined
def key_light(maps: ShadowMaps, place: Vector, normal: Vector, scatter: float) -> float:
    """Share of the key light that reaches a point of a surface, 0..1.

    scatter: how far light wraps around the surface; there the point is lifted out of the shadow that its own body casts.
    """
    facing = dot(normal, load(maps.axes, 2))
    if facing < -0.75:
        return 0.0
    texel = 2.0 * maps.radius / len(maps.depth)
    lift = 1.3 * texel + 0.7 * scatter * (1.0 - smoothstep(-0.2, 0.4, facing))
    offset = along(minus(place, maps.centre), normal, lift)
    light = _surface_light(maps, offset, normal, facing)
    return light * hair_light(maps, offset) if light > 0.0 else 0.0


@kernel
def strand_light(maps: ShadowMaps, place: Vector) -> float:
    """Share of the key light that reaches a point of a strand, 0..1."""
    offset = minus(place, maps.centre)
    texels = len(maps.depth) / (2.0 * maps.radius)
    half = 0.5 * len(maps.depth)
    x, y = dot(offset, load(maps.axes, 0)) * texels + half, dot(offset, load(maps.axes, 1)) * texels + half
    light = _behind(maps.depth, x, y, dot(offset, load(maps.axes, 2)) + 0.3)
    return light * hair_light(maps, offset) if light > 0.0 else 0.0


MAP = 224  # texels of a depth map
SMOOTHING = 2  # rounds of averaging with the neighbours


def _seen(depth: np.ndarray, mapped: np.ndarray, softness: float) -> np.ndarray:
    """How far (v, 0..1) mapped points lie before what covers their texel: a step of `softness` cm. Outside the map all is seen."""
    place = mapped[:, :2].astype(np.int32)
    inside = ((place >= 0) & (place < len(depth))).all(1)
    column, row = np.clip(place, 0, len(depth) - 1).T
    return np.where(inside, np.clip(1 - (depth[row, column] - mapped[:, 2]) / softness, 0, 1), 1.0)


def _smoothed(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Values of the vertices (v), averaged with those of the faces around."""
    corners = faces.reshape(-1)
    count = np.maximum(np.bincount(corners, minlength=len(values)), 1)
    for _ in range(rounds):
        around = np.bincount(corners, np.repeat(values[faces].mean(1), 3), len(values)) / count
        values = np.where(np.bincount(corners, minlength=len(values)) > 0, around, values)
    return values


def bake_occlusion(mesh: Mesh, directions: int = 48) -> np.ndarray:
    """Share (float32 v, 0..1) of the light from all around that reaches each vertex, weighted by its cosine.

    The light is measured a little above the surface, so that a flat or bulging surface gets all of it.
    """
    owner = weld(mesh)
    normals = vertex_normals(mesh.vertices, mesh.faces, owner)
    centre, radius = bounds(mesh.vertices)
    texel = 2 * radius / MAP
    seen, whole = np.zeros(len(normals), np.float32), np.full(len(normals), 1e-6, np.float32)
    index = np.arange(directions) + 0.5  # spread evenly over the sphere along a spiral
    height, turn = 1 - 2 * index / directions, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - height * height)
    for direction in np.stack([across * np.cos(turn), height, across * np.sin(turn)], -1):
        axes = light_axes(direction)
        cosine = np.maximum(normals @ axes[2], 0)
        depth = depth_map(mesh.vertices, mesh.faces, axes, centre, radius, MAP)
        # a slanted surface rises within a texel: the flatter the view, the further the point is lifted towards it
        lift = 1.2 * texel * np.sqrt(1 - np.minimum(cosine, 1) ** 2)[:, None] * normals + 0.8 * texel * axes[2]
        mapped = to_map(mesh.vertices + lift, axes, centre, radius, MAP)
        seen += cosine * _seen(depth, mapped, texel)
        whole += cosine
    share = _smoothed(np.minimum(seen / whole, 1.0), mesh.faces, SMOOTHING)
    return share[owner].astype(np.float32)
