"""Paints a person's skin on the template plane: pigments, relief and shine."""

from dataclasses import dataclass

import numpy as np

from embedded.talking_heads.face import red_height
from embedded.talking_heads.pigment import (
    WRINKLE_DEPTH,
    Pigment,
    blob,
    carotene,
    colour,
    crease,
    curve,
    enlarge,
    mean_blood,
    melanin_density,
    noise,
    paint_blemishes,
    polygon,
    rim_fade,
    tile_noise,
    window,
    wrinkle_strength,
    wrinkles,
)
from embedded.talking_heads.solids import Material
from embedded.talking_heads.template import (
    ALA,
    BROW,
    CHIN,
    EAR,
    INNER_CANTHUS,
    MOUTH_CORNER,
    NOSE_TIP,
    NOSTRIL,
    OUTER_CANTHUS,
    lid_height,
    plane,
)
from embedded.talking_heads.traits import Traits, smooth, stream

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


def margin_distance(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rough distance in cm to the margin of the lids, negative in the opening, and a mask: 1 above the corners' line, 0 below."""
    u = np.clip(2 * (np.abs(s) - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0]) - 1, -1, 1)
    line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (u + 1) / 2
    top, bottom = line + lid_height(u, np.array(True)), line - lid_height(u, np.array(False))
    aside = np.maximum(np.abs(s) - OUTER_CANTHUS[0], 0) + np.maximum(INNER_CANTHUS[0] - np.abs(s), 0)
    vertical = np.maximum(t - top, bottom - t) * np.where(aside > 0, 1.0, 0.85)  # 0.85: the margin slopes
    distance = np.where(aside > 0, np.hypot(aside, np.maximum(vertical, 0)), vertical)
    return distance, smooth(-0.05, 0.05, t - line)


def paint_eyelids(traits: Traits, pigment: Pigment, wet: np.ndarray, size: int) -> None:
    """Paints both eyes' surroundings; `wet` (h w, 0..1) is raised at the margin and in the inner corner."""
    rng = stream(traits.seed, "eyelids")
    lash = rng.uniform(0.55, 1.0) * (0.8 + 0.3 * traits.femininity)
    pink = rng.uniform(0.7, 1.3)
    for side in (-1, 1):
        part, s, t = window(size, (min(side * 0.8, side * 6.2), max(side * 0.8, side * 6.2)), (-1.3, 1.4))
        place = np.abs(s)
        distance, upper = margin_distance(s, t)
        lashes = np.exp(-((np.maximum(distance - 0.02, 0) / 0.075) ** 2)) * smooth(INNER_CANTHUS[0] + 0.05, 2.4, place)
        lashes *= 1 - smooth(OUTER_CANTHUS[0] + 0.05, OUTER_CANTHUS[0] + 0.3, place)
        pigment.shade[part] += lash * lashes * (0.18 + 1.0 * upper)
        margin = np.exp(-((np.maximum(distance, 0) / 0.05) ** 2)) * (1 - 0.8 * upper)
        caruncle = blob(place, t, (INNER_CANTHUS[0] + 0.06, INNER_CANTHUS[1]), (0.20, 0.14))
        pigment.blood[part] += pink * (2.0 * margin + 3.5 * caruncle)
        pigment.melanin[part] *= 1 - np.minimum(0.4 * margin + 0.6 * caruncle, 0.8)
        pigment.shade[part] += 0.15 * caruncle
        wet[part] = np.maximum(wet[part], np.maximum(0.7 * margin, 0.8 * caruncle))


def lid_folds(traits: Traits, lid_crease: float, depth: np.ndarray) -> None:
    """Adds the fold of the upper lid and the lines below the eye to a field of creases (cm, positive is deep).

    lid_crease: cm from the margin of the upper lid to its fold.
    """
    rng = stream(traits.seed, "lid folds")
    age = float(np.clip((traits.age - 25) / 45, 0, 1))
    fold = np.interp(np.linspace(0, 6, 15), range(7), [0.2, 0.8, 1.0, 1.0, 0.9, 0.5, 0.0])
    for side in (-1, 1):
        middle = lid_crease + 0.02 * rng.normal()
        path = curve(
            [(1.75, 0.2), (2.3, 0.30 + middle), (3.1, 0.50 + middle), (3.9, 0.42 + middle), (4.6, 0.15 + 0.6 * middle), (5.0, 0.1)], 15
        )
        crease(depth, path * (side, 1), 0.09, 0.03 * fold)
        for k in range(1 + round(2.5 * age)):
            drop = 0.38 + 0.27 * k + 0.05 * rng.normal()
            arc = curve(
                [(1.9 + 0.1 * k, -0.35 - drop), (3.0, -0.55 - drop), (3.9 + 0.1 * rng.normal(), -0.35 - drop), (4.6, -drop + 0.1)], 8
            )
            strength = (0.010 + 0.022 * age) * rng.uniform(0.5, 1.0) * np.sin(np.linspace(0.25, np.pi, 8)).clip(0)
            crease(depth, arc * (side, 1), 0.10 + 0.02 * k, strength)


_SLIT = MOUTH_CORNER[1]


@dataclass(frozen=True)
class LipPatch:
    """The mouth's part of the texture."""

    part: tuple[slice, slice]  # rows and columns of the texture
    red: np.ndarray  # float32 h w: share of lip against skin, 0..1
    bump: np.ndarray  # float32 h w, height in cm to add
    wet: np.ndarray  # float32 h w, 0 (skin) .. 1 (wet)


def paint_lips(traits: Traits, pigment: Pigment, size: int) -> LipPatch:
    """Changes the pigment to that of lips inside their border and returns the patch with its relief and moisture."""
    rng = stream(traits.seed, "lip colour")
    part, s, t = window(size, (-3.6, 3.6), (-8.9, -4.9))
    uneven = noise(rng, size, 0.35)[part]
    depth, height = _inside(s, t, uneven)
    upper = smooth(-0.10, 0.06, t - _SLIT)
    red = smooth(-0.07, rng.uniform(0.07, 0.14), depth)
    toward_slit = 1 - np.clip(np.abs(t - _SLIT) / np.maximum(height, 0.15), 0, 1)
    inner = smooth(0.70, 0.98, toward_slit) * (np.abs(s) < MOUTH_CORNER[0])
    lines = _lines(rng, traits, s, t, size, part) * red
    _blend(pigment, part, red, _lip_pigment(traits, rng, upper, toward_slit, inner, lines, uneven))
    roll = np.exp(-(((depth + 0.09) / 0.09) ** 2)) * (1 - smooth(1.5, 2.6, np.abs(s)))
    pigment.blood[part] *= 1 - 0.14 * roll
    pigment.melanin[part] *= 1 - 0.04 * roll
    corner = np.exp(-(((np.abs(s) - MOUTH_CORNER[0] - 0.02) / 0.22) ** 2) - ((t - _SLIT) / 0.13) ** 2)
    pigment.shade[part] += 0.35 * corner
    cushion = red * np.exp(-((s / 1.1) ** 2) - ((t + 7.12) / 0.26) ** 2)
    wet = np.clip(red * 0.42 + 0.35 * cushion + 0.5 * inner - 0.05 * lines, 0, 1)
    bump = 0.005 * roll - (0.004 + 0.006 * _aged(traits)) * np.maximum(lines, -0.8) + 0.002 * red * uneven
    return LipPatch(part, red.astype(np.float32), bump.astype(np.float32), wet.astype(np.float32))


def _aged(traits: Traits) -> float:
    return float(np.clip((traits.age - 30) / 45, 0, 1))


def _inside(s: np.ndarray, t: np.ndarray, uneven: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth inside the border in cm (negative outside) and the height of the red between slit and border at each texel."""
    above = t > _SLIT
    height = np.where(above, red_height(s, np.array(True)), red_height(s, np.array(False))).astype(np.float32)
    depth = (height - np.abs(t - _SLIT)) * np.where(np.abs(s) > 1.2, 0.85, 1.0)  # the border slopes at the sides
    beyond = np.hypot(np.maximum(np.abs(s) - MOUTH_CORNER[0], 0), t - _SLIT)
    return np.where(np.abs(s) > MOUTH_CORNER[0], -beyond, depth) + 0.022 * uneven, height


def _lines(rng: np.random.Generator, traits: Traits, s: np.ndarray, t: np.ndarray, size: int, part: tuple[slice, slice]) -> np.ndarray:
    """Fine furrows that fan out from the slit (about unit spread, positive in a furrow)."""
    fan = s / (1 + 0.16 * np.abs(t - _SLIT)) + 0.05 * noise(rng, size, 0.5)[part]
    place = np.linspace(-4, 4, 400)
    lines = np.zeros_like(fan)
    for spacing, weight in ((0.10, 0.5), (0.17, 0.7), (0.4, 0.5)):
        knots = rng.standard_normal(int(8 / spacing))
        ripple = np.interp(place, np.linspace(-4, 4, len(knots)), knots)
        lines += weight * np.interp(fan, place, ripple)
    breaks = 0.75 + 0.35 * noise(rng, size, 0.3)[part]
    return np.clip(lines * breaks, -1.5, 2.0) * (0.75 + 0.5 * _aged(traits))


def _lip_pigment(
    traits: Traits,
    rng: np.random.Generator,
    upper: np.ndarray,
    toward_slit: np.ndarray,
    inner: np.ndarray,
    lines: np.ndarray,
    uneven: np.ndarray,
) -> Pigment:
    """What lies in the red. `upper`, `toward_slit`, `inner`: 0..1, how much a texel is upper lip, near the slit, wet."""
    kept = rng.uniform(0.35, 0.7) + 0.15 * traits.melanin**2  # how much of the skin's melanin the lips keep: pink against brown lips
    share = (kept + 0.30 * upper) * (1 - 0.25 * toward_slit * (1 - upper)) + 0.04 * uneven
    rim = np.clip(1 - toward_slit * 3.2, 0, 1)
    blood = mean_blood(traits) ** 0.4 * rng.uniform(3.2, 5.6) * (1 - 0.25 * _aged(traits)) * (1 + 0.10 * lines + 0.08 * uneven)
    return Pigment(
        melanin=melanin_density(traits.melanin) * share * (1 - 0.45 * inner) + rng.uniform(0.02, 0.12),
        blood=np.maximum(blood, 2.4)
        * (1 + 0.8 * traits.melanin)
        * (0.8 + 0.25 * traits.femininity)
        * (1 + 0.45 * inner + 0.12 * upper + 0.12 * rim),
        blue=np.full_like(upper, rng.uniform(0.02, 0.10)),
        shade=0.30 * traits.melanin**2 + 0.07 * upper + 0.05 * lines + 0.16 * smooth(0.35, 1.0, toward_slit) + 0.10 * inner + 0.03 * rim,
    )


def _blend(pigment: Pigment, part: tuple[slice, slice], red: np.ndarray, lip: Pigment) -> None:
    for name in ("melanin", "blood", "blue", "shade"):
        field = getattr(pigment, name)[part]
        field += red * (getattr(lip, name) - field)


# linear RGB
_LIPSTICKS = np.array(
    [
        [0.42, 0.13, 0.12],
        [0.36, 0.10, 0.10],
        [0.30, 0.035, 0.045],
        [0.22, 0.025, 0.04],
        [0.34, 0.12, 0.15],
        [0.24, 0.085, 0.07],
        [0.16, 0.035, 0.05],
    ]
)
_SHADOWS = np.array(
    [[0.16, 0.09, 0.065], [0.10, 0.065, 0.055], [0.20, 0.12, 0.11], [0.13, 0.09, 0.11], [0.09, 0.09, 0.10], [0.26, 0.17, 0.12]]
)


@dataclass(frozen=True)
class MakeUp:
    """Strengths 0..1 and colours (float64 3, linear RGB) of a person's make-up."""

    lipstick: float
    lipstick_colour: np.ndarray
    shadow: float
    shadow_colour: np.ndarray
    liner: float
    blush: float


def choose_makeup(traits: Traits) -> MakeUp:
    """What a person wears; nothing for masculine people and for part of the others."""
    rng = stream(traits.seed, "make-up")
    worn = float(traits.femininity > 0.55) * float(rng.random() < 0.7) * rng.uniform(0.3, 1.0)
    lipstick, shadow, liner, blush = worn * rng.uniform(0, 1, 4)
    deep = 1 - 0.35 * traits.melanin
    colour = _LIPSTICKS[rng.integers(len(_LIPSTICKS))] * deep * rng.uniform(0.85, 1.15, 3)
    return MakeUp(lipstick, colour, shadow, _SHADOWS[rng.integers(len(_SHADOWS))] * deep, liner, 0.6 * blush)


def apply_makeup(makeup: MakeUp, albedo: np.ndarray, lips: LipPatch, gloss: np.ndarray) -> None:
    """Paints make-up over an albedo (h w 3) and its gloss (h w) in place."""
    if makeup.lipstick > 0.02:
        _lipstick(makeup, albedo, lips, gloss)
    if max(makeup.shadow, makeup.liner) > 0.02:
        for side in (-1, 1):
            _eye(makeup, albedo, side)
    if makeup.blush > 0.02:
        part, s, t = window(len(albedo), (-9, 9), (-7, 1))
        place = np.abs(s)
        rouge = (
            0.45
            * makeup.blush
            * np.exp(-(((place - 5.0) * 0.8 + (t + 2.4) * 0.6) ** 2) / 3.4 - ((t + 2.4) * 0.8 - (place - 5.0) * 0.6) ** 2 / 1.1)
        )
        albedo[part] *= 1 - rouge[..., None] * np.array([0.06, 0.40, 0.32], np.float32)


def _lipstick(makeup: MakeUp, albedo: np.ndarray, lips: LipPatch, gloss: np.ndarray) -> None:
    """Keeps the lips' own light and dark under the colour, so that they do not look like plastic."""
    patch = albedo[lips.part]
    light = patch.mean(-1, keepdims=True)
    usual = float((light[..., 0] * lips.red).sum() / max(float(lips.red.sum()), 1e-6))
    cover = (0.8 * makeup.lipstick * lips.red)[..., None]
    painted = makeup.lipstick_colour * (0.55 + 0.45 * light / usual)
    albedo[lips.part] = patch + cover * (painted - patch)
    gloss[lips.part] *= 1 + 0.25 * makeup.lipstick * lips.red


def _eye(makeup: MakeUp, albedo: np.ndarray, side: int) -> None:
    part, s, t = window(len(albedo), (min(side * 1.0, side * 6.4), max(side * 1.0, side * 6.4)), (-1.0, 2.2))
    place = np.abs(s)
    distance, upper = margin_distance(s, t)
    lid = upper * np.exp(-((distance / 0.55) ** 2)) * smooth(INNER_CANTHUS[0] - 0.1, 2.4, place) * (1 - smooth(4.6, 5.3, place))
    lid += 0.45 * blob(place, t, (4.5, 0.75), (0.6, 0.35))
    cover = (0.75 * makeup.shadow * np.minimum(lid, 1))[..., None]
    liner = np.exp(-((distance / 0.075) ** 2)) * (0.25 + 0.75 * upper) * smooth(INNER_CANTHUS[0] + 0.1, 2.9, place)
    liner *= 1 - smooth(OUTER_CANTHUS[0] + 0.1, OUTER_CANTHUS[0] + 0.35, place)
    patch = albedo[part]
    patch += cover * (makeup.shadow_colour.astype(np.float32) * (0.5 + 1.2 * patch.mean(-1, keepdims=True)) - patch)
    patch *= 1 - (0.9 * makeup.liner * np.minimum(liner, 1))[..., None]


PORE_TILE = 128  # texels a side of the tile of pores
PORE_REPEAT = 15.0  # tiles across the plane: a tile is 2.1 cm wide, so that pores lie 0.6 mm apart
SHADE_OF_DEPTH = 5.5  # grey density per cm of a crease


def paint_skin(traits: Traits, size: int = 1024, lid_crease: float = 0.45) -> Material:
    """The material of a person's skin over the template plane (textures size x size, `template.to_uv`).

    lid_crease: cm on the plane from the margin of the upper lid to its fold, 0.2 (hooded) .. 0.7.
    """
    pigment = base_pigment(traits, size)
    bump = _unevenness(traits, size)
    wet = np.zeros((size, size), np.float32)
    paint_blemishes(traits, pigment, bump)
    _paint_stubble(traits, pigment)
    depth = wrinkles(traits, size)
    lid_folds(traits, lid_crease, depth)
    _shade_creases(WRINKLE_DEPTH * depth, pigment, bump)
    paint_nostrils(pigment, size)
    paint_eyelids(traits, pigment, wet, size)
    lips = paint_lips(traits, pigment, size)
    bump[lips.part] = bump[lips.part] * (1 - lips.red) + lips.bump
    wet[lips.part] = np.maximum(wet[lips.part], lips.wet)
    albedo = colour(pigment, carotene(traits))
    gloss = enlarge(oiliness(traits), size) * (1 + 1.6 * wet)
    apply_makeup(choose_makeup(traits), albedo, lips, gloss)
    return Material(
        albedo=np.clip(albedo, 0.002, 0.95),
        roughness=float(stream(traits.seed, "shine").uniform(0.36, 0.46)),
        specular=0.028,
        scatter=(0.5 - 0.2 * traits.melanin, 0.2 - 0.06 * traits.melanin, 0.12 - 0.04 * traits.melanin),
        bump=bump,
        gloss=gloss,
        detail=_pores(traits),
        detail_repeat=PORE_REPEAT,
    )


def _unevenness(traits: Traits, size: int) -> np.ndarray:
    """Gentle waves of the skin, stronger with age (cm)."""
    rng = stream(traits.seed, "unevenness")
    aged = wrinkle_strength(traits)
    waves = (0.003 + 0.007 * aged) * noise(rng, size, 0.9) + (0.0015 + 0.004 * aged) * noise(rng, size, 0.35)
    crepe = (0.0006 + 0.0030 * aged**1.5) * noise(rng, size, 0.14)
    return (rim_fade(size, 2.0) * (waves + crepe)).astype(np.float32)


def _shade_creases(depth: np.ndarray, pigment: Pigment, bump: np.ndarray) -> None:
    """Cuts creases (cm, positive is deep) into the relief; little light leaves them, and it is redder."""
    bump -= depth
    pigment.shade += SHADE_OF_DEPTH * depth
    pigment.blood *= 1 + 3.0 * depth


def _paint_stubble(traits: Traits, pigment: Pigment) -> None:
    """The cut hairs of a beard, as fine dots that are too small to be drawn one by one."""
    strength = stubble_strength(traits)
    if strength < 0.02:
        return
    size = len(pigment.shade)
    dots = np.maximum(noise(stream(traits.seed, "stubble dots"), size, 0.07), 0)
    pigment.shade += (0.45 * strength) * enlarge(beard_area(256), size) * dots


def _pores(traits: Traits) -> np.ndarray:
    """A tile of pores and of the furrows between them (cm)."""
    rng = stream(traits.seed, "pores")
    cells = tile_noise(rng, PORE_TILE, 4.2)
    furrows = -np.exp(-((tile_noise(rng, PORE_TILE, 9.0) / 0.35) ** 2))
    pits = -np.maximum(cells - 0.9, 0)
    coarse = rng.uniform(0.7, 1.2) * (1 + 0.35 * wrinkle_strength(traits)) * (1.1 - 0.25 * traits.femininity)
    return (coarse * (0.0022 * pits + 0.0009 * cells + 0.0010 * furrows)).astype(np.float32)
