"""Earrings and necklaces."""

import numpy as np

from preprocess.talking_heads.scene.torso import Torso
from preprocess.talking_heads.scene.tubes import GOLD, ROSE, SILVER, ball, metal, tube
from preprocess.talking_heads.solids import Material, Mesh, join
from preprocess.talking_heads.traits import Traits, stream

_PEARL = Material(np.full((1, 1, 3), [0.72, 0.67, 0.60], np.float32), roughness=0.18, specular=0.06, scatter=(0.2, 0.2, 0.2))


def _precious(rng: np.random.Generator) -> Material:
    return metal(np.array([GOLD, GOLD, SILVER, ROSE])[rng.integers(4)])


def earrings(traits: Traits, lobe_left: np.ndarray, lobe_right: np.ndarray) -> Mesh | None:
    """Earrings of a person at the fronts of the ear lobes (each 3, cm of head space; left of the picture first), or None."""
    rng = stream(traits.seed, "earrings")
    if rng.random() > 0.04 + 0.6 * traits.femininity**2:
        return None
    kind = str(rng.choice(["stud", "pearl", "hoop", "drop"], p=[0.36, 0.2, 0.26, 0.18]))
    material, size = _precious(rng), float(rng.uniform(0, 1))
    return join(
        [_earring(kind, np.asarray(lobe, np.float64), side, material, size) for side, lobe in ((-1.0, lobe_left), (1.0, lobe_right))]
    )


def _earring(kind: str, lobe: np.ndarray, side: float, material: Material, size: float) -> Mesh:
    """One earring; `size` 0 .. 1 from small to large."""
    if kind == "stud":
        return ball(lobe + np.array([side * 0.1, 0, 0.1]), 0.16 + 0.12 * size, material)
    if kind == "pearl":
        return ball(lobe + np.array([side * 0.12, 0, 0.12]), 0.26 + 0.16 * size, _PEARL)
    if kind == "hoop":
        radius = 0.55 + 1.3 * size * size
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        spoke = np.stack([0.25 * side * np.sin(angle), np.cos(angle), np.sin(angle)], -1)
        path = lobe + np.array([side * 0.08, 0.1 - radius, 0]) + radius * spoke
        return tube(path, spoke, 0.05 + 0.04 * size, 0.05 + 0.04 * size, material, closed=True, sides=6)
    drop = lobe + np.array([side * 0.15, -0.9 - 1.2 * size, 0.1])
    wire = tube(np.linspace(lobe, drop, 4), np.array([1.0, 0, 0]), 0.03, 0.03, material, closed=False, sides=5)
    return join([wire, ball(drop, np.array([0.2, 0.38, 0.2]), material)])


def necklace(torso: Torso, rng: np.random.Generator) -> Mesh:
    """A fine chain or a row of pearls around the root of the neck, lying on the skin."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    hang = rng.uniform(0.05, 0.13)
    path = torso.surface(angle, 0.1 + hang * np.clip(np.cos(angle), 0, 1) ** 3, 0.08)
    if rng.random() < 0.2:
        shown = path[np.cos(angle) > -0.1]
        return join([ball(point, 0.34, _PEARL, 6, 8) for point in shown])
    material = _precious(rng)
    chain = tube(path, np.array([0.0, 1.0, 0.0]), 0.06, 0.06, material, closed=True, sides=5)
    return join([chain, ball(path[0] + np.array([0, -0.35, 0.1]), np.array([0.2, 0.3, 0.1]), material)]) if rng.random() < 0.5 else chain
