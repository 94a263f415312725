"""Where a face is redder, darker, bluer or oilier: broad regions and mottling over the template plane."""

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.skin.brushes import blob, enlarge, noise, polygon, rim_fade, window
from preprocess.talking_heads.skin.complexion import Pigment, mean_blood, melanin_density
from preprocess.talking_heads.template import ALA, BROW, CHIN, EAR, NOSE_TIP, NOSTRIL, plane
from preprocess.talking_heads.traits import Traits, stream

COARSE = 256  # texels a side for what has no fine detail
_BEARD = [(8.6, -2.2), (7.3, -3.2), (6.3, -5.0), (4.7, -6.3), (3.7, -5.9), (2.9, -5.0), (1.4, -4.75), (0.0, -4.85), (0.0, -14.0)]
_BEARD += [(4.5, -13.6), (7.5, -11.0), (9.2, -7.6), (9.3, -4.0)]
_MELANIN_PATCHES = ((3.5, 0.06), (1.4, 0.055), (0.6, 0.04))  # width in cm and spread of the log
_BLOOD_PATCHES = ((2.6, 0.12), (1.1, 0.12), (0.55, 0.10))


def base_pigment(traits: Traits, size: int) -> Pigment:
    """Skin without marks and lips: regions, patches and mottling of melanin and blood (fields of size x size)."""
    rng = stream(traits.seed, "regions")
    s, t = _warped(rng)
    fade, weathered = rim_fade(COARSE, 3.0), _weathered(traits)
    melanin = np.exp((_melanin_pattern(rng, s, t, traits) + weathered * _patches(rng, _MELANIN_PATCHES)) * fade * _contrast(traits))
    blood = np.exp((_blood_pattern(rng, s, t, traits) + weathered * _patches(rng, _BLOOD_PATCHES)) * fade)
    shade = _shade_pattern(rng, s, t, traits)
    blue = _blue_pattern(rng, s, t, traits)
    fade = rim_fade(size, 2.0)
    mottled = 1 + fade * (0.13 * noise(rng, size, 0.28) + 0.10 * noise(rng, size, 0.11))
    grain = 1 + _contrast(traits) * fade * (0.05 * noise(rng, size, 0.5) + 0.05 * noise(rng, size, 0.09))
    return Pigment(
        melanin=enlarge(melanin_density(traits.melanin) * melanin, size) * grain,
        blood=enlarge(mean_blood(traits) * blood, size) * mottled,
        blue=enlarge(blue, size),
        shade=enlarge(shade, size),
    )


def paint_nostrils(pigment: Pigment, size: int) -> None:
    """Dark red holes under the nose."""
    part, s, t = window(size, (-2.0, 2.0), (-4.9, -3.5))
    place = np.abs(s) - NOSTRIL[0]
    hole = np.exp(-(((place / 0.40) ** 2 + ((t - NOSTRIL[1] - 0.25 * place) / 0.17) ** 2) ** 1.5))
    pigment.shade[part] += 1.9 * hole
    pigment.blood[part] += 4.0 * hole


def oiliness(traits: Traits) -> np.ndarray:
    """Factor on the specular light over the plane (float32, coarse), about 0.6 on cheeks .. 1.4 on an oily nose."""
    rng = stream(traits.seed, "oil")
    s, t = _warped(rng)
    oily = rng.uniform(0.15, 0.6)
    zone = blob(s, t, (0, 4.2), (3.0, 2.2)) + blob(s, t, (0, -2.2), (1.1, 2.6)) + 0.6 * blob(s, t, CHIN, (1.4, 1.0))
    zone += 0.35 * (blob(s, t, (4.6, -1.6), (1.4, 1.0)))
    dry = 0.3 * blob(s, t, (3.15, 0.8), (1.6, 0.5)) + 0.12 * blob(s, t, (5.0, -5.0), (2.2, 2.2))
    return (0.85 + oily * np.minimum(zone, 1.1) - dry + 0.05 * noise(rng, COARSE, 1.2)).astype(np.float32)


def beard_area(size: int) -> np.ndarray:
    """Where a beard would grow: upper lip, chin, jaw, upper throat (float32 size size, 0..1, soft)."""
    inside = polygon(size, _BEARD, 0.6)
    s, t = plane(size)
    mouth = np.exp(-(((s / 2.75) ** 2 + ((t + 6.65) / 1.02) ** 2) ** 3))
    return (inside * (1 - mouth)).astype(np.float32)


def stubble_strength(traits: Traits) -> float:
    """Density of the shade of a shaved beard, 0 .. 0.4: masculine people, most with dark hair on pale skin."""
    man = float(smooth(0.55, 0.3, np.array(traits.femininity)))
    dark = float(np.clip(1.1 - 2.2 * float(traits.hair_colour.mean()), 0.25, 1)) * (1 - 0.5 * traits.grey)
    grown = stream(traits.seed, "stubble").beta(1.6, 1.8)
    return 0.42 * man * dark * float(np.clip((traits.age - 14) / 8, 0, 1)) * float(grown) * (1 - 0.3 * traits.melanin)


def _warped(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """|s| and t of the coarse plane, warped so that no region is a clean ellipse and no face is symmetric."""
    s, t = plane(COARSE)
    bend = 0.30 * noise(rng, COARSE, 2.2) + 0.10 * noise(rng, COARSE, 0.8)
    lift = 0.30 * noise(rng, COARSE, 2.2) + 0.10 * noise(rng, COARSE, 0.8)
    return np.abs(s + 0.5 * bend), t + 0.5 * lift


def _patches(rng: np.random.Generator, weights: tuple[tuple[float, float], ...]) -> np.ndarray:
    return sum(weight * noise(rng, COARSE, cell) for cell, weight in weights)


def _weathered(traits: Traits) -> float:
    """How uneven sun and years have made the colour, 0.7 .. 2."""
    return float(stream(traits.seed, "weathered").uniform(0.7, 1.2) * (1 + 0.7 * np.clip((traits.age - 25) / 50, 0, 1)))


def _contrast(traits: Traits) -> float:
    """Factor on relative differences of the melanin: what is seen are differences of the density, which is large in dark skin."""
    return 1 / (1 + 0.9 * melanin_density(traits.melanin))


def _melanin_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Log of the melanin's factor."""
    tone = 0.5 + 0.7 * traits.melanin
    pattern = 0.13 * blob(s, t, (0, 5.0), (6.0, 2.6)) - 0.08 * blob(s, t, (4.2, -3.0), (2.4, 2.0))
    pattern += rng.uniform(0.10, 0.45) * blob(s, t, (3.1, 0.2), (2.0, 1.25))
    pattern += rng.uniform(0.05, 0.25) * blob(s, t, (0, -6.6), (3.6, 2.1)) + 0.10 * blob(s, t, (0, -2.0), (0.9, 2.4))
    pattern += 0.18 * smooth(-10.5, -12.5, t) - 0.12 * smooth(6.5, 8.5, t) + 0.12 * blob(s, t, (9.0, 0.0), (2.0, 4.0))
    return tone * pattern


def _blood_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Log of the blood's factor: flushed cheeks, nose, ears, chin and lids; a forehead that is yellower."""
    flush = rng.uniform(0.55, 1.25) * (0.75 + 0.5 * traits.redness)
    pattern = rng.uniform(0.45, 0.85) * blob(s, t, (4.1, -3.0), (2.1, 1.7)) - 0.28 * blob(s, t, (0, 4.6), (5.0, 2.4))
    pattern += 0.55 * blob(s, t, NOSE_TIP, (1.2, 1.0)) + 0.60 * blob(s, t, ALA, (0.65, 0.6)) + 0.20 * blob(s, t, (0, -1.5), (0.7, 1.5))
    pattern += (
        0.30 * blob(s, t, CHIN, (1.6, 1.1)) + 0.45 * blob(s, t, (3.1, 0.75), (1.6, 0.55)) + 0.25 * blob(s, t, (3.0, -0.8), (1.5, 0.5))
    )
    pattern += 0.50 * blob(s, t, EAR, (1.8, 3.0)) - 0.12 * blob(s, t, (0, -5.2), (1.0, 0.5)) - 0.2 * blob(s, t, (7.2, -4.5), (2.0, 2.5))
    pattern += rng.uniform(-0.1, 0.35) * smooth(-11.0, -13.5, t)
    return flush * pattern


def _blue_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Rings under the eyes (by age and person), temples, and the roots of a shaved beard."""
    tired = rng.beta(1.6, 2.6) * (0.65 + 0.5 * float(np.clip((traits.age - 25) / 40, 0, 1)))
    rings = 0.42 * tired * (blob(s, t, (2.4, -1.05), (0.95, 0.42)) + 0.45 * blob(s, t, (3.3, -0.95), (1.3, 0.45)))
    socket = 0.10 * blob(s, t, (1.75, 0.35), (0.4, 0.7))
    roots = stubble_strength(traits) * beard_area(COARSE) * np.clip(1 + 0.18 * noise(rng, COARSE, 1.4), 0.4, 1.5)
    return rings + socket + 0.05 * blob(s, t, (7.0, 1.5), (1.0, 1.6)) + roots


def _shade_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Hollows that light hardly reaches, and the shade under the brows' hairs."""
    groove = 0.22 * np.exp(-(((np.hypot(s - 1.35, (t + 3.75) * 1.05) - 0.62) / 0.13) ** 2)) * smooth(1.5, 1.85, s) * smooth(-4.4, -3.9, t)
    socket = 0.10 * blob(s, t, (2.4, 0.95), (1.2, 0.35)) + 0.12 * blob(s, t, (1.6, 0.3), (0.35, 0.6))
    fold = 0.10 * blob(s, t, (0, -8.35), (1.3, 0.28))
    dark = float(np.clip(0.55 - float(traits.hair_colour.mean()), 0.1, 0.5)) * (1 - 0.6 * traits.grey)
    brow = dark * rng.uniform(0.6, 1.1) * _brow_shade(s, t)
    return groove + socket + fold + brow


def _brow_shade(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """1 on the middle line of the brow, soft to the sides."""
    line = np.array(BROW)
    middle = np.interp(s, line[:, 0], line[:, 1])
    ends = smooth(line[0, 0] - 0.25, line[0, 0] + 0.45, s) * (1 - smooth(line[-1, 0] - 0.9, line[-1, 0] + 0.1, s))
    return ends * np.exp(-(((t - middle) / 0.30) ** 2))
