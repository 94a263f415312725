"""A person's skin on the template plane: its pigments and their colour, regions, eyelids, lips, marks, make-up; relief and shine.

The dermis is an endless scattering layer (Kubelka & Munk 1931), the epidermis a filter that light passes twice. Melanin's absorption falls
with the wavelength as l^-3.33 and blood's is that of oxygenated haemoglobin (Jacques, Optical properties of biological tissues, 2013).
Melanin comes in grains, so that its density saturates: very dark skin is nearly neutral, not orange. The three bands are about 610, 540
and 470 nm. Lengths are cm on the template plane; fields are float32 arrays (size size) over it.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from embedded.talking_heads.face import red_height
from embedded.talking_heads.facial_hair import BeardShape, beard_density
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
    S_LIMIT,
    T_TOP,
    lid_height,
    plane,
)
from embedded.talking_heads.traits import Traits, smooth, stream

EXTENT = 2 * S_LIMIT  # cm: side of the square plane
WRINKLE_DEPTH = 1.8  # factor on all creases
_MELANIN_BANDS = np.float32((1.0, 1.5, 2.38))  # (l / 610 nm) ^ -3.33
_MELANIN_LIMIT = 5.0  # density that packed grains approach
_BLOODLESS = np.float32((0.010, 0.032, 0.140))  # absorption over scattering of a dermis without blood
_BLOOD_BANDS = np.float32((0.010, 0.145, 0.135))  # what the blood of average skin adds
_CAROTENE_BANDS = np.float32((0.0, 0.0072, 0.06))  # what carotene adds
_BLUE_BANDS = np.float32((1.0, 0.88, 0.68))  # density of what shines through bluish: veins, hair roots, thin skin over muscle
_EPIDERMIS = 0.010  # light thrown back before it meets any melanin


@dataclass
class Pigment:
    """What lies in the skin at each texel (float32 h w each), painted in place by the parts of the skin."""

    melanin: np.ndarray  # density in the red band, 0 (none) .. 5 (darkest)
    blood: np.ndarray  # amount, 1 on average skin, 3..8 in lips
    blue: np.ndarray  # density of bluish shade, 0..1
    shade: np.ndarray  # density of grey shade: folds and hollows that light hardly reaches, 0..4


def melanin_density(melanin: float) -> float:
    """The red density of a person's melanin: slow at first, where small amounts already tell, then steep. melanin in 0..1."""
    return 0.02 + 0.6 * melanin + 4.4 * melanin**4.5


def mean_blood(traits: Traits) -> float:
    """The amount of blood in a person's skin, 0.45 .. 1.45; deeper skin shows less of it."""
    return float((0.55 + 0.9 * traits.redness) * (1 - 0.2 * traits.melanin))


def skin_colour(traits: Traits) -> np.ndarray:
    """The plain linear RGB albedo (float32 3) of a person's skin, for parts that carry no texture."""
    fields = [np.full((1, 1), value, np.float32) for value in (melanin_density(traits.melanin), mean_blood(traits), 0.0, 0.0)]
    return albedo_of(Pigment(*fields), traits)[0, 0]


def albedo_of(pigment: Pigment, traits: Traits) -> np.ndarray:
    """Linear RGB albedo (float32 h w 3) of painted skin; the share of carotene, olive against rosy, is the person's."""
    floor = _BLOODLESS + _CAROTENE_BANDS * np.float32(stream(traits.seed, "undertone").uniform(0.1, 1.6))
    amount, flow = (np.maximum(field, 0)[..., None] for field in (pigment.melanin, pigment.blood))
    absorbed = floor + flow * _BLOOD_BANDS  # h w 3
    dermis = 1 + absorbed - np.sqrt(absorbed * (absorbed + 2))
    grains = _MELANIN_LIMIT * (1 - np.exp(-amount * _MELANIN_BANDS / _MELANIN_LIMIT))
    passed = np.exp(-grains - pigment.blue[..., None] * _BLUE_BANDS)
    return np.exp(-pigment.shade)[..., None] * (_EPIDERMIS + dermis * passed)


def blob(s: np.ndarray, t: np.ndarray, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """A soft ellipse: 1 in the middle, 1/e at the radii."""
    return np.exp(-(((s - centre[0]) / radii[0]) ** 2) - ((t - centre[1]) / radii[1]) ** 2)


def noise(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    """Smooth noise (float32 size size) of about unit spread whose lumps are `cell` cm wide."""
    cells = min(max(4, round(EXTENT / cell)), size)
    return cv2.resize(rng.standard_normal((cells, cells), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def enlarge(field: np.ndarray, size: int) -> np.ndarray:
    """A field painted on a coarser grid of the same plane, at `size` texels a side."""
    return cv2.resize(np.ascontiguousarray(field, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def window(size: int, s_range: tuple[float, float], t_range: tuple[float, float]) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of a texture over a rectangle of the plane: its slices (rows, columns), and s (1 w) and t (h 1) at its texel centres."""
    texel = EXTENT / size
    edges = (min(s_range) + S_LIMIT, max(s_range) + S_LIMIT, T_TOP - t_range[1], T_TOP - t_range[0])
    left, right, top, bottom = (min(max(int(edge / texel) + place % 2, 0), size) for place, edge in enumerate(edges))
    columns, rows = slice(left, right), slice(top, bottom)
    s = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * texel - S_LIMIT
    t = T_TOP - (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * texel
    return (rows, columns), s[None], t[:, None]


def rim_fade(size: int, band: float) -> np.ndarray:
    """1 inside the plane, 0 at its rim, where textures are continued by repeating the last texel (float32 size size)."""
    middle = (np.arange(size, dtype=np.float32) + 0.5) * EXTENT / size
    edge = smooth(0.0, band, np.minimum(middle, EXTENT - middle))
    return edge[:, None] * edge[None]


def curve(points: list[tuple[float, float]], count: int = 12) -> np.ndarray:
    """A smooth path (count 2) through 3 or more points."""
    return CubicSpline(np.arange(len(points)), np.array(points))(np.linspace(0, len(points) - 1, count))


def spots(field: np.ndarray, centre: np.ndarray, radius: np.ndarray, strength: np.ndarray) -> None:
    """Adds soft-edged round spots of radii (n, cm) and strengths (n) to a field at places (n 2)."""
    for x, y, size, amount in np.column_stack([centre, radius, strength]).astype(np.float32):
        reach = 1.6 * size
        part, s, t = window(len(field), (x - reach, x + reach), (y - reach, y + reach))
        square = ((s - x) ** 2 + (t - y) ** 2) / size**2
        field[part] += amount * np.exp(-square * square) * (square < 2.5)


def crease(field: np.ndarray, path: np.ndarray, width: float, depth: np.ndarray) -> None:
    """Adds a groove along a polyline: `path` (k 2) in cm, `depth` (k) at its points, a Gaussian of `width` cm across."""
    low, high = path.min(0) - 2.2 * width, path.max(0) + 2.2 * width
    part, s, t = window(len(field), (low[0], high[0]), (low[1], high[1]))
    deepest = np.zeros_like(field[part])
    for (x, y, here), (next_x, next_y, there) in pairwise(np.column_stack([path, depth]).astype(np.float32)):
        dx, dy = next_x - x, next_y - y
        along = np.clip(((s - x) * dx + (t - y) * dy) / (dx * dx + dy * dy + np.float32(1e-9)), 0, 1)
        square = ((s - x - along * dx) ** 2 + (t - y - along * dy) ** 2) / np.float32(width) ** 2
        deepest = np.maximum(deepest, (here + along * (there - here)) * np.exp(-square) * (square < 4.8))
    field[part] += deepest


def wrinkle_strength(traits: Traits) -> float:
    """How lined a person's skin is, 0 (smooth) .. 1: by age, sun and weight, from about 30 years on."""
    habit = stream(traits.seed, "wrinkles").uniform(0.65, 1.15)
    years = float(np.clip((traits.age - 26) / 50, 0, 1)) ** 1.2
    lean = (1 - 0.18 * traits.fullness) * (1.05 - 0.15 * traits.femininity) * (1.1 - 0.3 * traits.melanin)
    return float(np.clip(years * habit * lean, 0, 1))


def wrinkles(traits: Traits, size: int) -> np.ndarray:
    """Depths of a person's lines (float32 size size, cm, positive is deep): forehead, frown, crow's feet, folds of the cheeks."""
    depth = np.zeros((size, size), np.float32)
    strength, rng = wrinkle_strength(traits), stream(traits.seed, "wrinkle paths")

    def taper(count: int) -> np.ndarray:
        return np.sin(np.linspace(0, np.pi, count)).clip(0) ** 0.6 * rng.uniform(0.4, 1.0)

    lines = int(rng.integers(2, 5))
    for k in range(lines):
        s = np.linspace(-rng.uniform(2.2, 4.6), rng.uniform(2.2, 4.6), 18)
        t = 3.45 + (k + 0.25 * rng.normal()) * 2.6 / lines - 0.28 * np.cos(s * 0.75 + 0.4 * rng.normal())
        crease(depth, np.stack([s, t], -1), rng.uniform(0.08, 0.13), 0.05 * strength * taper(18) * rng.uniform(0.45, 1.0, 18))
    for side in (-1, 1):
        mirror = np.array([side, 1.0])
        foot, lean = 0.62 + 0.12 * rng.normal(), 0.15 + 0.15 * rng.normal()
        frown = curve([(foot - 0.05, 1.0), (foot, 1.6), (foot + lean, 2.1 + 0.4 * rng.random())], 8)
        crease(depth, frown * mirror, 0.12, 0.03 * strength * taper(8))
        for _ in range(int(rng.integers(3, 6))):  # crow's feet
            angle, length = rng.uniform(-0.75, 0.5), rng.uniform(0.7, 1.7)
            start = np.array([4.95, 0.05 + 0.25 * angle]) + 0.12 * rng.normal(size=2)
            end = start + length * np.array([np.cos(angle), np.sin(angle)])
            path = curve([start, 0.5 * (start + end) + 0.07 * rng.normal(size=2), end], 8)
            crease(depth, path * mirror, rng.uniform(0.06, 0.10), 0.036 * strength * taper(8))
        fold = curve([(2.0, -3.5), (2.55, -4.5), (3.1, -5.5), (3.45, -6.5), (3.5, -7.2)], 12)  # from the nose's wing past the mouth
        profile = np.concatenate([np.linspace(0.3, 1.0, 4), np.linspace(1.0, 0.0, 8)]) * rng.uniform(0.7, 1.0, 12)
        crease(depth, fold * mirror, 0.32, (0.012 + 0.06 * strength * rng.uniform(0.5, 1.0)) * profile)
        crease(depth, fold * mirror, 0.09, (0.004 + 0.035 * strength * rng.uniform(0.4, 1.0)) * profile)
        below = curve([(2.75, -6.75), (2.95, -7.4), (3.05, -8.2), (2.95, -9.0)], 10)
        crease(depth, below * mirror, 0.20, 0.055 * strength * rng.uniform(0.3, 1.0) * np.linspace(1, 0, 10))
    return depth


def paint_blemishes(traits: Traits, pigment: Pigment, bump: np.ndarray) -> None:
    """Adds freckles, moles and age spots to the pigment, and what stands out to the bump (cm); none on the lips."""
    rng = stream(traits.seed, "blemishes")
    dense = melanin_density(traits.melanin)

    def places(count: int, middle: tuple[float, float], spread: tuple[float, float]) -> np.ndarray:
        """Places (n 2) on both cheeks, and a third of them anywhere."""
        found = rng.normal(middle, spread, (count, 2)) * np.stack([rng.choice([-1.0, 1.0], count), np.ones(count)], -1)
        found[::3] = rng.uniform((-9, -13), (9, 7), (len(found[::3]), 2))
        return found[np.hypot(found[:, 0] / 3, (found[:, 1] + 6.6) / 1.3) > 1]

    red_hair = float(np.clip((traits.hair_colour[0] / max(float(traits.hair_colour[2]), 1e-3) - 4.5) / 3, 0, 1))
    prone = float(rng.random() < 0.16 + 0.6 * red_hair) * rng.uniform(0.25, 1.0) * float(np.clip(1 - 1.5 * traits.melanin, 0, 1))
    centre = places(int(40 + 1400 * prone), (2.6, -1.7), (2.4, 2.0))  # freckles
    radius = 0.035 + 0.035 * rng.exponential(0.8, len(centre)).clip(0, 3)
    spots(pigment.melanin, centre, radius, (0.10 + 0.35 * prone) * rng.uniform(0.2, 1.0, len(centre)) * (0.6 + 0.4 * dense))
    centre = places(int(rng.poisson(3.2)), (4.0, -3.0), (3.0, 5.0))  # moles
    radius = rng.uniform(0.04, 0.13, len(centre))
    spots(pigment.melanin, centre, radius, rng.uniform(0.2, 1.0, len(centre)) * (1 + 0.5 * dense))
    spots(bump, centre, radius, 0.35 * radius * (rng.random(len(centre)) < 0.5))
    centre = places(int(45 * np.clip((traits.age - 42) / 35, 0, 1) * rng.uniform(0.3, 1.0)), (6.0, 1.0), (2.0, 4.0))  # age spots
    spots(pigment.melanin, centre, rng.uniform(0.12, 0.42, len(centre)), rng.uniform(0.06, 0.32, len(centre)) * (0.5 + 0.5 * dense))


# Painting

SHADE_OF_DEPTH = 5.5  # grey density per cm of a crease
_COARSE = 256  # texels a side for what has no fine detail
_SLIT = MOUTH_CORNER[1]
_SHAVED = BeardShape(1.0, 1.0, 0.9)
_LIPSTICKS = np.array(
    [[0.42, 0.13, 0.12], [0.36, 0.10, 0.10], [0.30, 0.035, 0.045], [0.22, 0.025, 0.04], [0.34, 0.12, 0.15], [0.16, 0.035, 0.05]]
)
_SHADOWS = np.array([[0.16, 0.09, 0.065], [0.10, 0.065, 0.055], [0.20, 0.12, 0.11], [0.13, 0.09, 0.11], [0.26, 0.17, 0.12]])


def paint_skin(traits: Traits, size: int = 1024, lid_crease: float = 0.45) -> Material:
    """The material of a person's skin over the template plane (textures size x size, `template.to_uv`).

    lid_crease: cm on the plane from the margin of the upper lid to its fold, 0.2 (hooded) .. 0.7.
    """
    pigment, bump, wet = _base_pigment(traits, size), _unevenness(traits, size), np.zeros((size, size), np.float32)
    paint_blemishes(traits, pigment, bump)
    depth = wrinkles(traits, size)
    _lid_folds(traits, lid_crease, depth)
    depth *= WRINKLE_DEPTH
    bump -= depth
    pigment.shade += SHADE_OF_DEPTH * depth  # little light leaves a crease, and it is redder
    pigment.blood *= 1 + 3.0 * depth
    _paint_nostrils(pigment, size)
    _paint_eyelids(traits, pigment, wet, size)
    lips = _paint_lips(traits, pigment, size)
    bump[lips.part] = bump[lips.part] * (1 - lips.red) + lips.bump
    wet[lips.part] = np.maximum(wet[lips.part], lips.wet)
    albedo, gloss = albedo_of(pigment, traits), 1 + 1.6 * wet
    _make_up(traits, albedo, lips, gloss)
    return Material(
        albedo=np.clip(albedo, 0.002, 0.95),
        roughness=float(stream(traits.seed, "shine").uniform(0.36, 0.46)),
        specular=0.028,
        scatter=(0.5 - 0.2 * traits.melanin, 0.2 - 0.06 * traits.melanin, 0.12 - 0.04 * traits.melanin),
        bump=bump,
        gloss=gloss,
    )


def _unevenness(traits: Traits, size: int) -> np.ndarray:
    """Gentle waves of the skin, stronger with age (cm)."""
    rng, aged = stream(traits.seed, "unevenness"), wrinkle_strength(traits)
    waves = (0.003 + 0.007 * aged) * noise(rng, size, 0.9) + (0.0015 + 0.004 * aged) * noise(rng, size, 0.35)
    return (rim_fade(size, 2.0) * (waves + (0.0008 + 0.0030 * aged**1.5) * noise(rng, size, 0.14))).astype(np.float32)


def _base_pigment(traits: Traits, size: int) -> Pigment:
    """Skin without marks and lips: regions, patches and mottling of melanin and blood (fields of size x size)."""
    rng = stream(traits.seed, "regions")
    s, t = _warped(rng)
    weathered = rng.uniform(0.7, 1.2) * (1 + 0.7 * np.clip((traits.age - 25) / 50, 0, 1))  # how uneven sun and years made the colour
    contrast = 1 / (1 + 0.9 * melanin_density(traits.melanin))  # what is seen are differences of the density, which is large in dark skin

    def patches(*weights: tuple[float, float]) -> np.ndarray:
        return weathered * sum(weight * noise(rng, _COARSE, cell) for cell, weight in weights)

    fade = rim_fade(_COARSE, 3.0)
    melanin = np.exp((_melanin_pattern(rng, s, t, traits) + patches((3.5, 0.06), (1.4, 0.055), (0.6, 0.04))) * fade * contrast)
    blood = np.exp((_blood_pattern(rng, s, t, traits) + patches((2.6, 0.12), (1.1, 0.12), (0.55, 0.10))) * fade)
    shaved = _shaved_beard(traits) * beard_density(_SHAVED, *plane(_COARSE))
    blue, shade = _blue_pattern(rng, s, t, traits) + shaved, _shade_pattern(rng, s, t, traits)
    fade = rim_fade(size, 2.0)
    mottled = 1 + fade * (0.13 * noise(rng, size, 0.28) + 0.10 * noise(rng, size, 0.11))
    grain = 1 + contrast * fade * (0.05 * noise(rng, size, 0.5) + 0.05 * noise(rng, size, 0.09))
    dots = 0.45 * enlarge(shaved, size) * np.maximum(noise(rng, size, 0.07), 0)  # cut hairs, too small to be drawn one by one
    return Pigment(
        melanin=enlarge(melanin_density(traits.melanin) * melanin, size) * grain,
        blood=enlarge(mean_blood(traits) * blood, size) * mottled,
        blue=enlarge(blue, size),
        shade=enlarge(shade, size) + dots,
    )


def _shaved_beard(traits: Traits) -> float:
    """Density of the shade of a shaved beard, 0 .. 0.4: masculine people, most with dark hair on pale skin."""
    man = float(smooth(0.55, 0.3, np.array(traits.femininity))) * float(np.clip((traits.age - 14) / 8, 0, 1))
    dark = float(np.clip(1.1 - 2.2 * float(traits.hair_colour.mean()), 0.25, 1)) * (1 - 0.5 * traits.grey)
    return 0.42 * man * dark * float(stream(traits.seed, "stubble").beta(1.6, 1.8)) * (1 - 0.3 * traits.melanin)


def _warped(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """|s| and t of the coarse plane, warped so that no region is a clean ellipse and no face is symmetric."""
    s, t = plane(_COARSE)
    bend, lift = (0.15 * noise(rng, _COARSE, 2.2) + 0.05 * noise(rng, _COARSE, 0.8) for _ in range(2))
    return np.abs(s + bend), t + lift


def _melanin_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Log of the melanin's factor."""
    pattern = 0.13 * blob(s, t, (0, 5.0), (6.0, 2.6)) - 0.08 * blob(s, t, (4.2, -3.0), (2.4, 2.0))
    pattern += rng.uniform(0.10, 0.45) * blob(s, t, (3.1, 0.2), (2.0, 1.25))
    pattern += rng.uniform(0.05, 0.25) * blob(s, t, (0, -6.6), (3.6, 2.1)) + 0.10 * blob(s, t, (0, -2.0), (0.9, 2.4))
    pattern += 0.18 * smooth(-10.5, -12.5, t) - 0.12 * smooth(6.5, 8.5, t) + 0.12 * blob(s, t, (9.0, 0.0), (2.0, 4.0))
    return (0.5 + 0.7 * traits.melanin) * pattern


def _blood_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Log of the blood's factor: flushed cheeks, nose, ears, chin and lids; a forehead that is yellower."""
    pattern = rng.uniform(0.45, 0.85) * blob(s, t, (4.1, -3.0), (2.1, 1.7)) - 0.28 * blob(s, t, (0, 4.6), (5.0, 2.4))
    pattern += 0.55 * blob(s, t, NOSE_TIP, (1.2, 1.0)) + 0.60 * blob(s, t, ALA, (0.65, 0.6)) + 0.20 * blob(s, t, (0, -1.5), (0.7, 1.5))
    pattern += (
        0.30 * blob(s, t, CHIN, (1.6, 1.1)) + 0.45 * blob(s, t, (3.1, 0.75), (1.6, 0.55)) + 0.25 * blob(s, t, (3.0, -0.8), (1.5, 0.5))
    )
    pattern += 0.50 * blob(s, t, EAR, (1.8, 3.0)) - 0.12 * blob(s, t, (0, -5.2), (1.0, 0.5)) - 0.2 * blob(s, t, (7.2, -4.5), (2.0, 2.5))
    pattern += rng.uniform(-0.1, 0.35) * smooth(-11.0, -13.5, t)
    return rng.uniform(0.55, 1.25) * (0.75 + 0.5 * traits.redness) * pattern


def _blue_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Rings under the eyes (by age and person) and temples."""
    tired = rng.beta(1.6, 2.6) * (0.65 + 0.5 * float(np.clip((traits.age - 25) / 40, 0, 1)))
    rings = 0.42 * tired * (blob(s, t, (2.4, -1.05), (0.95, 0.42)) + 0.45 * blob(s, t, (3.3, -0.95), (1.3, 0.45)))
    return rings + 0.10 * blob(s, t, (1.75, 0.35), (0.4, 0.7)) + 0.05 * blob(s, t, (7.0, 1.5), (1.0, 1.6))


def _shade_pattern(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, traits: Traits) -> np.ndarray:
    """Hollows that light hardly reaches, and the shade under the brows' hairs."""
    groove = 0.22 * np.exp(-(((np.hypot(s - 1.35, (t + 3.75) * 1.05) - 0.62) / 0.13) ** 2)) * smooth(1.5, 1.85, s) * smooth(-4.4, -3.9, t)
    hollows = (
        0.10 * blob(s, t, (2.4, 0.95), (1.2, 0.35))
        + 0.12 * blob(s, t, (1.6, 0.3), (0.35, 0.6))
        + 0.10 * blob(s, t, (0, -8.35), (1.3, 0.28))
    )
    line = np.array(BROW)
    ends = smooth(line[0, 0] - 0.25, line[0, 0] + 0.45, s) * (1 - smooth(line[-1, 0] - 0.9, line[-1, 0] + 0.1, s))
    brow = ends * np.exp(-(((t - np.interp(s, line[:, 0], line[:, 1])) / 0.30) ** 2))
    dark = float(np.clip(0.55 - float(traits.hair_colour.mean()), 0.1, 0.5)) * (1 - 0.6 * traits.grey)
    return groove + hollows + dark * rng.uniform(0.6, 1.1) * brow


def _paint_nostrils(pigment: Pigment, size: int) -> None:
    """Dark red holes under the nose."""
    part, s, t = window(size, (-2.0, 2.0), (-4.9, -3.5))
    place = np.abs(s) - NOSTRIL[0]
    hole = np.exp(-(((place / 0.40) ** 2 + ((t - NOSTRIL[1] - 0.25 * place) / 0.17) ** 2) ** 1.5))
    pigment.shade[part] += 1.9 * hole
    pigment.blood[part] += 4.0 * hole


def _margin_distance(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rough distance in cm to the margin of the lids, negative in the opening, and a mask: 1 above the corners' line, 0 below."""
    u = np.clip(2 * (np.abs(s) - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0]) - 1, -1, 1)
    line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (u + 1) / 2
    top, bottom = line + lid_height(u, np.array(True)), line - lid_height(u, np.array(False))
    aside = np.maximum(np.abs(s) - OUTER_CANTHUS[0], 0) + np.maximum(INNER_CANTHUS[0] - np.abs(s), 0)
    vertical = np.maximum(t - top, bottom - t) * np.where(aside > 0, 1.0, 0.85)  # 0.85: the margin slopes
    distance = np.where(aside > 0, np.hypot(aside, np.maximum(vertical, 0)), vertical)
    return distance, smooth(-0.05, 0.05, t - line)


def _paint_eyelids(traits: Traits, pigment: Pigment, wet: np.ndarray, size: int) -> None:
    """Lash lines, wet margins and inner corners; `wet` (h w, 0..1) is raised at the latter two."""
    rng = stream(traits.seed, "eyelids")
    lash, pink = rng.uniform(0.55, 1.0) * (0.8 + 0.3 * traits.femininity), rng.uniform(0.7, 1.3)
    for side in (-1, 1):
        part, s, t = window(size, (side * 0.8, side * 6.2), (-1.3, 1.4))
        place = np.abs(s)
        distance, upper = _margin_distance(s, t)
        lashes = np.exp(-((np.maximum(distance - 0.02, 0) / 0.075) ** 2)) * smooth(INNER_CANTHUS[0] + 0.05, 2.4, place)
        lashes *= 1 - smooth(OUTER_CANTHUS[0] + 0.05, OUTER_CANTHUS[0] + 0.3, place)
        margin = np.exp(-((np.maximum(distance, 0) / 0.05) ** 2)) * (1 - 0.8 * upper)
        corner = blob(place, t, (INNER_CANTHUS[0] + 0.06, INNER_CANTHUS[1]), (0.20, 0.14))
        pigment.shade[part] += lash * lashes * (0.18 + 1.0 * upper) + 0.15 * corner
        pigment.blood[part] += pink * (2.0 * margin + 3.5 * corner)
        pigment.melanin[part] *= 1 - np.minimum(0.4 * margin + 0.6 * corner, 0.8)
        wet[part] = np.maximum(wet[part], np.maximum(0.7 * margin, 0.8 * corner))


def _lid_folds(traits: Traits, lid_crease: float, depth: np.ndarray) -> None:
    """Adds the fold of the upper lid and the lines below the eye to a field of creases (cm, positive is deep)."""
    rng = stream(traits.seed, "lid folds")
    age = float(np.clip((traits.age - 25) / 45, 0, 1))
    fold = np.interp(np.linspace(0, 6, 15), range(7), [0.2, 0.8, 1.0, 1.0, 0.9, 0.5, 0.0])
    for side in (-1, 1):
        high = lid_crease + 0.02 * rng.normal()
        path = [(1.75, 0.2), (2.3, 0.30 + high), (3.1, 0.50 + high), (3.9, 0.42 + high), (4.6, 0.15 + 0.6 * high), (5.0, 0.1)]
        crease(depth, curve(path, 15) * (side, 1), 0.09, 0.03 * fold)
        for k in range(1 + round(2.5 * age)):
            drop = 0.38 + 0.27 * k + 0.05 * rng.normal()
            arc = curve([(1.9 + 0.1 * k, -0.35 - drop), (3.0, -0.55 - drop), (3.9, -0.35 - drop), (4.6, -drop + 0.1)], 8)
            strength = (0.010 + 0.022 * age) * rng.uniform(0.5, 1.0) * np.sin(np.linspace(0.25, np.pi, 8)).clip(0)
            crease(depth, arc * (side, 1), 0.10 + 0.02 * k, strength)


@dataclass(frozen=True)
class LipPatch:
    """The mouth's part of the texture."""

    part: tuple[slice, slice]  # rows and columns of the texture
    red: np.ndarray  # float32 h w: share of lip against skin, 0..1
    bump: np.ndarray  # float32 h w, height in cm to add
    wet: np.ndarray  # float32 h w, 0 (skin) .. 1 (wet)


def _paint_lips(traits: Traits, pigment: Pigment, size: int) -> LipPatch:
    """Changes the pigment to that of lips inside their border and returns the patch with its relief and moisture."""
    rng, aged = stream(traits.seed, "lip colour"), float(np.clip((traits.age - 30) / 45, 0, 1))
    part, s, t = window(size, (-3.6, 3.6), (-8.9, -4.9))
    uneven = noise(rng, size, 0.35)[part]
    above = t > _SLIT
    height = red_height(s, above).astype(np.float32)
    depth = (height - np.abs(t - _SLIT)) * np.where(np.abs(s) > 1.2, 0.85, 1.0)  # inside the border, cm; it slopes at the sides
    beyond = np.hypot(np.maximum(np.abs(s) - MOUTH_CORNER[0], 0), t - _SLIT)
    depth = np.where(np.abs(s) > MOUTH_CORNER[0], -beyond, depth) + 0.022 * uneven
    red = smooth(-0.07, rng.uniform(0.07, 0.14), depth)
    toward_slit = 1 - np.clip(np.abs(t - _SLIT) / np.maximum(height, 0.15), 0, 1)
    inner = smooth(0.70, 0.98, toward_slit) * (np.abs(s) < MOUTH_CORNER[0])
    lines = _lip_lines(rng, s, t, size, part) * (0.75 + 0.5 * aged) * red
    upper, rim = smooth(-0.10, 0.06, t - _SLIT), np.clip(1 - toward_slit * 3.2, 0, 1)
    # how much of the skin's melanin the lips keep: pink against brown lips
    kept = rng.uniform(0.35, 0.7) + 0.15 * traits.melanin**2
    share = (kept + 0.30 * upper) * (1 - 0.25 * toward_slit * (1 - upper)) + 0.04 * uneven
    flow = mean_blood(traits) ** 0.4 * rng.uniform(3.2, 5.6) * (1 - 0.25 * aged) * (1 + 0.10 * lines + 0.08 * uneven)
    flow = (
        np.maximum(flow, 2.4)
        * (1 + 0.8 * traits.melanin)
        * (0.8 + 0.25 * traits.femininity)
        * (1 + 0.45 * inner + 0.12 * upper + 0.12 * rim)
    )
    lip = {
        "melanin": melanin_density(traits.melanin) * share * (1 - 0.45 * inner) + rng.uniform(0.02, 0.12),
        "blood": flow,
        "blue": rng.uniform(0.02, 0.10),
        "shade": 0.30 * traits.melanin**2 + 0.07 * upper + 0.05 * lines + 0.16 * smooth(0.35, 1.0, toward_slit) + 0.10 * inner + 0.03 * rim,
    }
    for name, amount in lip.items():
        field = getattr(pigment, name)[part]
        field += red * (amount - field)
    roll = np.exp(-(((depth + 0.09) / 0.09) ** 2)) * (1 - smooth(1.5, 2.6, np.abs(s)))  # the pale rim of skin around the red
    pigment.blood[part] *= 1 - 0.14 * roll
    pigment.shade[part] += 0.35 * np.exp(-(((np.abs(s) - MOUTH_CORNER[0] - 0.02) / 0.22) ** 2) - ((t - _SLIT) / 0.13) ** 2)
    cushion = red * np.exp(-((s / 1.1) ** 2) - ((t + 7.12) / 0.26) ** 2)
    wet = np.clip(red * 0.42 + 0.35 * cushion + 0.5 * inner - 0.05 * lines, 0, 1)
    bump = 0.005 * roll - (0.004 + 0.006 * aged) * np.maximum(lines, -0.8) + 0.002 * red * uneven
    return LipPatch(part, red.astype(np.float32), bump.astype(np.float32), wet.astype(np.float32))


def _lip_lines(rng: np.random.Generator, s: np.ndarray, t: np.ndarray, size: int, part: tuple[slice, slice]) -> np.ndarray:
    """Fine furrows that fan out from the slit (about unit spread, positive in a furrow)."""
    fan = s / (1 + 0.16 * np.abs(t - _SLIT)) + 0.05 * noise(rng, size, 0.5)[part]
    lines = np.zeros_like(fan)
    for spacing, weight in ((0.10, 0.5), (0.17, 0.7), (0.4, 0.5)):
        knots = rng.standard_normal(int(8 / spacing))
        lines += weight * np.interp(fan, np.linspace(-4, 4, len(knots)), knots)
    return np.clip(lines * (0.75 + 0.35 * noise(rng, size, 0.3)[part]), -1.5, 2.0)


def _make_up(traits: Traits, albedo: np.ndarray, lips: LipPatch, gloss: np.ndarray) -> None:
    """Paints lipstick, eye shadow, eye liner and blush over an albedo (h w 3) and its gloss (h w), on some feminine people; in place."""
    rng = stream(traits.seed, "make-up")
    worn = float(traits.femininity > 0.55) * float(rng.random() < 0.7) * rng.uniform(0.3, 1.0)
    lipstick, shadow, liner, blush = worn * rng.uniform(0, 1, 4)
    if not worn:
        return
    deep = 1 - 0.35 * traits.melanin
    stick = _LIPSTICKS[rng.integers(len(_LIPSTICKS))] * deep * rng.uniform(0.85, 1.15, 3)
    patch = albedo[lips.part]
    light = patch.mean(-1, keepdims=True)  # the lips' own light and dark are kept under the colour, or they would resemble plastic
    usual = float((light[..., 0] * lips.red).sum() / max(float(lips.red.sum()), 1e-6))
    albedo[lips.part] = patch + (0.8 * lipstick * lips.red)[..., None] * (stick * (0.55 + 0.45 * light / usual) - patch)
    gloss[lips.part] *= 1 + 0.25 * lipstick * lips.red
    tone = (_SHADOWS[rng.integers(len(_SHADOWS))] * deep).astype(np.float32)
    for side in (-1, 1):
        part, s, t = window(len(albedo), (side * 1.0, side * 6.4), (-1.0, 2.2))
        place = np.abs(s)
        distance, upper = _margin_distance(s, t)
        lid = upper * np.exp(-((distance / 0.55) ** 2)) * smooth(INNER_CANTHUS[0] - 0.1, 2.4, place) * (1 - smooth(4.6, 5.3, place))
        line = np.exp(-((distance / 0.075) ** 2)) * (0.25 + 0.75 * upper) * smooth(INNER_CANTHUS[0] + 0.1, 2.9, place)
        line *= 1 - smooth(OUTER_CANTHUS[0] + 0.1, OUTER_CANTHUS[0] + 0.35, place)
        eye = albedo[part]
        eye += (0.75 * shadow * np.minimum(lid, 1))[..., None] * (tone * (0.5 + 1.2 * eye.mean(-1, keepdims=True)) - eye)
        eye *= 1 - (0.9 * liner * np.minimum(line, 1))[..., None]
    part, s, t = window(len(albedo), (-9, 9), (-7, 1))
    albedo[part] *= 1 - (0.27 * blush * blob(np.abs(s), t, (5.0, -2.4), (1.9, 1.2)))[..., None] * np.array([0.06, 0.40, 0.32], np.float32)
