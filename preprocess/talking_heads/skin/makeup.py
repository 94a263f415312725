"""Make-up over painted skin: foundation, blush, eye shadow, eye liner and lipstick, on some feminine people."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.skin.brushes import blob, window
from preprocess.talking_heads.skin.lids import margin_distance
from preprocess.talking_heads.skin.lips import LipPatch
from preprocess.talking_heads.template import INNER_CANTHUS, OUTER_CANTHUS
from preprocess.talking_heads.traits import Traits, stream

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
