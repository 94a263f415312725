"""The lines of a face by age: forehead, frown, crow's feet, folds beside nose and mouth, neck. A field of depths in cm."""

import numpy as np

from preprocess.talking_heads.anatomy.lips import red_height
from preprocess.talking_heads.skin.brushes import crease, curve
from preprocess.talking_heads.skin.lids import lid_folds
from preprocess.talking_heads.template import MOUTH_CORNER
from preprocess.talking_heads.traits import Traits, stream

DEPTH = 1.8  # factor on all creases


def wrinkle_strength(traits: Traits) -> float:
    """How lined a person's skin is, 0 (smooth) .. 1: by age, sun and weight, from about 30 years on."""
    habit = stream(traits.seed, "wrinkles").uniform(0.65, 1.15)
    years = float(np.clip((traits.age - 26) / 50, 0, 1)) ** 1.2
    return float(
        np.clip(years * habit * (1 - 0.18 * traits.fullness) * (1.05 - 0.15 * traits.femininity) * (1.1 - 0.3 * traits.melanin), 0, 1)
    )


def wrinkles(traits: Traits, size: int, lid_crease: float = 0.45) -> np.ndarray:
    """Depths of all creases over the plane (float32 size size, cm, positive is deep); see `paint_skin` for `lid_crease`."""
    depth = np.zeros((size, size), np.float32)
    strength = wrinkle_strength(traits)
    rng = stream(traits.seed, "wrinkle paths")
    _forehead(depth, rng, strength)
    _frown(depth, rng, strength)
    lid_folds(traits, lid_crease, depth)
    for side in (-1, 1):
        mirror = np.array([side, 1.0])
        _crows_feet(depth, rng, strength, mirror)
        _cheek_folds(depth, rng, strength, mirror)
    _neck(depth, rng, strength)
    return DEPTH * depth


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


def _neck(depth: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    for level in (-12.6, -13.7):
        s = np.linspace(-7, 7, 18)
        t = level + 0.25 * rng.normal() + 0.010 * s * s + 0.06 * np.cumsum(rng.normal(size=18)) * 0.4
        crease(depth, np.stack([s, t], -1), 0.12, (0.01 + 0.04 * strength) * rng.uniform(0.3, 1.0) * _taper(18) * rng.uniform(0.5, 1, 18))
