"""What clothes are made of: colours, weaves, patterns and folds as textures over the front of the bust."""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.talking_heads.solids import Material

LEFT, TOP, WIDTH, HEIGHT = -25.0, -12.0, 50.0, 36.0  # cm, the part of the picture plane that textures of clothes cover
TEXELS = 256

# Dyes, linear RGB: what shops sell most of first (black, navy, greys, white), vivid ones last
_DYES = np.array(
    [
        [0.012, 0.012, 0.014],
        [0.016, 0.024, 0.058],
        [0.055, 0.057, 0.062],
        [0.21, 0.21, 0.22],
        [0.74, 0.73, 0.70],
        [0.045, 0.075, 0.14],
        [0.42, 0.38, 0.30],
        [0.10, 0.065, 0.04],
        [0.055, 0.075, 0.045],
        [0.10, 0.014, 0.022],
        [0.26, 0.37, 0.52],
        [0.45, 0.30, 0.29],
        [0.033, 0.13, 0.12],
        [0.40, 0.050, 0.040],
        [0.52, 0.31, 0.055],
        [0.16, 0.24, 0.11],
        [0.16, 0.08, 0.20],
        [0.05, 0.18, 0.42],
    ],
    np.float32,
)
_SHIRTS = np.array(
    [[0.74, 0.74, 0.74], [0.44, 0.55, 0.70], [0.62, 0.64, 0.70], [0.66, 0.52, 0.52], [0.05, 0.08, 0.16], [0.015, 0.015, 0.018]], np.float32
)
_SUITS = np.array(
    [[0.014, 0.016, 0.024], [0.02, 0.03, 0.06], [0.05, 0.052, 0.058], [0.12, 0.12, 0.125], [0.15, 0.105, 0.065], [0.045, 0.055, 0.04]],
    np.float32,
)


@dataclass(frozen=True)
class Cloth:
    """What a garment is cut from."""

    colour: np.ndarray  # float32 3, linear RGB
    second: np.ndarray  # float32 3, of stripes, checks and prints
    pattern: str  # plain, melange, stripes, pinstripes, check, dots, band
    weave: str  # jersey, woven, knit, wool


def dye(rng: np.random.Generator, kind: str = "any") -> np.ndarray:
    """A believable colour (float32 3, linear RGB) of casual clothes, of a `shirt` or of a `suit`."""
    table = {"any": _DYES, "shirt": _SHIRTS, "suit": _SUITS}[kind]
    place = rng.beta(0.9, 1.6) if kind == "any" else rng.beta(0.8, 1.5)
    colour = table[min(int(len(table) * place), len(table) - 1)]
    return np.clip(colour * np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.06, 3)), 0.008, 0.82).astype(np.float32)


def front_uv(points: np.ndarray) -> np.ndarray:
    """Texture coordinates (... 2) of points (... 3): a projection along z, so that patterns run straight over the chest."""
    return np.stack([(points[..., 0] - LEFT) / WIDTH, (TOP - points[..., 1]) / HEIGHT], -1).astype(np.float32)


def _plane() -> tuple[np.ndarray, np.ndarray]:
    """x and y in cm (float32 h w) at the texels."""
    middle = (np.arange(TEXELS, dtype=np.float32) + 0.5) / TEXELS
    return np.meshgrid(LEFT + WIDTH * middle, TOP - HEIGHT * middle)


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise (float32 h w) of unit variance at the grid, `cells` across."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (TEXELS, TEXELS), interpolation=cv2.INTER_CUBIC)


def folds(rng: np.random.Generator, looseness: float) -> np.ndarray:
    """Height of soft folds in cm (float32 h w): drawn from armpits and shoulders towards the chest, hanging down below it."""
    x, y = _plane()
    x = x + 0.5 * _noise(rng, 9)
    y = y + 0.5 * _noise(rng, 9)
    height = np.zeros_like(x)
    for _ in range(int(10 + 14 * looseness)):
        side = rng.choice([-1.0, 1.0])
        if rng.random() < 0.6:  # from the armpit
            start = np.array([side * rng.uniform(11, 16), rng.uniform(-34, -27)])
            end = np.array([side * rng.uniform(-1, 9), start[1] + rng.uniform(-5, 8)])
        elif rng.random() < 0.6:  # hanging down
            start = np.array([side * rng.uniform(1, 12), rng.uniform(-32, -24)])
            end = start + np.array([rng.normal(0, 2.5), -rng.uniform(8, 18)])
        else:  # across the sleeve
            start = np.array([side * rng.uniform(15, 19), rng.uniform(-42, -28)])
            end = start + np.array([side * rng.uniform(2, 6), rng.normal(0, 3)])
        along, away = _along(x, y, start, end, bend=rng.normal(0, 0.12))
        width = rng.uniform(0.5, 1.3)
        taper = np.clip(along * 4, 0, 1) * np.clip((1 - along) * 1.6, 0, 1)
        ridge = np.exp(-((away / width) ** 2)) - 0.6 * np.exp(-(((away - 1.6 * width) / (1.3 * width)) ** 2))
        height += rng.uniform(0.08, 0.26) * looseness * taper * ridge
    return (height + 0.03 * looseness * _noise(rng, 14)).astype(np.float32)


def _along(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way from start to end and signed distance in cm from that (bent) line, for every texel."""
    length = float(np.hypot(*(end - start)))
    direction = (end - start) / length
    along = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1]) / length
    away = -(x - start[0]) * direction[1] + (y - start[1]) * direction[0]
    return along, away + 4 * bend * length * along * (1 - along)


def _drawn(rng: np.random.Generator, cloth: Cloth) -> np.ndarray:
    """Weight of the second colour (float32 h w, 0 .. 1)."""
    x, y = _plane()
    x = x + 0.12 * _noise(rng, 8)
    y = y + 0.25 * _noise(rng, 6) + 0.012 * x * x  # stripes sag around the body
    period = rng.uniform(1.6, 4.5)
    if cloth.pattern == "stripes":
        return _wave(y, period, rng.uniform(0.25, 0.5))
    if cloth.pattern == "pinstripes":
        return 0.8 * _wave(x, rng.uniform(0.9, 1.6), 0.25)
    if cloth.pattern == "check":
        return 0.5 * _wave(x, period, 0.45) + 0.5 * _wave(y, period, 0.45)
    if cloth.pattern == "dots":
        across, row = x / period, y / (0.8 * period)
        column = across + 0.5 * (np.floor(row) % 2)
        spot = np.hypot(column % 1 - 0.5, (row % 1 - 0.5) * 0.8)
        return np.clip((0.22 - spot) / 0.05, 0, 1)
    if cloth.pattern == "band":
        return np.clip((rng.uniform(2.5, 4.5) - np.abs(y - 0.012 * x * x + rng.uniform(33, 36))) / 0.15, 0, 1)
    return np.clip(0.4 + 0.13 * _noise(rng, TEXELS) + 0.05 * _noise(rng, 50), 0, 1) if cloth.pattern == "melange" else np.zeros_like(x)


def _wave(position: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 inside stripes that take `share` of every `period`, with soft edges of a texel."""
    place = np.abs(position / period % 1 - 0.5)
    return np.clip((0.5 * share - place) * period / (WIDTH / TEXELS) + 0.5, 0, 1)


_WEAVES = {  # amplitude in cm, repeats over the texture's width, roughness
    "jersey": (0.006, 90, 0.82),
    "woven": (0.004, 110, 0.72),
    "knit": (0.045, 62, 0.9),
    "wool": (0.012, 70, 0.92),
}


def weave_tile(weave: str) -> np.ndarray:
    """Height in cm (float32 32 32) of one repeat of a weave: V-shaped stitches of knits, a twill otherwise."""
    amplitude = _WEAVES[weave][0]
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 32
    if weave in ("knit", "jersey"):
        leg = np.abs(x - 0.5)
        stitch = np.cos(2 * np.pi * (2 * (y + 0.9 * leg))) * 0.35 + np.cos(4 * np.pi * (x - 0.25)) * -0.65
        return (amplitude * stitch).astype(np.float32)
    return (amplitude * np.sin(2 * np.pi * 2 * (x + y)) * np.cos(2 * np.pi * 2 * (x - y))).astype(np.float32)


def cut(rng: np.random.Generator, cloth: Cloth, looseness: float, placket: bool = False, two_sided: bool = False) -> Material:
    """The cloth as a material over the front of the bust, with folds; `placket` adds the buttoned edge of a shirt down the middle."""
    albedo = cloth.colour + _drawn(rng, cloth)[..., None] * (cloth.second - cloth.colour)
    albedo = albedo * (1 + 0.05 * _noise(rng, 20) + 0.03 * _noise(rng, TEXELS))[..., None]
    bump = folds(rng, looseness)
    if placket:
        albedo, bump = _add_placket(albedo, bump)
    _, repeat, roughness = _WEAVES[cloth.weave]
    return Material(
        albedo=np.clip(albedo, 0.005, 0.9).astype(np.float32),
        roughness=roughness,
        specular=0.022,
        scatter=(0.12, 0.12, 0.12) if cloth.weave in ("knit", "wool") else (0.04, 0.04, 0.04),
        bump=bump,
        detail=weave_tile(cloth.weave),
        detail_repeat=float(repeat),
        two_sided=two_sided,
    )


def _add_placket(albedo: np.ndarray, bump: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A strip 3.2 cm wide with two seams and a button every 8 cm."""
    x, y = _plane()
    edge = np.exp(-(((np.abs(x) - 1.6) / 0.16) ** 2))
    seam = np.exp(-(((np.abs(x) - 1.25) / 0.12) ** 2))
    albedo = albedo * (1 - 0.35 * edge - 0.1 * seam)[..., None]
    bump = bump * np.clip(np.abs(x) / 3, 0.35, 1) + 0.09 * np.clip((1.6 - np.abs(x)) / 0.25, 0, 1)
    radius = np.hypot(x, (y + 22.5) % 8.0 - 4.0)
    button = np.clip((0.55 - radius) / 0.15, 0, 1)[..., None]
    pale = np.clip(0.25 + 0.8 * albedo.mean(), 0, 0.7)
    return albedo * (1 - 0.4 * np.exp(-(((radius - 0.6) / 0.15) ** 2)))[..., None] * (1 - button) + pale * button, bump + 0.08 * button[
        ..., 0
    ]
