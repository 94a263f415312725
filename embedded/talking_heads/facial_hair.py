"""Brows, lashes and beards."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from embedded.talking_heads.face import red_height
from embedded.talking_heads.hair import HeadForm, RestSkin, Roots, buried, colours, natural_tint, sample_roots, taper
from embedded.talking_heads.solids import Strands
from embedded.talking_heads.template import BROW, MENTON, MOUTH_CORNER, SUBNASALE, eye_outline
from embedded.talking_heads.traits import Traits, smooth, stream, unit

LIP_CLEARANCE = 0.17  # cm on the plane between the red of the lips and the nearest hair


@dataclass(frozen=True)
class BrowShape:
    """The shape of a pair of brows."""

    thickness: float = 0.36  # cm, half the height at its thickest
    arch: float = 0.0  # cm that the outer third is higher
    slant: float = 0.0  # cm that the outer end is higher
    density: float = 1.0  # 0.3 thin .. 1 bushy


def brow_middle(shape: BrowShape, side: np.ndarray) -> np.ndarray:
    """Height t of the middle line of the brow at |s|."""
    known_s, known_t = np.array(BROW).T
    bow = shape.arch * np.exp(-(((side - 3.7) / 1.4) ** 2)) + (shape.slant - 0.22) * (side - 1.2) / 4.2 + 0.16
    return np.interp(side, known_s, known_t) + bow


def brow_density(shape: BrowShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense the brows grow, 0..1."""
    side = np.abs(s)
    known = np.array([0.9, 1.4, 2.3, 3.5, 4.6, 5.5])
    half = shape.thickness * np.interp(side, known, [0.6, 0.85, 1.0, 0.82, 0.55, 0.25])
    off = (t - brow_middle(shape, side)) / half
    ends = smooth(1.05, 1.75, side) * smooth(5.5, 4.7, side)
    return np.exp(-(np.clip(np.abs(off), 0, 4) ** 3.0)) * ends


def lip_distance(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far (cm, roughly) points of the plane lie outside the red of the lips; negative on it."""
    inside = 0.9 * (np.abs(t - MOUTH_CORNER[1]) - red_height(s, t > MOUTH_CORNER[1]))
    beyond = 0.8 * np.hypot(np.abs(s) - MOUTH_CORNER[0], t - MOUTH_CORNER[1])
    return np.where(np.abs(s) > MOUTH_CORNER[0], beyond, inside)


@dataclass(frozen=True)
class BeardShape:
    """Which parts of the beard are grown, each 0..1, and where it ends."""

    moustache: float
    chin: float
    cheeks: float
    cheek_line: float = 0.0  # cm lower
    neck_line: float = 0.0  # cm higher
    patchy: float = 0.0  # 0..1
    phase: float = 0.0


def beard_density(shape: BeardShape, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How dense the beard grows, 0..1; nothing on the lips."""
    side = np.abs(s)
    cheek = np.interp(side, [0, 1.9, 2.6, 3.4, 4.6, 6.4, 7.7, 8.3, 9.3], [-4.7, -4.75, -5.0, -5.75, -5.9, -4.6, -2.4, -0.6, -0.6])
    cheek = cheek - shape.cheek_line * smooth(3.0, 4.2, side) * smooth(8.2, 7.0, side)
    neck = np.interp(side, [0, 3.0, 6.0, 8.4, 9.3], [MENTON[1] - 1.2, MENTON[1] - 0.9, -10.6, -8.4, -6.8]) + shape.neck_line
    whole = smooth(-0.1, 0.55, cheek - t) * smooth(-0.3, 0.9, t - neck) * smooth(9.5, 9.0, side)
    clear = smooth(LIP_CLEARANCE, LIP_CLEARANCE + 0.12, lip_distance(s, t)) * np.maximum(
        smooth(0.05, 0.3, SUBNASALE[1] - t + 0.35 * smooth(0.8, 1.6, side)), smooth(2.4, 3.0, side)
    )
    upper = smooth(-6.75, -6.45, t) * smooth(3.5, 2.9, side)
    ring = (1 - upper) * smooth(3.9, 3.0, side)
    share = shape.moustache * upper + shape.chin * ring + shape.cheeks * (1 - upper - ring)
    bare = 0.75 * np.exp(-(((side - 1.5) / 0.5) ** 2) - ((t + 8.0) / 0.4) ** 2) + 0.35 * np.exp(-((side / 0.22) ** 2)) * (t > -6)
    spots = 0.5 + 0.5 * np.sin(1.9 * s + shape.phase) * np.sin(1.6 * t + 2 * shape.phase)
    return whole * clear * share * (1 - bare) * (1 - shape.patchy * spots * smooth(3.2, 4.5, side))


_BROW_POINTS, _LASH_POINTS = 4, 5


def draw_brows(traits: Traits) -> BrowShape:
    """The brows of a person: thick and level on men, thinner and arched on women, with all in between."""
    rng = stream(traits.seed, "brows")
    female = traits.femininity
    return BrowShape(
        thickness=float(np.clip(rng.normal(0.35 - 0.11 * female, 0.06), 0.15, 0.5)),
        arch=float(np.clip(rng.normal(0.02 + 0.10 * female, 0.09), -0.15, 0.35)),
        slant=float(rng.normal(-0.05 + 0.12 * female, 0.15)),
        density=float(np.clip(rng.normal(0.85, 0.2), 0.4, 1.0)),
    )


def brow_shade(traits: Traits, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far the skin under the brows looks like hair, 0..1 at plane coordinates s, t."""
    shape = draw_brows(traits)
    return 0.38 * shape.density * brow_density(shape, s, t)


def eyebrows(traits: Traits, skin: RestSkin) -> Strands:
    """Both brows: hairs that rise at the nose, then turn outwards and close over each other along the middle line."""
    rng = stream(traits.seed, "brow hairs")
    shape = draw_brows(traits)
    count = int(2 * (90 + 90 * shape.density * shape.thickness / 0.36))
    roots = sample_roots(skin, lambda s, t: brow_density(shape, s, t), count, rng)
    s, t = roots.st.T
    side, off = np.abs(s), (t - brow_middle(shape, np.abs(s))) / shape.thickness
    slope = (brow_middle(shape, side + 0.1) - brow_middle(shape, side - 0.1)) / 0.2
    angle = np.interp(side, [1.0, 1.7, 2.6, 5.4], [1.25, 0.75, 0.35, 0.0]) - 0.30 * off * smooth(1.6, 2.6, side) + np.arctan(slope)
    angle = angle + 0.16 * rng.normal(size=len(roots))
    heading = roots.tangent(np.sign(s) * np.cos(angle), np.sin(angle))
    bent = roots.tangent(np.sign(s) * np.cos(angle - 0.5), np.sin(angle - 0.5))
    length = (
        np.interp(side, [1.0, 2.2, 3.8, 5.4], [0.45, 0.72, 0.68, 0.42])
        * (0.6 + 0.4 * shape.thickness / 0.36)
        * np.exp(0.18 * rng.normal(size=len(roots)))
    )
    points = _short(roots, heading, bent, length, _BROW_POINTS, 0.05 * np.exp(0.3 * rng.normal(size=len(roots))))
    old = float(np.clip((traits.age - 45) / 40, 0, 1))
    tint = natural_tint(traits, 0.95, traits.grey * (0.3 + 0.5 * old))
    radius = taper(0.014, _BROW_POINTS, np.exp(0.2 * rng.normal(size=len(roots))))
    return Strands(points, radius, colours(tint, np.arange(len(roots)), rng), roots.vertex, 0.2)


def _short(roots: Roots, heading: np.ndarray, bent: np.ndarray, length: np.ndarray, points: int, lift: np.ndarray) -> np.ndarray:
    """Short strands (n points 3) along the skin that turn from `heading` to `bent` (n 3, unit), their middles `lift` (n, cm) off it."""
    along = np.linspace(0, 1, points, dtype=np.float32)[None, :, None]
    path = heading[:, None] * along + 0.5 * (bent - heading)[:, None] * along**2
    rise = lift[:, None, None] * (1 - (1 - along) ** 2)
    return (roots.points[:, None] + length[:, None, None] * path + roots.normals[:, None] * rise).astype(np.float32)


def eyelashes(traits: Traits, skin: RestSkin) -> Strands:
    """Upper and lower lashes of both eyes, curved away from the eye; longer and darker on made-up faces."""
    rng = stream(traits.seed, "lashes")
    female = traits.femininity
    rows = [_lash_row(skin, side, upper, female, rng) for side in (-1, 1) for upper in (True, False)]
    points, vertex = (np.concatenate(part) for part in zip(*rows, strict=True))
    colour = traits.hair_colour * 0.5 * (1 - 0.6 * female) + np.array([0.012, 0.009, 0.008])
    shades = (colour * np.exp(0.15 * rng.normal(size=(len(points), 1)))).astype(np.float32)
    return Strands(points, taper(0.009 + 0.004 * female, _LASH_POINTS, np.ones(len(points)), 0.2), shades, vertex, 0.1)


def _lash_row(skin: RestSkin, side: int, upper: bool, female: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (n k 3) and vertices (n) of one lid's lashes; `side` is -1 or 1 in the picture."""
    count = 46 if upper else 26
    angle = np.pi * (0.06 + 0.78 * (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count)
    s, t = eye_outline(angle if upper else -angle)
    gap, near = cKDTree(skin.st).query(np.stack([side * s, t], -1), k=4)
    margin = skin.vertices[near]
    foremost = np.exp(12 * (margin[..., 2] - margin[..., 2].max(1, keepdims=True)))  # the outer of the two edges of the lid
    share = foremost / (gap + 0.03) ** 2
    base = np.einsum("nk,nkd->nd", share / share.sum(1, keepdims=True), margin)
    fan = side * (np.where(angle < np.pi / 2, 0.75, 0.35) * np.cos(angle) + 0.12) + 0.10 * rng.normal(size=count)
    size = (0.62 + 0.22 * female if upper else 0.28 + 0.10 * female) * (0.72 + 0.28 * np.sin(angle)) * np.exp(0.12 * rng.normal(size=count))
    rise = np.where(upper, -0.05, -0.25)
    heading = unit(np.stack([fan, np.full(count, rise), np.ones(count)], -1))
    bent = unit(np.stack([fan, np.full(count, 1.5 if upper else -1.2), np.full(count, 0.45)], -1))
    along = np.linspace(0, 1, _LASH_POINTS)[None, :, None]
    path = heading[:, None] * along + 0.5 * (bent - heading)[:, None] * along**2
    return (base[:, None] + size[:, None, None] * path).astype(np.float32), near[np.arange(count), share.argmax(1)].astype(np.int32)


_BEARD_POINTS = 5


@dataclass(frozen=True)
class BeardStyle:
    """A beard: where it grows, how long (cm) and how dense."""

    shape: BeardShape
    moustache: float
    chin: float
    cheeks: float
    strands: int
    radius: float
    cover: float  # how much the skin between the roots looks like hair


def draw_beard(traits: Traits) -> BeardStyle | None:
    """The beard of a person; None for feminine or shaven faces."""
    if traits.femininity > 0.45 or traits.age < 19:
        return None
    rng = stream(traits.seed, "beard")
    kind = rng.choice(["none", "stubble", "moustache", "goatee", "short", "long"], p=[0.46, 0.22, 0.05, 0.09, 0.13, 0.05])
    edge = {"cheek_line": float(rng.uniform(-0.3, 0.9)), "neck_line": float(rng.uniform(-0.2, 0.8)), "phase": float(rng.uniform(0, 6.28))}
    patchy = float(rng.uniform(0, 0.8)) * float(np.clip((32 - traits.age) / 12, 0.15, 1))
    size = float(rng.random())
    lip = float(rng.random() < 0.7)
    if kind == "none":
        return None
    return {
        "stubble": BeardStyle(BeardShape(0.9, 1.0, 0.85, patchy=patchy, **edge), *(0.1 + 0.16 * size,) * 3, 2200, 0.013, 0.25),
        "moustache": BeardStyle(BeardShape(1.0, 0.0, 0.0, **edge), 0.7 + 0.6 * size, 0.1, 0.1, 700, 0.024, 0.5),
        "goatee": BeardStyle(BeardShape(lip, 1.0, 0.0, **edge), 0.7 + 0.2 * size, 0.4 + 1.2 * size, 0.1, 1300, 0.024, 0.5),
        "short": BeardStyle(
            BeardShape(1.0, 1.0, 1.0, patchy=0.4 * patchy, **edge), 0.7 + 0.2 * size, 0.5 + size, 0.4 + 0.6 * size, 2200, 0.026, 0.6
        ),
        "long": BeardStyle(BeardShape(1.0, 1.0, 1.0, **edge), 1.2, 2.2 + 2.8 * size, 1.2 + 1.5 * size, 2000, 0.034, 0.65),
    }[str(kind)]


def whisker_shade(traits: Traits, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How far the skin under the beard looks like hair, 0..1 at plane coordinates s, t."""
    style = draw_beard(traits)
    return np.zeros_like(s) if style is None else style.cover * beard_density(style.shape, s, t)


def beard(traits: Traits, skin: RestSkin) -> Strands | None:
    """The strands of the beard, or None."""
    style = draw_beard(traits)
    if style is None:
        return None
    rng = stream(traits.seed, "beard hairs")
    roots = sample_roots(skin, lambda s, t: beard_density(style.shape, s, t), style.strands, rng)
    s, t = roots.st.T
    side = np.abs(s)
    upper, cheek = smooth(-6.75, -6.4, t) * smooth(3.6, 3.0, side), smooth(3.2, 5.0, side)
    length = upper * style.moustache + (1 - upper) * (cheek * style.cheeks + (1 - cheek) * style.chin)
    length = length * np.interp(lip_distance(s, t), [0.1, 0.8], [0.6, 1.0]) * np.exp(0.18 * rng.normal(size=len(roots)))
    flow = _flow(roots, upper, rng)
    points = _grown(skin, roots, flow, _clear_of_lips(roots, flow, length), rng)
    radius = taper(style.radius, _BEARD_POINTS, np.exp(0.2 * rng.normal(size=len(roots))))
    tint = natural_tint(traits, 0.85, float(np.clip(1.3 * traits.grey, 0, 1)))
    strands = colours(tint, rng.integers(0, max(len(roots) // 12, 1), len(roots)), rng)
    light = buried(points, HeadForm.of(skin), 0.4 * style.chin)
    return Strands(points, radius, strands, roots.vertex, 0.3, light)


def _flow(roots: Roots, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Directions on the plane (n 2, unit): the moustache (`upper`, 0..1) away from the middle, the rest down."""
    s, _ = roots.st.T
    side = np.abs(s)
    outward = np.sign(s) * (upper * (0.35 + 0.35 * smooth(0.2, 1.5, side)) + (1 - upper) * 0.10 * smooth(0.0, 3.0, side))
    flow = np.stack([outward + (0.30 - 0.18 * upper) * rng.normal(size=len(roots)), -np.ones(len(roots))], -1)
    return flow / np.linalg.norm(flow, axis=1, keepdims=True)


def _clear_of_lips(roots: Roots, flow: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Lengths (n) shortened until no hair reaches the red of the lips."""
    kept = np.zeros_like(length)
    blocked = np.zeros(len(length), bool)
    for share in np.linspace(0.1, 1.0, 10):
        reached = roots.st + flow * (share * length)[:, None]
        blocked |= lip_distance(reached[:, 0], reached[:, 1]) < LIP_CLEARANCE
        kept = np.where(blocked, kept, share * length)
    return np.maximum(kept, 0.05)


def _grown(skin: RestSkin, roots: Roots, flow: np.ndarray, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (n k 3): out of the skin along the flow, sinking with their weight, clear of the throat."""
    count = len(roots)
    short = smooth(1.2, 0.3, length)[:, None]
    heading = unit(roots.tangent(*flow.T) + roots.normals * (0.42 + 0.25 * short + 0.12 * rng.random((count, 1))))
    along = np.linspace(0, 1, _BEARD_POINTS, dtype=np.float32)
    hanging = unit(0.55 * heading + np.array([0, -1.0, 0.05]) * (1 - 0.8 * short))
    path = heading[:, None] * along[None, :, None] + 0.5 * (hanging - heading)[:, None] * along[None, :, None] ** 2
    wave = 0.05 * length[:, None, None] * rng.normal(size=(count, _BEARD_POINTS, 3)) * along[None, :, None]
    points = roots.points[:, None] + length[:, None, None] * path + wave
    long = length > 0.8
    points[long, 1:] = HeadForm.of(skin).hold(points[long, 1:], 0.05)
    return points.astype(np.float32)
