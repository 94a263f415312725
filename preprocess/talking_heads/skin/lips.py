"""The colour of the lips on the template plane: pigment inside the border, fine lines and moisture."""

from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.anatomy.lips import red_height
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.skin.brushes import noise, window
from preprocess.talking_heads.skin.complexion import Pigment, mean_blood, melanin_density
from preprocess.talking_heads.template import MOUTH_CORNER
from preprocess.talking_heads.traits import Traits, stream

_SLIT = MOUTH_CORNER[1]


@dataclass(frozen=True)
class LipPatch:
    """The mouth's part of the texture."""

    part: tuple[slice, slice]  # rows and columns of the texture
    red: np.ndarray  # float32 h w: share of lip against skin, 0..1
    bump: np.ndarray  # float32 h w, height in cm to add
    wet: np.ndarray  # float32 h w, 0 (skin) .. 1 (wet)


def paint_lips(traits: Traits, pigment: Pigment, size: int) -> LipPatch:
    """Changes the pigment to that of lips inside their border and returns the patch with its relief and moisture."""
    rng = stream(traits.seed, "lip colour")
    part, s, t = window(size, (-3.6, 3.6), (-8.9, -4.9))
    uneven = noise(rng, size, 0.35)[part]
    depth, height = _inside(s, t, uneven)
    upper = smooth(-0.10, 0.06, t - _SLIT)
    red = smooth(-0.07, rng.uniform(0.07, 0.14), depth)
    toward_slit = 1 - np.clip(np.abs(t - _SLIT) / np.maximum(height, 0.15), 0, 1)
    inner = smooth(0.70, 0.98, toward_slit) * (np.abs(s) < MOUTH_CORNER[0])
    lines = _lines(rng, traits, s, t, size, part) * red
    _blend(pigment, part, red, _lip_pigment(traits, rng, upper, toward_slit, inner, lines, uneven))
    roll = np.exp(-(((depth + 0.09) / 0.09) ** 2)) * (1 - smooth(1.5, 2.6, np.abs(s)))
    pigment.blood[part] *= 1 - 0.14 * roll
    pigment.melanin[part] *= 1 - 0.04 * roll
    corner = np.exp(-(((np.abs(s) - MOUTH_CORNER[0] - 0.02) / 0.22) ** 2) - ((t - _SLIT) / 0.13) ** 2)
    pigment.shade[part] += 0.35 * corner
    cushion = red * np.exp(-((s / 1.1) ** 2) - ((t + 7.12) / 0.26) ** 2)
    wet = np.clip(red * 0.42 + 0.35 * cushion + 0.5 * inner - 0.05 * lines, 0, 1)
    bump = 0.005 * roll - (0.004 + 0.006 * _aged(traits)) * np.maximum(lines, -0.8) + 0.002 * red * uneven
    return LipPatch(part, red.astype(np.float32), bump.astype(np.float32), wet.astype(np.float32))


def _aged(traits: Traits) -> float:
    return float(np.clip((traits.age - 30) / 45, 0, 1))


def _inside(s: np.ndarray, t: np.ndarray, uneven: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth inside the border in cm (negative outside) and the height of the red between slit and border at each texel."""
    above = t > _SLIT
    height = np.where(above, red_height(s, np.array(True)), red_height(s, np.array(False))).astype(np.float32)
    depth = (height - np.abs(t - _SLIT)) * np.where(np.abs(s) > 1.2, 0.85, 1.0)  # the border slopes at the sides
    beyond = np.hypot(np.maximum(np.abs(s) - MOUTH_CORNER[0], 0), t - _SLIT)
    return np.where(np.abs(s) > MOUTH_CORNER[0], -beyond, depth) + 0.022 * uneven, height


def _lines(rng: np.random.Generator, traits: Traits, s: np.ndarray, t: np.ndarray, size: int, part: tuple[slice, slice]) -> np.ndarray:
    """Fine furrows that fan out from the slit (about unit spread, positive in a furrow)."""
    fan = s / (1 + 0.16 * np.abs(t - _SLIT)) + 0.05 * noise(rng, size, 0.5)[part]
    place = np.linspace(-4, 4, 400)
    lines = np.zeros_like(fan)
    for spacing, weight in ((0.10, 0.5), (0.17, 0.7), (0.4, 0.5)):
        knots = rng.standard_normal(int(8 / spacing))
        ripple = np.interp(place, np.linspace(-4, 4, len(knots)), knots)
        lines += weight * np.interp(fan, place, ripple)
    breaks = 0.75 + 0.35 * noise(rng, size, 0.3)[part]
    return np.clip(lines * breaks, -1.5, 2.0) * (0.75 + 0.5 * _aged(traits))


def _lip_pigment(
    traits: Traits,
    rng: np.random.Generator,
    upper: np.ndarray,
    toward_slit: np.ndarray,
    inner: np.ndarray,
    lines: np.ndarray,
    uneven: np.ndarray,
) -> Pigment:
    """What lies in the red. `upper`, `toward_slit`, `inner`: 0..1, how much a texel is upper lip, near the slit, wet."""
    kept = rng.uniform(0.35, 0.7) + 0.15 * traits.melanin**2  # how much of the skin's melanin the lips keep: pink against brown lips
    share = (kept + 0.30 * upper) * (1 - 0.25 * toward_slit * (1 - upper)) + 0.04 * uneven
    rim = np.clip(1 - toward_slit * 3.2, 0, 1)
    blood = mean_blood(traits) ** 0.4 * rng.uniform(3.2, 5.6) * (1 - 0.25 * _aged(traits)) * (1 + 0.10 * lines + 0.08 * uneven)
    return Pigment(
        melanin=melanin_density(traits.melanin) * share * (1 - 0.45 * inner) + rng.uniform(0.02, 0.12),
        blood=np.maximum(blood, 2.4)
        * (1 + 0.8 * traits.melanin)
        * (0.8 + 0.25 * traits.femininity)
        * (1 + 0.45 * inner + 0.12 * upper + 0.12 * rim),
        blue=np.full_like(upper, rng.uniform(0.02, 0.10)),
        shade=0.30 * traits.melanin**2 + 0.07 * upper + 0.05 * lines + 0.16 * smooth(0.35, 1.0, toward_slit) + 0.10 * inner + 0.03 * rim,
    )


def _blend(pigment: Pigment, part: tuple[slice, slice], red: np.ndarray, lip: Pigment) -> None:
    for name in ("melanin", "blood", "blue", "shade"):
        field = getattr(pigment, name)[part]
        field += red * (getattr(lip, name) - field)
