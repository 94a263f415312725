"""The pigments of skin and their colour, brushes on the template plane, and the marks of age and sun: wrinkles and blemishes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from embedded.talking_heads.face import red_height
from embedded.talking_heads.template import MOUTH_CORNER, S_LIMIT, T_TOP
from embedded.talking_heads.traits import Traits, smooth, stream

EXTENT = 2 * S_LIMIT  # cm: side of the square plane


def blob(s: np.ndarray, t: np.ndarray, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """A soft ellipse: 1 in the middle, 1/e at the radii."""
    return np.exp(-(((s - centre[0]) / radii[0]) ** 2) - ((t - centre[1]) / radii[1]) ** 2)


def noise(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    """Smooth noise (float32 size size) of about unit spread whose lumps are `cell` cm wide."""
    cells = max(4, round(EXTENT / cell))
    coarse = rng.standard_normal((min(cells, size), min(cells, size)), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def enlarge(field: np.ndarray, size: int) -> np.ndarray:
    """A field painted on a coarser grid of the same plane, at `size` texels a side."""
    return cv2.resize(np.ascontiguousarray(field, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def window(size: int, s_range: tuple[float, float], t_range: tuple[float, float]) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of a texture over a rectangle of the plane: its slices (rows, columns), and s (1 w) and t (h 1) at its texel centres."""
    texel = EXTENT / size
    columns = slice(max(0, int((s_range[0] + S_LIMIT) / texel)), min(size, int((s_range[1] + S_LIMIT) / texel) + 1))
    rows = slice(max(0, int((T_TOP - t_range[1]) / texel)), min(size, int((T_TOP - t_range[0]) / texel) + 1))
    s = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * texel - S_LIMIT
    t = T_TOP - (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * texel
    return (rows, columns), s[None], t[:, None]


def polygon(size: int, outline: list[tuple[float, float]], softness: float) -> np.ndarray:
    """A filled outline on both halves of the plane (float32 size size, 0..1) with an edge of `softness` cm."""
    mask = np.zeros((size, size), np.float32)
    scale = size / EXTENT
    for side in (1.0, -1.0):
        points = [((side * s + S_LIMIT) * scale, (T_TOP - t) * scale) for s, t in outline]
        cv2.fillPoly(mask, [np.round(np.array(points)).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (0, 0), max(softness * scale, 0.5))


def rim_fade(size: int, band: float) -> np.ndarray:
    """1 inside the plane, 0 at its rim, where textures are continued by repeating the last texel (float32 size size)."""
    middle = (np.arange(size, dtype=np.float32) + 0.5) * EXTENT / size
    edge = smooth(0.0, band, np.minimum(middle, EXTENT - middle))
    return edge[:, None] * edge[None]


def spots(field: np.ndarray, marks: np.ndarray) -> None:
    """Adds soft-edged elliptic spots to a field. `marks` (n 6): s, t, radius in cm, aspect, angle, strength."""
    _stamp(field, np.ascontiguousarray(marks, np.float32), np.float32(field.shape[0] / EXTENT), np.float32(S_LIMIT), np.float32(T_TOP))


def crease(field: np.ndarray, path: np.ndarray, width: float, depth: np.ndarray) -> None:
    """Adds a groove along a polyline: `path` (k 2) in cm, `depth` (k) at its points, a Gaussian of `width` cm across."""
    knots = np.concatenate([path, np.asarray(depth).reshape(-1, 1)], 1)
    _groove(field, np.ascontiguousarray(knots, np.float32), np.float32(width), np.float32(field.shape[0] / EXTENT))


def curve(points: list[tuple[float, float]], count: int = 12) -> np.ndarray:
    """A smooth path (count 2) through 3 or more points: a Catmull-Rom spline."""
    knots = np.array(points, np.float64)
    knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    place = np.linspace(0, len(points) - 1, count)
    index = np.minimum(place.astype(int), len(points) - 2)
    u = (place - index)[:, None]
    a, b, c, d = (knots[index + k] for k in range(4))
    path = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
    return path.astype(np.float32)


def tile_noise(rng: np.random.Generator, size: int, period: float) -> np.ndarray:
    """Noise that repeats without a seam (float32 size size, unit spread), its lumps about `period` texels apart."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    band = np.exp(-((frequency * period - 1.0) ** 2) / 0.18)
    wave = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * band, s=(size, size))
    return (wave / wave.std()).astype(np.float32)


@njit(cache=True, nogil=True)
def _stamp(field: np.ndarray, marks: np.ndarray, scale: np.float32, s_limit: np.float32, t_top: np.float32) -> None:
    height, width = field.shape
    for k in range(marks.shape[0]):
        s, t, radius, aspect, angle, strength = marks[k]
        cosine, sine = np.cos(angle), np.sin(angle)
        reach = np.float32(1.6) * radius * max(aspect, np.float32(1.0)) * scale
        x, y = (s + s_limit) * scale - np.float32(0.5), (t_top - t) * scale - np.float32(0.5)
        for row in range(max(0, int(y - reach)), min(height, int(y + reach) + 2)):
            for column in range(max(0, int(x - reach)), min(width, int(x + reach) + 2)):
                dx, dy = (column - x) / scale, (row - y) / scale
                along, across = (dx * cosine + dy * sine) / (radius * aspect), (dy * cosine - dx * sine) / radius
                square = along * along + across * across
                if square < np.float32(2.5):
                    field[row, column] += strength * np.exp(-square * square)


@njit(cache=True, nogil=True)
def _groove(field: np.ndarray, knots: np.ndarray, width: np.float32, scale: np.float32) -> None:
    height, columns = field.shape
    reach = np.float32(2.2) * width
    texel = np.float32(1.0) / scale
    left, right = knots[:, 0].min() - reach, knots[:, 0].max() + reach
    low, high = knots[:, 1].min() - reach, knots[:, 1].max() + reach
    first_row, last_row = max(0, int((T_TOP - high) * scale)), min(height, int((T_TOP - low) * scale) + 1)
    first_column, last_column = max(0, int((left + S_LIMIT) * scale)), min(columns, int((right + S_LIMIT) * scale) + 1)
    for row in range(first_row, last_row):
        t = np.float32(T_TOP) - (row + np.float32(0.5)) * texel
        for column in range(first_column, last_column):
            s = (column + np.float32(0.5)) * texel - np.float32(S_LIMIT)
            deepest = np.float32(0.0)
            for k in range(knots.shape[0] - 1):
                ds, dt = knots[k + 1, 0] - knots[k, 0], knots[k + 1, 1] - knots[k, 1]
                length = ds * ds + dt * dt + np.float32(1e-9)
                u = ((s - knots[k, 0]) * ds + (t - knots[k, 1]) * dt) / length
                u = min(max(u, np.float32(0.0)), np.float32(1.0))
                x, y = s - knots[k, 0] - u * ds, t - knots[k, 1] - u * dt
                square = (x * x + y * y) / (width * width)
                if square < np.float32(4.8):
                    depth = (knots[k, 2] + u * (knots[k + 1, 2] - knots[k, 2])) * np.exp(-square)
                    if abs(depth) > abs(deepest):
                        deepest = depth
            field[row, column] += deepest


MELANIN_BANDS = (1.0, 1.5, 2.38)  # (l / 610 nm) ^ -3.33
MELANIN_LIMIT = 5.0  # density that packed grains approach
BLOODLESS = (0.010, 0.032, 0.140)  # absorption over scattering of a dermis without blood
BLOOD_BANDS = (0.010, 0.145, 0.135)  # what the blood of average skin adds
CAROTENE_BAND = 0.06  # what carotene adds to the blue band
BLUE_BANDS = (1.0, 0.88, 0.68)  # density of what shines through bluish: veins, hair roots, thin skin over muscle
EPIDERMIS = 0.010  # light thrown back before it meets any melanin


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


def carotene(traits: Traits) -> float:
    """The share of yellow in a person's skin, 0.1 .. 1.6: olive and golden undertones against rosy ones."""
    return float(stream(traits.seed, "undertone").uniform(0.1, 1.6))


def skin_colour(traits: Traits) -> np.ndarray:
    """The plain linear RGB albedo (float32 3) of a person's skin, for parts that carry no texture."""
    fields = [np.full((1, 1), value, np.float32) for value in (melanin_density(traits.melanin), mean_blood(traits), 0.0, 0.0)]
    return colour(Pigment(*fields), carotene(traits))[0, 0]


def colour(pigment: Pigment, yellow: float) -> np.ndarray:
    """Linear RGB albedo (float32 h w 3) of painted skin; `yellow` is the share of carotene."""
    albedo = np.empty((*pigment.melanin.shape, 3), np.float32)
    floor = np.array(BLOODLESS, np.float32) + np.array([0, 0.12, 1], np.float32) * np.float32(CAROTENE_BAND * yellow)
    _mix(pigment.melanin, pigment.blood, pigment.blue, pigment.shade, floor, albedo)
    return albedo


@njit(cache=True, nogil=True)
def _mix(melanin: np.ndarray, blood: np.ndarray, blue: np.ndarray, shade: np.ndarray, floor: np.ndarray, albedo: np.ndarray) -> None:
    limit = np.float32(MELANIN_LIMIT)
    for row in range(albedo.shape[0]):
        for column in range(albedo.shape[1]):
            amount, flow = max(melanin[row, column], np.float32(0.0)), max(blood[row, column], np.float32(0.0))
            veil = np.exp(-shade[row, column])
            for band in range(3):
                absorbed = floor[band] + flow * np.float32(BLOOD_BANDS[band])
                dermis = np.float32(1.0) + absorbed - np.sqrt(absorbed * (absorbed + np.float32(2.0)))
                grains = limit * (np.float32(1.0) - np.exp(-amount * np.float32(MELANIN_BANDS[band]) / limit))
                passed = np.exp(-grains - blue[row, column] * np.float32(BLUE_BANDS[band]))
                albedo[row, column, band] = veil * (np.float32(EPIDERMIS) + dermis * passed)


WRINKLE_DEPTH = 1.8  # factor on all creases


def wrinkle_strength(traits: Traits) -> float:
    """How lined a person's skin is, 0 (smooth) .. 1: by age, sun and weight, from about 30 years on."""
    habit = stream(traits.seed, "wrinkles").uniform(0.65, 1.15)
    years = float(np.clip((traits.age - 26) / 50, 0, 1)) ** 1.2
    return float(
        np.clip(years * habit * (1 - 0.18 * traits.fullness) * (1.05 - 0.15 * traits.femininity) * (1.1 - 0.3 * traits.melanin), 0, 1)
    )


def wrinkles(traits: Traits, size: int) -> np.ndarray:
    """Depths of all creases over the plane (float32 size size, cm, positive is deep)."""
    depth = np.zeros((size, size), np.float32)
    strength = wrinkle_strength(traits)
    rng = stream(traits.seed, "wrinkle paths")
    _forehead(depth, rng, strength)
    _frown(depth, rng, strength)
    for side in (-1, 1):
        mirror = np.array([side, 1.0])
        _crows_feet(depth, rng, strength, mirror)
        _cheek_folds(depth, rng, strength, mirror)
    _neck_lines(depth, rng, strength)
    return depth


def _taper(count: int, sharp: float = 0.6) -> np.ndarray:
    return np.sin(np.linspace(0, np.pi, count)).clip(0) ** sharp


def _forehead(depth: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    lines = int(rng.integers(2, 5))
    for k in range(lines):
        level = 3.45 + (k + 0.25 * rng.normal()) * 2.6 / lines
        left, right = -rng.uniform(2.2, 4.6), rng.uniform(2.2, 4.6)
        s = np.linspace(left, right, 18)
        sag = 0.28 * np.cos(s * 0.75 + 0.4 * rng.normal()) + 0.05 * np.cumsum(rng.normal(size=18)) * 0.5
        patchy = _taper(18) * rng.uniform(0.45, 1.0, 18)
        crease(depth, np.stack([s, level - sag], -1), rng.uniform(0.08, 0.13), 0.05 * strength * rng.uniform(0.4, 1.0) * patchy)


def _frown(depth: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    for side in (-1, 1):
        foot = 0.62 + 0.12 * rng.normal()
        lean = 0.15 + 0.15 * rng.normal()
        path = curve([(side * (foot - 0.05), 1.0), (side * foot, 1.6), (side * (foot + lean), 2.1 + 0.4 * rng.random())], 8)
        depths = strength * rng.uniform(0.1, 1.0) * _taper(8, 0.9)
        crease(depth, path, 0.15, 0.022 * depths)
        crease(depth, path, 0.06, 0.016 * depths)
    across = curve([(-0.7, 0.75), (0.0, 0.6), (0.7, 0.75)], 8)
    crease(depth, across, 0.07, 0.035 * strength * rng.uniform(0.1, 1.0) * _taper(8))


def _crows_feet(depth: np.ndarray, rng: np.random.Generator, strength: float, mirror: np.ndarray) -> None:
    for _ in range(int(rng.integers(3, 6))):
        angle, length = rng.uniform(-0.75, 0.5), rng.uniform(0.7, 1.7)
        start = np.array([4.95, 0.05]) + 0.12 * rng.normal(size=2) + (0, 0.25 * angle)
        along = np.array([np.cos(angle), np.sin(angle)])
        bend = np.array([-along[1], along[0]]) * 0.1 * rng.normal()
        path = np.stack([start, start + 0.5 * length * along + bend, start + length * along])
        crease(depth, curve(list(path), 8) * mirror, rng.uniform(0.06, 0.10), 0.036 * strength * rng.uniform(0.4, 1.0) * _taper(8))


def _cheek_folds(depth: np.ndarray, rng: np.random.Generator, strength: float, mirror: np.ndarray) -> None:
    """The folds from the nose's wing past the mouth, below its corners, the one under the lower lip and fine ones on the cheek."""
    fold = curve([(2.0, -3.5), (2.55, -4.5), (3.1, -5.5), (3.45, -6.5), (3.5, -7.2)], 12)
    fold[1:-1] += 0.05 * rng.normal(size=(10, 2))
    profile = np.concatenate([np.linspace(0.3, 1.0, 4), np.linspace(1.0, 0.0, 8)]) * rng.uniform(0.7, 1.0, 12)
    crease(depth, fold * mirror, 0.32, (0.012 + 0.06 * strength * rng.uniform(0.5, 1.0)) * profile)
    crease(depth, fold * mirror, 0.09, (0.004 + 0.035 * strength * rng.uniform(0.4, 1.0)) * profile)
    mouth = curve([(2.75, -6.75), (2.95, -7.4), (3.05, -8.2), (2.95, -9.0)], 10)
    crease(depth, mouth * mirror, 0.20, 0.055 * strength * rng.uniform(0.3, 1.0) * np.linspace(1, 0, 10))
    for _ in range(int(rng.integers(3, 7))):
        start = np.array([rng.uniform(4.6, 6.4), rng.uniform(-5.5, -1.5)])
        path = curve([tuple(start), (start[0] + 0.15, start[1] - 0.6), (start[0] + 0.05, start[1] - rng.uniform(0.9, 1.6))], 7)
        crease(depth, path * mirror, 0.06, 0.035 * max(strength - 0.4, 0) * _taper(7))
    for k in range(6):
        root = -1.9 + 0.75 * k + 0.12 * rng.normal()
        if mirror[0] > 0:
            border = MOUTH_CORNER[1] + float(red_height(np.array(root), np.array(True)))
            path = np.array([[root, border + 0.05], [root * 1.05, border + 0.3], [root * 1.1, border + 0.6]])
            crease(depth, path, 0.05, 0.03 * max(strength - 0.3, 0) * rng.uniform(0.3, 1.0) * np.array([1, 0.8, 0]))


def _neck_lines(depth: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    for level in (-12.6, -13.7):
        s = np.linspace(-7, 7, 18)
        t = level + 0.25 * rng.normal() + 0.010 * s * s + 0.06 * np.cumsum(rng.normal(size=18)) * 0.4
        crease(depth, np.stack([s, t], -1), 0.12, (0.01 + 0.04 * strength) * rng.uniform(0.3, 1.0) * _taper(18) * rng.uniform(0.5, 1, 18))


def freckle_density(traits: Traits) -> float:
    """How freckled a person is, 0 (not) .. 1: some of the pale and the red-haired, mostly young."""
    rng = stream(traits.seed, "freckles")
    red_hair = float(np.clip((traits.hair_colour[0] / max(float(traits.hair_colour[2]), 1e-3) - 4.5) / 3, 0, 1))
    prone = float(rng.random() < 0.16 + 0.6 * red_hair) * rng.uniform(0.25, 1.0)
    return float(np.clip(prone * (1 - 1.5 * traits.melanin), 0, 1))


def paint_blemishes(traits: Traits, pigment: Pigment, bump: np.ndarray) -> None:
    """Adds everybody's own marks to the pigment, and what stands out to the bump (cm)."""
    rng = stream(traits.seed, "blemishes")
    _freckles(traits, rng, pigment)
    _moles(rng, pigment, bump, traits)
    _age_spots(traits, rng, pigment)
    _pimples(traits, rng, pigment, bump)
    _veins(traits, rng, pigment)


def _marks(centre: np.ndarray, radius: np.ndarray, strength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spots (n 6) at places (n 2) that are slightly oval."""
    count = len(centre)
    return np.column_stack([centre, radius, rng.uniform(0.8, 1.4, count), rng.uniform(0, np.pi, count), strength])


def _freckles(traits: Traits, rng: np.random.Generator, pigment: Pigment) -> None:
    """Most lie on nose and cheeks, larger ones are fewer; everybody has a few faint ones."""
    count = int(40 + 1400 * freckle_density(traits))
    side = rng.choice([-1.0, 1.0], count)
    centre = np.stack([side * np.abs(rng.normal(2.6, 2.4, count)), rng.normal(-1.7, 2.0, count)], -1)
    wide = rng.random(count) < 0.3
    centre[wide] = np.stack([rng.uniform(-9, 9, int(wide.sum())), rng.uniform(-13, 7, int(wide.sum()))], -1)
    centre = centre[np.hypot(centre[:, 0] / 3, (centre[:, 1] + 6.6) / 1.3) > 1]
    radius = 0.035 + 0.035 * rng.exponential(0.8, len(centre)).clip(0, 3)
    strength = (0.10 + 0.35 * freckle_density(traits)) * rng.uniform(0.2, 1.0, len(centre)) * (0.6 + 0.4 * melanin_density(traits.melanin))
    spots(pigment.melanin, _marks(centre, radius, strength, rng))


def _moles(rng: np.random.Generator, pigment: Pigment, bump: np.ndarray, traits: Traits) -> None:
    count = int(rng.poisson(3.2))
    centre = np.stack([rng.uniform(-9, 9, count), rng.uniform(-14, 6.5, count)], -1)
    centre = centre[np.hypot(centre[:, 0] / 3.2, (centre[:, 1] + 6.6) / 1.4) > 1]
    radius = rng.uniform(0.04, 0.11, len(centre)) + 0.08 * (rng.random(len(centre)) < 0.12)
    marks = _marks(centre, radius, rng.uniform(0.2, 1.0, len(centre)) * (1 + 0.5 * melanin_density(traits.melanin)), rng)
    spots(pigment.melanin, marks)
    raised = marks.copy()
    raised[:, 5] = 0.35 * radius * (rng.random(len(centre)) < 0.5)
    spots(bump, raised)


def _age_spots(traits: Traits, rng: np.random.Generator, pigment: Pigment) -> None:
    years = float(np.clip((traits.age - 42) / 35, 0, 1))
    count = int(45 * years * rng.uniform(0.3, 1.0))
    side = rng.choice([-1.0, 1.0], count)
    centre = np.stack([side * rng.uniform(2.5, 9.5, count), rng.normal(1.0, 4.0, count)], -1)
    strength = rng.uniform(0.06, 0.32, count) * (0.5 + 0.5 * melanin_density(traits.melanin))
    spots(pigment.melanin, _marks(centre, rng.uniform(0.12, 0.42, count), strength, rng))


def _pimples(traits: Traits, rng: np.random.Generator, pigment: Pigment, bump: np.ndarray) -> None:
    """Red marks and small bumps, many on some of the young."""
    prone = rng.exponential(0.45) * (1.6 if traits.age < 27 else 0.6)
    count = int(min(6 + 40 * prone, 90))
    centre = np.stack([rng.uniform(-7, 7, count), rng.choice([3.6, -4.0, -9.0], count) + rng.normal(0, 1.5, count)], -1)
    centre = centre[np.hypot(centre[:, 0] / 3, (centre[:, 1] + 6.6) / 1.3) > 1]
    radius = rng.uniform(0.05, 0.16, len(centre))
    marks = _marks(centre, radius, rng.uniform(0.15, 1.1, len(centre)), rng)
    spots(pigment.blood, marks)
    marks[:, 5] *= 0.010
    spots(bump, marks)
    scars = marks[: len(marks) // 3].copy()
    scars[:, 0] *= -1
    scars[:, 5] = 0.06 * (0.2 + melanin_density(traits.melanin))
    spots(pigment.melanin, scars)


def _veins(traits: Traits, rng: np.random.Generator, pigment: Pigment) -> None:
    """Burst capillaries beside the nose and on the cheeks, more with age."""
    years = float(np.clip((traits.age - 30) / 40, 0, 1))
    for _ in range(int(26 * years * rng.uniform(0.2, 1.0) * (0.4 + traits.redness))):
        start = np.array([rng.choice([-1, 1]) * rng.uniform(1.3, 4.6), rng.uniform(-4.6, -2.2)])
        path = start + np.cumsum(rng.normal(0, 0.09, (7, 2)), 0)
        crease(pigment.blood, path, 0.035, np.full(7, rng.uniform(0.4, 1.3)))
