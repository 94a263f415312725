"""Which triangle is seen at which sample: a z-buffer drawn scanline by scanline, four samples a pixel.

PixelSamples of a pixel lie on a rotated grid: every sample has a row and a column of its own, so that an edge along a row or a column
passes them one by one and its coverage takes five values instead of three. A buffer therefore has four rows a pixel and one column.
Depth is the inverse of the distance for the camera (linear in the picture, larger is nearer), the height towards the light in a shadow map.
"""

import math
from typing import NamedTuple

import numpy as np

from embedded.talking_heads.render.vectors import kernel
from embedded.talking_heads.solids import Camera

SAMPLE_COLUMNS = np.array([0.375, 0.875, 0.125, 0.625], np.float32)  # where in its column the sample of each of the four rows lies
ONE_SAMPLE = np.array([0.5], np.float32)  # the pattern of a depth map with one sample a texel
SAMPLES = 4
NOTHING = -1  # id of a sample without a face
STRAND = -2  # id of a sample that a strand covers
NEAREST = 1.0  # cm: everything is further away from the camera


class PixelSamples(NamedTuple):
    """What is seen at each sample of a picture."""

    depth: np.ndarray  # float32 4h w, inverse distance in 1/cm; 0 where nothing is
    ids: np.ndarray  # int32 4h w: a face, NOTHING or STRAND
    paint: np.ndarray  # float32 4h w 4: colours of strands, weighted by the share of light they hold back, and that share


def empty_samples(width: int, height: int) -> PixelSamples:
    """PixelSamples of a picture in which nothing has been drawn."""
    rows = SAMPLES * height
    return PixelSamples(
        np.zeros((rows, width), np.float32), np.full((rows, width), NOTHING, np.int32), np.zeros((rows, width, 4), np.float32)
    )


def project(points: np.ndarray, camera: Camera, width: int, height: int) -> np.ndarray:
    """Points (... 3) cm in front of the camera -> (... 3) float32: x and y in pixels, inverse distance in 1/cm."""
    screen = camera.project(points, width, height)
    screen[..., 2] = 1.0 / np.maximum(screen[..., 2], NEAREST)
    return screen


@kernel
def _edge(row: int, xa: float, ya: float, xb: float, yb: float) -> float:
    """x where the edge from a to b (a above b) crosses a row."""
    return xa + (row - ya) * ((xb - xa) / (yb - ya))


@kernel
def _by_row(points: np.ndarray, face: np.ndarray) -> tuple[int, int, int]:
    """The corners of a face from the first row to the last."""
    a, b, c = face[0], face[1], face[2]
    if points[b, 1] < points[a, 1]:
        a, b = b, a
    if points[c, 1] < points[a, 1]:
        a, c = c, a
    if points[c, 1] < points[b, 1]:
        b, c = c, b
    return a, b, c


@kernel
def _fill(points: np.ndarray, corners: tuple[int, int, int], columns: np.ndarray, face: int, depth: np.ndarray, ids: np.ndarray) -> None:
    """Draws one triangle whose corners are sorted by row."""
    a, b, c = corners
    count = len(columns)
    height, width = depth.shape
    xa, ya, za = points[a, 0], points[a, 1] * count - 0.5, points[a, 2]
    xb, yb, zb = points[b, 0], points[b, 1] * count - 0.5, points[b, 2]
    xc, yc, zc = points[c, 0], points[c, 1] * count - 0.5, points[c, 2]
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    if abs(area) < 1e-9:
        return
    along_x = ((zb - za) * (yc - ya) - (zc - za) * (yb - ya)) / area
    along_y = ((zc - za) * (xb - xa) - (zb - za) * (xc - xa)) / area
    lowest, highest = min(za, min(zb, zc)), max(za, max(zb, zc))
    for row in range(max(0, math.ceil(ya)), min(height, math.ceil(yc))):
        x0 = _edge(row, xa, ya, xc, yc)
        x1 = _edge(row, xa, ya, xb, yb) if row < yb else _edge(row, xb, yb, xc, yc)
        offset = columns[row % count]
        first = max(0, math.ceil(min(x0, x1) - offset))
        last = min(width, math.ceil(max(x0, x1) - offset))
        for column in range(first, last):
            # slivers seen edge-on have a steep plane: the bounds keep their depth between that of the corners
            z = za + along_x * (column + offset - xa) + along_y * (row - ya)
            z = min(max(z, lowest), highest)
            if z > depth[row, column]:
                depth[row, column] = z
                ids[row, column] = face


@kernel
def draw_faces(points: np.ndarray, faces: np.ndarray, is_one_sided: bool, columns: np.ndarray, depth: np.ndarray, ids: np.ndarray) -> None:
    """Draws triangles into a z-buffer, in place.

    points: float32 v 3: x, y in pixels and a depth, larger is nearer;
    faces: int32 f 3. is_one_sided: leave faces out that are seen from behind.
    columns: float32 n: the place of a sample in its column for each of the n rows of a pixel.
    depth, ids: float32 and int32 (n * height, width).
    """
    rows, width = depth.shape
    height = rows / len(columns)
    for face in range(len(faces)):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        xa, xb, xc = points[a, 0], points[b, 0], points[c, 0]
        ya, yb, yc = points[a, 1], points[b, 1], points[c, 1]
        turn = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if is_one_sided and turn >= 0.0:  # y runs down: counter-clockwise to the viewer is negative here
            continue
        if max(xa, max(xb, xc)) <= 0 or min(xa, min(xb, xc)) >= width or max(ya, max(yb, yc)) <= 0 or min(ya, min(yb, yc)) >= height:
            continue
        _fill(points, _by_row(points, faces[face]), columns, face, depth, ids)
