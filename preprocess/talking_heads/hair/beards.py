"""Beards: stubble, moustaches, goatees and full beards of masculine faces."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.form import HeadForm
from preprocess.talking_heads.hair.look import buried, colours, natural_tint, taper
from preprocess.talking_heads.hair.regions import LIP_CLEARANCE, BeardShape, beard_density, lip_distance
from preprocess.talking_heads.hair.roots import RestSkin, Roots, strew, unit
from preprocess.talking_heads.solids import Strands
from preprocess.talking_heads.traits import Traits, stream

_POINTS = 5


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
    if kind == "none":
        return None
    if kind == "stubble":
        length = float(rng.uniform(0.10, 0.26))
        return BeardStyle(
            BeardShape(0.9, 1.0, 0.85, patchy=patchy, **edge), length, length, length, 2200, 0.013, float(rng.uniform(0.15, 0.35))
        )
    if kind == "moustache":
        return BeardStyle(BeardShape(1.0, 0.0, 0.0, **edge), float(rng.uniform(0.7, 1.3)), 0.1, 0.1, 700, 0.024, 0.5)
    if kind == "goatee":
        size = float(rng.uniform(0.4, 1.6))
        return BeardStyle(
            BeardShape(float(rng.choice([0.0, 1.0], p=[0.3, 0.7])), 1.0, 0.0, **edge), 0.6 + 0.2 * size, size, 0.1, 1300, 0.024, 0.5
        )
    full = BeardShape(1.0, 1.0, 1.0, patchy=0.4 * patchy, **edge)
    if kind == "short":
        size = float(rng.uniform(0.5, 1.3))
        return BeardStyle(full, 0.6 + 0.25 * size, 1.1 * size, 0.8 * size, 2200, 0.026, 0.6)
    size = float(rng.uniform(2.2, 5.0))
    return BeardStyle(full, 1.2, size, 0.55 * size, 2000, 0.034, 0.65)


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
    roots = strew(skin, lambda s, t: beard_density(style.shape, s, t), style.strands, rng)
    s, t = roots.st.T
    side = np.abs(s)
    upper, cheek = smooth(-6.75, -6.4, t) * smooth(3.6, 3.0, side), smooth(3.2, 5.0, side)
    length = upper * style.moustache + (1 - upper) * (cheek * style.cheeks + (1 - cheek) * style.chin)
    length = length * np.interp(lip_distance(s, t), [0.1, 0.8], [0.6, 1.0]) * np.exp(0.18 * rng.normal(size=len(roots)))
    flow = _flow(roots, upper, rng)
    points = _grown(skin, roots, flow, _clear_of_lips(roots, flow, length), rng)
    radius = taper(style.radius, _POINTS, np.exp(0.2 * rng.normal(size=len(roots))))
    tint = natural_tint(traits, 0.85, float(np.clip(1.3 * traits.grey, 0, 1)))
    strands = colours(tint, rng.integers(0, max(len(roots) // 12, 1), len(roots)), rng)
    light = buried(points, radius, HeadForm.of(skin).middle, 0.6)
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
    along = np.linspace(0, 1, _POINTS, dtype=np.float32)
    hanging = unit(0.55 * heading + np.array([0, -1.0, 0.05]) * (1 - 0.8 * short))
    path = heading[:, None] * along[None, :, None] + 0.5 * (hanging - heading)[:, None] * along[None, :, None] ** 2
    wave = 0.05 * length[:, None, None] * rng.normal(size=(count, _POINTS, 3)) * along[None, :, None]
    points = roots.points[:, None] + length[:, None, None] * path + wave
    long = length > 0.8
    points[long, 1:] = HeadForm.of(skin).push_out(points[long, 1:], 0.05)
    return points.astype(np.float32)
