"""Materials packed for the shading kernel: one pyramid of texels for all surfaces, one for all detail tiles.

A texel of a surface holds red, green, blue, gloss and the slopes of the bump map along u and v (cm per unit of uv), that of a tile two
slopes. Slopes instead of heights can be averaged: a bump that is too fine for the picture fades out in the smaller levels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.talking_heads.render.vectors import kernel
from preprocess.talking_heads.solids import Material

# Columns of the table of surfaces
ROUGHNESS, SPECULAR, SCATTER, DETAIL_REPEAT, TWO_SIDED, HAS_BUMP, HAS_DETAIL = 0, 1, 2, 5, 6, 7, 8
COLUMNS = 9


class Textures(NamedTuple):
    """All materials of a mesh."""

    texels: np.ndarray  # float32 n 6
    texel_levels: np.ndarray  # int32 m l 3: first texel, height and width of each level of each material; unused levels repeat the last
    tiles: np.ndarray  # float32 n 2
    tile_levels: np.ndarray  # int32 m l 3
    surface: np.ndarray  # float32 m 9, see the columns above


def _slopes(height: np.ndarray, wraps: bool) -> np.ndarray:
    """Slopes (h w 2) along u and v of a height map, per unit of uv."""
    border = cv2.BORDER_WRAP if wraps else cv2.BORDER_REPLICATE
    rim = cv2.copyMakeBorder(np.asarray(height, np.float32), 1, 1, 1, 1, border)
    rows, columns = height.shape
    along_u = (rim[1:-1, 2:] - rim[1:-1, :-2]) * (0.5 * columns)
    along_v = (rim[2:, 1:-1] - rim[:-2, 1:-1]) * (0.5 * rows)
    return np.stack([along_u, along_v], -1)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at height x width."""
    if image.shape[:2] == size:
        return np.asarray(image, np.float32)
    return cv2.resize(np.asarray(image, np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _surface_image(material: Material) -> np.ndarray:
    """The texels (h w 6) of a material at the resolution of its finest map."""
    maps = [image for image in (material.albedo, material.bump, material.gloss) if image is not None]
    size = (max(image.shape[0] for image in maps), max(image.shape[1] for image in maps))
    image = np.empty((*size, 6), np.float32)
    image[..., :3] = _resized(material.albedo, size)
    image[..., 3] = 1.0 if material.gloss is None else _resized(material.gloss, size)
    image[..., 4:] = 0.0 if material.bump is None else _slopes(_resized(material.bump, size), wraps=False)
    return image


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    """The image and its halves down to one texel."""
    levels = [image]
    while max(levels[-1].shape[:2]) > 1:
        height, width = (max(1, size // 2) for size in levels[-1].shape[:2])
        smaller = _halved(levels[-1], height, width)
        levels.append(smaller.reshape(height, width, image.shape[2]))
    return levels


def _halved(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image averaged down to a size; channels in groups of three, the most the resampler is quick with."""
    groups = [image[..., first : first + 3] for first in range(0, image.shape[2], 3)]
    resized = [cv2.resize(np.ascontiguousarray(group), (width, height), interpolation=cv2.INTER_AREA) for group in groups]
    return np.concatenate([part.reshape(height, width, -1) for part in resized], -1)


def _packed(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Texels (n c) of the pyramids of all images, and the table of their levels (m l 3)."""
    pyramids = [_pyramid(image) for image in images]
    table = np.zeros((len(images), max(len(pyramid) for pyramid in pyramids), 3), np.int32)
    start, texels = 0, []
    for index, pyramid in enumerate(pyramids):
        for level, image in enumerate(pyramid):
            table[index, level:] = start, *image.shape[:2]
            texels.append(image.reshape(-1, image.shape[2]))
            start += len(texels[-1])
    return np.concatenate(texels), table


def pack(materials: Sequence[Material]) -> Textures:
    """Packs the materials of a mesh, in order."""
    surface = np.zeros((len(materials), COLUMNS), np.float32)
    for row, material in zip(surface, materials, strict=True):
        row[:SCATTER] = material.roughness, material.specular
        row[SCATTER:DETAIL_REPEAT] = material.scatter
        row[DETAIL_REPEAT:] = material.detail_repeat, material.two_sided, material.bump is not None, material.detail is not None
    flat = np.zeros((1, 1, 2), np.float32)
    tiles = [flat if material.detail is None else _slopes(material.detail, wraps=True) for material in materials]
    return Textures(*_packed([_surface_image(material) for material in materials]), *_packed(tiles), surface)


@kernel
def _texel(index: int, size: int, wraps: bool) -> int:
    """A texel's index brought into the image: round the rim for a tile, held at it for a surface."""
    return index % size if wraps else min(max(index, 0), size - 1)


@kernel
def _bilinear(
    texels: np.ndarray, start: int, height: int, width: int, uv: tuple[float, float], wraps: bool, out: np.ndarray, weight: float
) -> None:
    """Adds `weight` times the texel at (u, v) of one level, which begins at texel `start`, to `out`."""
    x, y = uv[0] * width - 0.5, uv[1] * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    left, right = _texel(x0, width, wraps), _texel(x0 + 1, width, wraps)
    above, below = start + _texel(y0, height, wraps) * width, start + _texel(y0 + 1, height, wraps) * width
    w00, w01 = weight * (1.0 - fx) * (1.0 - fy), weight * fx * (1.0 - fy)
    w10, w11 = weight * (1.0 - fx) * fy, weight * fx * fy
    for channel in range(len(out)):
        out[channel] += (
            w00 * texels[above + left, channel]
            + w01 * texels[above + right, channel]
            + w10 * texels[below + left, channel]
            + w11 * texels[below + right, channel]
        )


@kernel
def sample(
    texels: np.ndarray, levels: np.ndarray, material: int, uv: tuple[float, float], wraps: bool, footprint: float, out: np.ndarray
) -> None:
    """Sets `out` (float32 c) to the texel of a material at (u, v), averaged over a footprint.

    levels: int32 m l 3, the pyramids of all materials. wraps: beyond the rim the image starts anew (a tile) or its rim goes on (a surface).
    footprint: width of a pixel in units of uv. Between two levels the result is blended.
    """
    size = footprint * math.sqrt(levels[material, 0, 1] * levels[material, 0, 2])
    last = levels.shape[1] - 1
    level = min(math.log2(size), float(last)) if size > 1.0 else 0.0
    low = int(level)
    blend = level - low
    if blend < 0.03:
        blend = 0.0
    for channel in range(len(out)):
        out[channel] = 0.0
    start, height, width = levels[material, low, 0], levels[material, low, 1], levels[material, low, 2]
    _bilinear(texels, start, height, width, uv, wraps, out, 1.0 - blend)
    if blend > 0.0:
        low = min(low + 1, last)
        start, height, width = levels[material, low, 0], levels[material, low, 1], levels[material, low, 2]
        _bilinear(texels, start, height, width, uv, wraps, out, blend)


def uv_density(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Units of uv per cm of surface around each vertex (float32 v): the geometric mean of both directions."""
    corner, texture = vertices[faces], uv[faces]
    sides, turns = corner[:, 1:] - corner[:, :1], texture[:, 1:] - texture[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    texture_area = np.abs(turns[:, 0, 0] * turns[:, 1, 1] - turns[:, 0, 1] * turns[:, 1, 0])
    sums = [np.bincount(faces.reshape(-1), np.repeat(values, 3), len(vertices)) for values in (area, texture_area)]
    return np.sqrt(sums[1] / np.maximum(sums[0], 1e-12)).astype(np.float32)
