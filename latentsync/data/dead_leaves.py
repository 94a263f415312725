"""Dead leaves: pictures of nothing, as many sizes of things, edges and textures as photographs have, drawn by chance alone.

Shapes that hide each other, with areas after a power law, share the statistics of natural images (Lee, Mumford and Huang, International
Journal of Computer Vision 41, 2001); networks that learn from them do well on photographs (Baradad et al., arXiv 2106.05963).
"""

import cv2
import numpy as np

LEAST_RADIUS = (2.0, 12.0)  # pixels, of the smallest shape: between these, so that some pictures are finer than others
LARGEST_SHARE = 0.5  # radius of the largest shape against the side of the picture
PLAIN_RADIUS = 6.0  # pixels: smaller shapes are of one colour
COVER = 1.5  # how many times the shapes together cover the picture
CORNERS = (3, 4, 5, 24)  # of an outline; with the last it is round
FINE = 4  # fractional bits of an outline's coordinates
COLOURS = 24  # of a picture
BLURRED, NOISY = 0.4, 0.3  # shares of the pictures


def dead_leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture uint8 [side side 3]; all chance comes from `rng`."""
    palette, grain = _palette(rng), _grain(rng, side)
    picture = np.zeros((side, side, 3), np.uint8)
    _paint(rng, picture, np.full((side, side), 255, np.uint8), palette[0], grain)
    radii = _radii(rng, side)
    places = rng.uniform(-0.05 * side, 1.05 * side, (len(radii), 2))
    colours = palette[rng.integers(COLOURS, size=len(radii))]
    for radius, place, colour in zip(radii, places, colours, strict=True):
        outline = _outline(rng, radius) + place
        if radius < PLAIN_RADIUS:
            _fill(picture, outline, colour.tolist())
            continue
        low = np.maximum(np.floor(outline.min(0)) - 1, 0).astype(int)
        high = np.minimum(np.ceil(outline.max(0)) + 2, side).astype(int)
        if (low < high).all():
            window = (slice(low[1], high[1]), slice(low[0], high[0]))
            cover = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
            _fill(cover, outline - low, 255)
            _paint(rng, picture[window], cover, colour, grain[window])
    return _finish(rng, picture)


def _radii(rng: np.random.Generator, side: int) -> np.ndarray:
    """Radii in pixels, density proportional to the inverse cube, until the areas add up to COVER pictures."""
    least, largest = np.exp(rng.uniform(*np.log(LEAST_RADIUS))) ** -2, (LARGEST_SHARE * side) ** -2
    mean_area = np.pi * np.log(least / largest) / (least - largest)
    count = int(np.ceil(COVER * side * side / mean_area))
    return (least - rng.random(count) * (least - largest)) ** -0.5


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Corners of a shape around the origin, in order: n 2, x and y in pixels. Some are long and thin, some round and dented."""
    corners = CORNERS[rng.integers(len(CORNERS))]
    chance = rng.random(5)
    angles = np.arange(corners) * (2 * np.pi / corners)
    if corners < CORNERS[-1]:
        angles, reach = angles + rng.uniform(-0.4, 0.4, corners) * (2 * np.pi / corners), radius
    else:
        reach = radius * (1 + 0.3 * chance[0] * np.sin(angles * int(1 + 5 * chance[1]) + 2 * np.pi * chance[2]))
    stretch, turn = np.exp(2 * chance[3] - 1), 2 * np.pi * chance[4]
    x, y = reach * np.cos(angles) * stretch, reach * np.sin(angles) / stretch
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)


def _fill(picture: np.ndarray, outline: np.ndarray, value: float | list[float]) -> None:
    """Fill an outline with a value or colour, in place, with smooth edges."""
    cv2.fillPoly(picture, [np.round(outline * 2**FINE).astype(np.int32)], value, lineType=cv2.LINE_AA, shift=FINE)


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Colours of a picture, float32 k 3 in 0 to 255: around one or two tints, brightness spread wide."""
    tints = rng.normal(0, rng.uniform(5, 40), (2, 3))
    light = rng.uniform(10, 245, (COLOURS, 1))
    colours = light + tints[rng.integers(2, size=COLOURS)] + rng.normal(0, rng.uniform(0, 25), (COLOURS, 3))
    return colours.clip(0, 255).astype(np.float32)


def _grain(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of all sizes with equal strength in each octave, float32 [side side], standard deviation 1."""
    field = np.zeros((side, side), np.float32)
    cells = 2
    while cells <= side:
        field += cv2.resize(rng.standard_normal((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        cells *= 2
    return (field - field.mean()) / field.std()


def _paint(rng: np.random.Generator, part: np.ndarray, cover: np.ndarray, colour: np.ndarray, grain: np.ndarray) -> None:
    """Paint a shape into part of a picture [h w 3], in place, as far as `cover` [h w] says: shaded, plain, grainy or striped."""
    height, width = cover.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    slope = rng.normal(0, 20, 2)
    light = slope[0] * (x / width - 0.5) + slope[1] * (y / height - 0.5)
    kind = rng.random()
    if kind < 0.5:
        light = light + grain * rng.exponential(10)
    elif kind < 0.65:
        turn, length = rng.uniform(0, np.pi), rng.uniform(3, 20)
        light = light + rng.exponential(25) * np.sin((x * np.cos(turn) + y * np.sin(turn)) * (2 * np.pi / length))
    fill = colour + light.astype(np.float32)[..., None]
    part[:] = (part + (fill.clip(0, 255) - part) * (cover[..., None] / np.float32(255))).round()


def _finish(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """What lenses and sensors do: some pictures are a little blurred, some noisy."""
    seen = picture.astype(np.float32)
    if rng.random() < BLURRED:
        seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < NOISY:
        seen = seen + rng.standard_normal(seen.shape, np.float32) * np.float32(rng.uniform(0, 8))
    return seen.clip(0, 255).round().astype(np.uint8)
