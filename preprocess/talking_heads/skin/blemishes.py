"""Marks of the skin: freckles, moles, age spots, pimples and fine veins, as spots of pigment on the template plane."""

import numpy as np

from preprocess.talking_heads.skin.brushes import crease, spots
from preprocess.talking_heads.skin.complexion import Pigment, melanin_density
from preprocess.talking_heads.traits import Traits, stream


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
