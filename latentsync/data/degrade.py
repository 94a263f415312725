"""Faces as a mouth reader may meet them: moved, mirrored, hidden in part, recoloured, soft, noisy, compressed; landmarks follow."""

import math

import cv2
import numpy as np

# the mouth's 20 points (landmarks 48..67) in the order in which a mirror shows them
MIRRORED = (*range(6, -1, -1), *range(11, 6, -1), *range(16, 11, -1), *range(19, 16, -1))

# how far faces are moved ...
LARGEST_SHIFT = 0.08  # of the face's side
LARGEST_TURN = math.radians(12)
LARGEST_SCALE = 1.15
# ... and how often each of the others happens
MIRROR, HIDE, RECOLOUR, GREY, SOFTEN, SHRINK, NOISE, COMPRESS = 0.5, 0.25, 0.8, 0.05, 0.4, 0.35, 0.4, 0.5


def degrade(face: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A face uint8 h h 3 (RGB) and the points 20 2 of its mouth in units of its side -> others of the same kind.

    What light and people do comes first, then what a lens, a sensor, an autoencoder and a codec do.
    """
    face, points = move(face, points, rng)
    if rng.random() < MIRROR:
        face, points = mirror(face, points)
    if rng.random() < HIDE:
        face = hide(face, rng)
    values = recolour(face, rng) if rng.random() < RECOLOUR else face.astype(np.float32)
    if rng.random() < SOFTEN:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 2.2) * len(face) / 128)
    if rng.random() < SHRINK:
        values = shrink(values, rng)
    if rng.random() < NOISE:
        values = add_noise(values, rng)
    face = np.clip(values, 0, 255).round().astype(np.uint8)
    if rng.random() < COMPRESS:
        face = compress(face, int(rng.integers(12, 90)))
    return np.ascontiguousarray(face), points.astype(np.float32)


def move(face: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turned and scaled about its middle, and shifted; what comes in from outside repeats the border."""
    side = len(face)
    angle = rng.uniform(-LARGEST_TURN, LARGEST_TURN)
    scale = LARGEST_SCALE ** rng.uniform(-1, 1)
    shift = np.clip(rng.normal(0, LARGEST_SHIFT / 2, 2), -LARGEST_SHIFT, LARGEST_SHIFT)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.full(2, 0.5)
    offset = middle - turn @ middle + shift  # new = turn @ old + offset, in units of the side
    centres = side * offset + turn @ middle - middle  # the same for numbers of pixels, whose centres lie half a pixel in
    matrix = np.column_stack([turn, centres])
    moved = cv2.warpAffine(face, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved, points @ turn.T + offset


def mirror(face: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right changed over; a point that lay on the left is now one on the right, and bears its number."""
    points = points[list(MIRRORED)]
    return face[:, ::-1], np.column_stack([1 - points[:, 0], points[:, 1]])


def hide(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a soft patch before it, of one colour or of another part of the picture: a hand, a microphone, a caption."""
    side = len(face)
    middle = tuple(int(value) for value in rng.uniform([0.1, 0.5], [0.9, 1.0]) * side)
    axes = tuple(int(value) for value in rng.uniform(0.03, 0.16, 2) * side)
    alpha = np.zeros((side, side), np.float32)
    cv2.ellipse(alpha, middle, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.3, 2.0))[..., None]
    patch = np.roll(face, tuple(rng.integers(side, size=2)), axis=(0, 1)) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    return (face + (patch - face.astype(np.float32)) * alpha).round().astype(np.uint8)


def recolour(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Under another light, by another camera: gamma, gain and offset of each channel, saturation. uint8 h w 3 -> float32 h w 3."""
    light = np.linspace(0, 1, 256)[:, None] ** (1.6 ** rng.uniform(-1, 1))  # of each grey level
    table = 255 * light * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.25) + rng.normal(0, 6, 3)
    saturation = 0.0 if rng.random() < GREY else rng.uniform(0.5, 1.4)
    blend = np.full((3, 3), (1 - saturation) / 3) + saturation * np.eye(3)
    return cv2.transform(cv2.LUT(face, table.astype(np.float32)[None]), blend)


def shrink(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Made small and large again."""
    side = len(values)
    small = max(8, round(side * rng.uniform(0.25, 0.8)))
    enlarge = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
    return cv2.resize(cv2.resize(values, (small, small), interpolation=cv2.INTER_AREA), (side, side), interpolation=enlarge)


def add_noise(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With grain of one pixel or of several, as sensors and as half-finished diffusion leave it."""
    side = len(values)
    grain = int(rng.integers(1, 5))
    cells = -(-side // grain)
    noise = np.float32(rng.uniform(1, 14)) * rng.standard_normal((cells, cells, 3), dtype=np.float32)
    return values + cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)


def compress(face: np.ndarray, quality: int) -> np.ndarray:
    """Through JPEG of a quality of 1..100 and back; the codec wants blue first."""
    _, encoded = cv2.imencode(".jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
