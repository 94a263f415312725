"""How hair looks: its colour strand by strand, its taper, and how much light reaches it through the hair above."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.traits import Traits, stream

_GREY = np.array([0.40, 0.385, 0.36])
_DYES = np.array(
    [[0.013, 0.009, 0.008], [0.16, 0.035, 0.018], [0.42, 0.29, 0.13], [0.06, 0.012, 0.016], [0.09, 0.045, 0.02]]
)  # black, copper, blond, ...


@dataclass(frozen=True)
class Tint:
    """The colours of a person's hair, linear RGB."""

    base: np.ndarray  # float32 3
    streak: np.ndarray  # float32 3: bleached by sun or dyed
    streaks: float  # share of strands
    grey: float  # share of grey strands


def draw_tint(traits: Traits) -> Tint:
    """The colour on the head: natural, sometimes dyed or streaked; women hide grey more often."""
    rng = stream(traits.seed, "hair tint")
    base, grey = traits.hair_colour.astype(np.float64), traits.grey
    covered = rng.random() < 0.5 * traits.femininity
    dyed = rng.random() < 0.01 + 0.13 * traits.femininity
    dye = _DYES[rng.integers(len(_DYES))]
    base = dye if dyed else base
    grey = 0.08 * grey if covered or dyed else grey
    lighter = np.minimum(base * rng.uniform(1.5, 2.6) + 0.01, 0.6)
    streaks = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.05 + 0.45 * traits.femininity else 0.0
    return Tint(base.astype(np.float32), lighter.astype(np.float32), streaks, grey)


def mean_colour(tint: Tint) -> np.ndarray:
    """What hair of a tint looks like from afar: linear RGB (float32 3)."""
    return (tint.base + tint.grey * (_GREY - tint.base)).astype(np.float32)


def natural_tint(traits: Traits, darker: float, grey: float) -> Tint:
    """Undyed hair elsewhere than on the scalp: `darker` is a factor, `grey` a share of grey hairs."""
    return Tint((traits.hair_colour * darker).astype(np.float32), traits.hair_colour, 0.0, grey)


def colours(tint: Tint, clump: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB (float32 n 3) of strands: shades vary from clump (int n) to clump and from hair to hair."""
    count = len(clump)
    mix = 0.6 * rng.random(count)[clump] + 0.4 * rng.random(count)
    streak = (mix > 0.85 - 0.6 * tint.streaks)[:, None] & (tint.streaks > 0)
    colour = (
        np.where(streak, tint.streak, tint.base) * np.exp(0.16 * rng.normal(size=count)[clump] + 0.16 * rng.normal(size=count))[:, None]
    )
    if tint.grey > 0.02:  # a drawn strand stands for several hairs, so most are a mixture
        share = tint.grey + 0.10 * rng.normal(size=count)[clump] + 0.16 * rng.normal(size=count)
        share = np.where(rng.random(count) < 0.12, rng.random(count) < tint.grey, np.clip(share, 0, 1))
        colour = colour + share[:, None] * (_GREY * np.exp(0.15 * rng.normal(size=(count, 1))) - colour)
    return colour.clip(0.003, 0.75).astype(np.float32)


def taper(radius: float, points: int, size: np.ndarray, tip: float = 0.25) -> np.ndarray:
    """Radii (float32 n points, cm): half at the root, full in the middle, the share `tip` at the tip; `size` (n) is a factor a strand."""
    along = np.linspace(0, 1, points)
    return (radius * size[:, None] * (1 - 0.5 * smooth(0.2, 0.0, along) - (1 - tip) * along**2.5)).astype(np.float32)


def buried(points: np.ndarray, radius: np.ndarray, middle: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Share of light (float32 n k, 0..1) that reaches each point of strands (n k 3) through the hair further out.

    The hair's drawn area is gathered in a grid over directions and distances from the head's middle; light fades with what lies outside.
    """
    rows, columns, shells, step = 32, 64, 40, 0.45
    offset = points - middle
    distance = np.linalg.norm(offset, axis=-1)
    row = (np.arccos(np.clip(offset[..., 1] / distance, -1, 1)) * rows / np.pi).astype(np.int32).clip(0, rows - 1)
    column = (np.arctan2(offset[..., 0], offset[..., 2]) * columns / (2 * np.pi)).astype(np.int32) % columns
    depth = (distance - 6.0) / step
    shell = depth.astype(np.int32).clip(0, shells - 2)
    length = np.linalg.norm(np.diff(points, axis=1, append=points[:, -1:]), axis=-1)
    cell = (row * columns + column) * shells + shell
    share = np.sin((row + 0.5) * np.pi / rows) * distance**2 * (np.pi / rows) * (2 * np.pi / columns)  # cm2 of a cell
    area = np.bincount(cell.ravel(), (2 * radius * length / share).ravel(), rows * columns * shells).reshape(rows, columns, shells)
    area = gaussian_filter(area, (0.8, 0.8, 0.7), mode=("nearest", "wrap", "nearest"), truncate=2.5)
    above = np.flip(np.cumsum(np.flip(area, 2), 2), 2) - 0.5 * area
    place = np.clip(depth - shell, 0, 1)
    flat = above.ravel()
    through = flat[cell] * (1 - place) + flat[cell + 1] * place
    return (0.22 + 0.78 * np.exp(-0.42 * strength * through)).astype(np.float32)
