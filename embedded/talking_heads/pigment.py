"""What skin is made of and its colour; brushes on the template plane; the marks of age and sun.

The dermis is an endless scattering layer (Kubelka & Munk 1931), the epidermis a filter that light passes twice. Melanin's absorption falls
with the wavelength as l^-3.33 and blood's is that of oxygenated haemoglobin (Jacques, Optical properties of biological tissues, 2013).
Melanin comes in grains, so that its density saturates: very dark skin is nearly neutral, not orange. The three bands are about 610, 540
and 470 nm. Lengths are cm on the template plane; fields are float32 arrays (size size) over it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from scipy.interpolate import CubicSpline

from embedded.talking_heads.template import S_LIMIT, T_TOP
from embedded.talking_heads.traits import Traits, smooth, stream

EXTENT = 2 * S_LIMIT  # cm: side of the square plane
WRINKLE_DEPTH = 1.8  # factor on all creases
_MELANIN_BANDS = (1.0, 1.5, 2.38)  # (l / 610 nm) ^ -3.33
_MELANIN_LIMIT = 5.0  # density that packed grains approach
_BLOODLESS = (0.010, 0.032, 0.140)  # absorption over scattering of a dermis without blood
_BLOOD_BANDS = (0.010, 0.145, 0.135)  # what the blood of average skin adds
_CAROTENE_BANDS = (0.0, 0.0072, 0.06)  # what carotene adds
_BLUE_BANDS = (1.0, 0.88, 0.68)  # density of what shines through bluish: veins, hair roots, thin skin over muscle
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
    albedo = np.empty((*pigment.melanin.shape, 3), np.float32)
    floor = np.array(_BLOODLESS) + np.array(_CAROTENE_BANDS) * stream(traits.seed, "undertone").uniform(0.1, 1.6)
    _mix(pigment.melanin, pigment.blood, pigment.blue, pigment.shade, floor.astype(np.float32), albedo)
    return albedo


@njit(cache=True, nogil=True)
def _mix(melanin: np.ndarray, blood: np.ndarray, blue: np.ndarray, shade: np.ndarray, floor: np.ndarray, albedo: np.ndarray) -> None:
    limit = np.float32(_MELANIN_LIMIT)
    for row in range(albedo.shape[0]):
        for column in range(albedo.shape[1]):
            amount, flow = max(melanin[row, column], np.float32(0.0)), max(blood[row, column], np.float32(0.0))
            veil = np.exp(-shade[row, column])
            for band in range(3):
                absorbed = floor[band] + flow * np.float32(_BLOOD_BANDS[band])
                dermis = np.float32(1.0) + absorbed - np.sqrt(absorbed * (absorbed + np.float32(2.0)))
                grains = limit * (np.float32(1.0) - np.exp(-amount * np.float32(_MELANIN_BANDS[band]) / limit))
                passed = np.exp(-grains - blue[row, column] * np.float32(_BLUE_BANDS[band]))
                albedo[row, column, band] = veil * (np.float32(_EPIDERMIS) + dermis * passed)


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
    columns = slice(max(0, int((min(s_range) + S_LIMIT) / texel)), min(size, int((max(s_range) + S_LIMIT) / texel) + 1))
    rows = slice(max(0, int((T_TOP - t_range[1]) / texel)), min(size, int((T_TOP - t_range[0]) / texel) + 1))
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
    marks = np.column_stack([centre, radius, strength]).astype(np.float32)
    _stamp(field, marks, np.float32(field.shape[0] / EXTENT))


def crease(field: np.ndarray, path: np.ndarray, width: float, depth: np.ndarray) -> None:
    """Adds a groove along a polyline: `path` (k 2) in cm, `depth` (k) at its points, a Gaussian of `width` cm across."""
    knots = np.column_stack([path, depth]).astype(np.float32)
    _groove(field, knots, np.float32(width), np.float32(field.shape[0] / EXTENT))


@njit(cache=True, nogil=True)
def _stamp(field: np.ndarray, marks: np.ndarray, scale: np.float32) -> None:
    height, width = field.shape
    for k in range(marks.shape[0]):
        s, t, radius, strength = marks[k]
        reach = np.float32(1.6) * radius * scale
        x, y = (s + np.float32(S_LIMIT)) * scale - np.float32(0.5), (np.float32(T_TOP) - t) * scale - np.float32(0.5)
        for row in range(max(0, int(y - reach)), min(height, int(y + reach) + 2)):
            for column in range(max(0, int(x - reach)), min(width, int(x + reach) + 2)):
                square = ((column - x) ** 2 + (row - y) ** 2) / (radius * scale) ** 2
                if square < np.float32(2.5):
                    field[row, column] += strength * np.exp(-square * square)


@njit(cache=True, nogil=True)
def _groove(field: np.ndarray, knots: np.ndarray, width: np.float32, scale: np.float32) -> None:
    height, columns = field.shape
    reach = np.float32(2.2) * width
    texel = np.float32(1.0) / scale
    left, right = knots[:, 0].min() - reach, knots[:, 0].max() + reach
    low, high = knots[:, 1].min() - reach, knots[:, 1].max() + reach
    for row in range(max(0, int((T_TOP - high) * scale)), min(height, int((T_TOP - low) * scale) + 1)):
        t = np.float32(T_TOP) - (row + np.float32(0.5)) * texel
        for column in range(max(0, int((left + S_LIMIT) * scale)), min(columns, int((right + S_LIMIT) * scale) + 1)):
            s = (column + np.float32(0.5)) * texel - np.float32(S_LIMIT)
            deepest = np.float32(0.0)
            for k in range(knots.shape[0] - 1):
                ds, dt = knots[k + 1, 0] - knots[k, 0], knots[k + 1, 1] - knots[k, 1]
                u = ((s - knots[k, 0]) * ds + (t - knots[k, 1]) * dt) / (ds * ds + dt * dt + np.float32(1e-9))
                u = min(max(u, np.float32(0.0)), np.float32(1.0))
                x, y = s - knots[k, 0] - u * ds, t - knots[k, 1] - u * dt
                square = (x * x + y * y) / (width * width)
                if square < np.float32(4.8):
                    deepest = max(deepest, (knots[k, 2] + u * (knots[k + 1, 2] - knots[k, 2])) * np.exp(-square))
            field[row, column] += deepest


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
