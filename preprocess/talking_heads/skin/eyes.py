"""One person's eyeball: a sphere with the cornea's bulge, its white and its iris."""

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.solids import Material, Mesh, grid_faces
from preprocess.talking_heads.traits import Traits, stream

TEXTURE = 256  # texels a side
REACH = np.radians(115)  # angle from the optical axis that the mesh covers; behind it lies the socket
SPREAD = 0.7  # exponent of the angle in the texture, below 1: more texels for the iris
CORNEA_RADIUS = 0.78  # cm, of curvature
CORNEA_HEIGHT = 0.10  # cm over the sphere at the apex
IRIS_RADIUS = 0.59  # cm: white to white 11.8 mm
SECTORS = 28
# Iris colours, linear RGB: the outer part and the part around the pupil, from light to dark
_BLUE = ((0.17, 0.24, 0.33), (0.25, 0.28, 0.28))
_GREY = ((0.20, 0.23, 0.25), (0.26, 0.24, 0.19))
_GREEN = ((0.15, 0.18, 0.10), (0.24, 0.17, 0.07))
_HAZEL = ((0.13, 0.10, 0.05), (0.19, 0.10, 0.035))
_BROWN = ((0.085, 0.034, 0.010), (0.12, 0.050, 0.013))
_DARK = ((0.022, 0.009, 0.004), (0.032, 0.013, 0.005))


def eyeball(traits: Traits, radius: float = 1.2) -> Mesh:
    """The eye in its own space: origin at the ball's centre, looking along +z; `radius` in cm."""
    angle = _rings(radius)
    sector = 2 * np.pi * np.arange(SECTORS) / SECTORS
    distance = _profile(angle, radius)
    across, forward = distance * np.sin(angle), distance * np.cos(angle)
    shape = (len(angle), SECTORS)
    # sectors run clockwise as the viewer sees them, so that rows going outwards give faces that look outwards
    x, y = across[:, None] * np.cos(sector), -across[:, None] * np.sin(sector)
    vertices = np.stack([x, y, np.broadcast_to(forward[:, None], shape)], -1).reshape(-1, 3)
    reach = 0.5 * (angle / REACH) ** SPREAD
    uv = 0.5 + np.stack([reach[:, None] * np.cos(sector), reach[:, None] * np.sin(sector)], -1).reshape(-1, 2)
    material = Material(albedo=paint_eye(traits, radius), roughness=0.08, specular=0.025, scatter=(0.25, 0.16, 0.12))
    return Mesh.of(vertices, _outward(vertices, grid_faces(*shape, closed=True)), uv, material)


def paint_eye(traits: Traits, radius: float = 1.2) -> np.ndarray:
    """Albedo of the eyeball (float32 TEXTURE TEXTURE 3, linear RGB), the pupil in the middle."""
    rng = stream(traits.seed, "eyes")
    middle = (np.arange(TEXTURE, dtype=np.float32) + 0.5) / TEXTURE * 2 - 1
    x, y = middle[None], -middle[:, None]
    angle = REACH * np.minimum(np.hypot(x, y), 1.0) ** (1 / SPREAD)
    around = np.arctan2(y, x) + 0 * angle
    share = radius * np.sin(np.minimum(angle, np.pi / 2)) / IRIS_RADIUS  # 1 at the rim of the iris
    white = _white(traits, rng, angle, around)
    iris = _iris(traits, rng, share, around)
    inside = (1 - smooth(0.93, 1.05, share)) * (angle < np.pi / 2)
    return np.clip(white + inside[..., None] * (iris - white), 0, 1).astype(np.float32)


def _rings(radius: float) -> np.ndarray:
    """Angles from the optical axis at which vertices lie: dense over the cornea."""
    limbus = np.arcsin(IRIS_RADIUS / radius)
    cornea = limbus * np.array([0.0, 0.18, 0.38, 0.58, 0.76, 0.90, 1.0, 1.12])
    return np.concatenate([cornea, np.linspace(cornea[-1], REACH, 8)[1:]])


def _profile(angle: np.ndarray, radius: float) -> np.ndarray:
    """Distance from the ball's centre: the sphere, or the cornea's cap where that stands out, with a soft edge between them."""
    centre = radius + CORNEA_HEIGHT - CORNEA_RADIUS
    along = centre * np.cos(angle)
    cap = along + np.sqrt(np.maximum(along**2 - centre**2 + CORNEA_RADIUS**2, 0))
    return radius + np.logaddexp(0, (cap - radius) / 0.012) * 0.012


def _outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces turned so that they are counter-clockwise from outside the ball; those without an area are left out."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    inward = (normal * (a + b + c)).sum(1) < 0
    return np.where(inward[:, None], faces[:, [0, 2, 1]], faces)[area > 1e-6].astype(np.int32)


def _white(traits: Traits, rng: np.random.Generator, angle: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The sclera: off-white, pinker and veined to the corners, yellower with age and in dark skin, bluish in the young."""
    aged = float(np.clip((traits.age - 25) / 50, 0, 1))
    yellow = 0.5 * aged + 0.5 * traits.melanin * rng.uniform(0.3, 1)
    base = np.array([0.51, 0.475, 0.445]) * rng.uniform(0.92, 1.06) * (1 - yellow * np.array([0.06, 0.10, 0.24]))
    corner = smooth(0.5, 1.35, angle) * (0.45 + 0.55 * np.abs(np.cos(around)))
    veins = _veins(rng, angle, around) * smooth(0.6, 1.1, angle) * np.abs(np.cos(around)) ** 0.7
    red = (rng.uniform(0.25, 0.6) * corner + rng.uniform(0.25, 0.8) * veins)[..., None]
    rim = (0.10 * np.exp(-(((angle - 0.56) / 0.08) ** 2)))[..., None]  # the white is thin and bluish next to the iris
    return base * (1 - red * np.array([0.14, 0.52, 0.46])) * (1 - rim * np.array([1.3, 1.0, 0.7]))


def _veins(rng: np.random.Generator, angle: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Thin branching lines that run towards the iris (0..1)."""
    lines = np.zeros_like(angle)
    for _ in range(int(rng.integers(10, 22))):
        place, bend = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.25)
        wave = place + bend * (angle - 0.6) + 0.05 * np.sin(angle * rng.uniform(9, 25) + place)
        turn = np.angle(np.exp(1j * (around - wave)))
        start = rng.uniform(0.55, 1.0)
        lines = np.maximum(lines, np.exp(-((turn * angle / 0.022) ** 2)) * smooth(start, start + 0.35, angle))
    return lines


def _iris_colours(traits: Traits, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The outer and the inner colour (3 each): brown for most people, light eyes only with light skin."""
    light = rng.random() < np.clip(0.85 - 1.9 * traits.melanin, 0.0, 0.75)
    if light:
        pairs, weights = (_BLUE, _GREY, _GREEN, _HAZEL), (0.4, 0.2, 0.2, 0.2)
        chosen = np.array(pairs[rng.choice(len(pairs), p=weights)])
    else:
        chosen = np.array(_BROWN) + float(np.clip(rng.normal(traits.melanin, 0.25), 0, 1)) * (np.array(_DARK) - np.array(_BROWN))
    chosen = chosen * rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3)
    return chosen[0], chosen[1]


def _iris(traits: Traits, rng: np.random.Generator, share: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Fibres around the pupil, a wreath (collarette), a dark limbal ring, and the pupil itself."""
    outer, inner = _iris_colours(traits, rng)
    pupil = (rng.uniform(0.21, 0.27) - 0.05 * float(np.clip((traits.age - 30) / 50, 0, 1))) / IRIS_RADIUS
    fibres = sum(
        weight * np.cos(round(count) * around + rng.uniform(0, 6.3) + rng.normal(0, 1.2) * np.sin(rng.integers(2, 6) * around + 4 * share))
        for count, weight in zip(rng.uniform(14, 90, 9), (0.5, 0.5, 0.45, 0.4, 0.4, 0.35, 0.3, 0.3, 0.3), strict=True)
    )
    wreath = pupil + 0.20 + 0.03 * np.cos(5 * around + rng.uniform(0, 6)) + 0.02 * np.cos(11 * around)
    near = 1 - smooth(-0.07, 0.10, share - wreath + 0.03 * fibres)
    colour = outer + near[..., None] * (inner - outer)
    light = 1 + 0.22 * fibres * smooth(pupil, pupil + 0.12, share) + 0.30 * np.exp(-(((share - wreath) / 0.06) ** 2))
    limbal = 1 - rng.uniform(0.45, 0.85) * smooth(0.74, 0.98, share)
    colour = colour * (np.maximum(light, 0.25) * limbal)[..., None]
    open_pupil = 1 - smooth(pupil - 0.03, pupil + 0.035, share)
    return colour + open_pupil[..., None] * (0.004 - colour)
