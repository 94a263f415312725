"""The colour of the skin around the eyes on the template plane: lash line, wet margin and inner corner; and the fine folds there."""

import numpy as np

from preprocess.talking_heads.anatomy.sheet import lid_height
from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.skin.brushes import blob, crease, curve, window
from preprocess.talking_heads.skin.complexion import Pigment
from preprocess.talking_heads.template import INNER_CANTHUS, OUTER_CANTHUS
from preprocess.talking_heads.traits import Traits, stream


def margin_distance(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rough distance in cm to the margin of the lids, negative in the opening, and a mask: 1 above the corners' line, 0 below."""
    u = np.clip(2 * (np.abs(s) - INNER_CANTHUS[0]) / (OUTER_CANTHUS[0] - INNER_CANTHUS[0]) - 1, -1, 1)
    line = INNER_CANTHUS[1] + (OUTER_CANTHUS[1] - INNER_CANTHUS[1]) * (u + 1) / 2
    top, bottom = line + lid_height(u, np.array(True)), line - lid_height(u, np.array(False))
    aside = np.maximum(np.abs(s) - OUTER_CANTHUS[0], 0) + np.maximum(INNER_CANTHUS[0] - np.abs(s), 0)
    vertical = np.maximum(t - top, bottom - t) * np.where(aside > 0, 1.0, 0.85)  # 0.85: the margin slopes
    distance = np.where(aside > 0, np.hypot(aside, np.maximum(vertical, 0)), vertical)
    return distance, smooth(-0.05, 0.05, t - line)


def paint_eyelids(traits: Traits, pigment: Pigment, wet: np.ndarray, size: int) -> None:
    """Paints both eyes' surroundings; `wet` (h w, 0..1) is raised at the margin and in the inner corner."""
    rng = stream(traits.seed, "eyelids")
    lash = rng.uniform(0.55, 1.0) * (0.8 + 0.3 * traits.femininity)
    pink = rng.uniform(0.7, 1.3)
    for side in (-1, 1):
        part, s, t = window(size, (min(side * 0.8, side * 6.2), max(side * 0.8, side * 6.2)), (-1.3, 1.4))
        place = np.abs(s)
        distance, upper = margin_distance(s, t)
        lashes = np.exp(-((np.maximum(distance - 0.02, 0) / 0.075) ** 2)) * smooth(INNER_CANTHUS[0] + 0.05, 2.4, place)
        lashes *= 1 - smooth(OUTER_CANTHUS[0] + 0.05, OUTER_CANTHUS[0] + 0.3, place)
        pigment.shade[part] += lash * lashes * (0.18 + 1.0 * upper)
        margin = np.exp(-((np.maximum(distance, 0) / 0.05) ** 2)) * (1 - 0.8 * upper)
        caruncle = blob(place, t, (INNER_CANTHUS[0] + 0.06, INNER_CANTHUS[1]), (0.20, 0.14))
        pigment.blood[part] += pink * (2.0 * margin + 3.5 * caruncle)
        pigment.melanin[part] *= 1 - np.minimum(0.4 * margin + 0.6 * caruncle, 0.8)
        pigment.shade[part] += 0.15 * caruncle
        wet[part] = np.maximum(wet[part], np.maximum(0.7 * margin, 0.8 * caruncle))


def lid_folds(traits: Traits, lid_crease: float, depth: np.ndarray) -> None:
    """Adds the fold of the upper lid and the lines below the eye to a field of creases (cm, positive is deep).

    lid_crease: cm from the margin of the upper lid to its fold.
    """
    rng = stream(traits.seed, "lid folds")
    age = float(np.clip((traits.age - 25) / 45, 0, 1))
    fold = np.interp(np.linspace(0, 6, 15), range(7), [0.2, 0.8, 1.0, 1.0, 0.9, 0.5, 0.0])
    for side in (-1, 1):
        middle = lid_crease + 0.02 * rng.normal()
        path = curve(
            [(1.75, 0.2), (2.3, 0.30 + middle), (3.1, 0.50 + middle), (3.9, 0.42 + middle), (4.6, 0.15 + 0.6 * middle), (5.0, 0.1)], 15
        )
        crease(depth, path * (side, 1), 0.09, 0.03 * fold)
        for k in range(1 + round(2.5 * age)):
            drop = 0.38 + 0.27 * k + 0.05 * rng.normal()
            arc = curve(
                [(1.9 + 0.1 * k, -0.35 - drop), (3.0, -0.55 - drop), (3.9 + 0.1 * rng.normal(), -0.35 - drop), (4.6, -drop + 0.1)], 8
            )
            strength = (0.010 + 0.022 * age) * rng.uniform(0.5, 1.0) * np.sin(np.linspace(0.25, np.pi, 8)).clip(0)
            crease(depth, arc * (side, 1), 0.10 + 0.02 * k, strength)
